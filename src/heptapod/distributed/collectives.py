"""Collectives for work that is split into blocks: each rank computes its blocks, rank 0 collects all of them in order.

Tensors are sent from the CPU. If one rank fails, the messages of the others fail too;
:func:`heptapod.distributed.coordination.report_failure_once` makes one of them report the cause. In a single process
nothing is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from heptapod.distributed import process_group

T = TypeVar("T")


def blocks_of_rank(blocks: Sequence[T]) -> Sequence[T]:
    """The blocks of this rank: every W-th one, where W is the world size.

    One rank computes a whole block, so that its values do not depend on the world size.
    """
    return blocks[process_group.rank() :: process_group.world_size()]


def gather_blocks(blocks: Iterable[Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
    """Gathers the results of :func:`blocks_of_rank` on rank 0, in the order of the blocks, as they are computed.

    Args:
        blocks: CPU tensors of every block of this rank.

    Yields:
        On rank 0 the tensors of every block. On other ranks nothing; they must exhaust the iterator.
    """
    if not process_group.is_distributed():
        yield from blocks
        return
    own = iter(blocks)
    while True:
        block = next(own, None)
        content = b"" if block is None else _packed(block)
        sizes = _gather_sizes(len(content))
        if not process_group.is_main_process():
            if content:
                _send(content)
        else:  # receive all before yielding one: a consumer that fails must not leave a sender waiting
            received = [_receive(size, rank) for rank, size in enumerate(sizes) if rank and size]
            if block is not None:
                yield block
            yield from map(safetensors.torch.load, received)
        if 0 in sizes:
            return


def broadcast_tensors(tensors: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    """Broadcasts the tensors of rank 0.

    Args:
        tensors: CPU tensors; None on other ranks.
    """
    if not process_group.is_distributed():
        assert tensors is not None
        return tensors
    content = b"" if tensors is None else _packed(tensors)
    (size, *_) = _gather_sizes(len(content))
    buffer = _buffer(content) if process_group.is_main_process() else torch.empty(size, dtype=torch.uint8)
    dist.broadcast(buffer, src=0)
    return tensors if tensors is not None else safetensors.torch.load(buffer.numpy().tobytes())


def main_process_first(work: Callable[[], T]) -> T:
    """Calls a function on rank 0 and then on the others, which find what it has downloaded."""
    if not process_group.is_main_process():
        process_group.barrier()
    result = work()
    if process_group.is_main_process():
        process_group.barrier()
    return result


def _gather_sizes(size: int) -> list[int]:
    """The number of bytes that every rank sends."""
    return [int(number) for number in process_group.all_gather(torch.tensor(size))]


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})


def _buffer(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _send(content: bytes) -> None:
    dist.send(_buffer(content), dst=0)


def _receive(size: int, rank: int) -> bytes:
    buffer = torch.empty(size, dtype=torch.uint8)
    dist.recv(buffer, src=rank)
    return buffer.numpy().tobytes()
