"""Collectives for work that is split into blocks: each rank computes its own, rank 0 collects them in order.

Tensors are sent from the CPU. If one process fails, the messages of the others fail too;
:func:`heptapod.distributed.coordination.report_failure_once` makes sure that one of them reports the cause. In a single
process nothing is sent.
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
    """The blocks of work that this process does: every W-th of W processes.

    A block is done whole by one process, so that no number in it depends on how many processes there are.
    """
    return blocks[process_group.rank() :: process_group.world_size()]


def gather_blocks(blocks: Iterable[Mapping[str, Tensor]]) -> Iterator[Mapping[str, Tensor]]:
    """What all processes make of their :func:`blocks_of_rank`, in the order of the blocks, as they are made.

    Args:
        blocks: tensors on the CPU for each of this process's own blocks, none left out.

    Yields:
        In the first process the tensors of every block. In the others nothing: they take part by exhausting it.
    """
    if not process_group.is_distributed():
        yield from blocks
        return
    own = iter(blocks)
    while True:
        block = next(own, None)
        content = b"" if block is None else _packed(block)
        sizes = _meet(len(content))
        if not process_group.is_main_process():
            if content:
                _send(content)
        else:  # all are taken before one is handed on: who fails over a block must leave nobody waiting
            received = [_receive(size, rank) for rank, size in enumerate(sizes) if rank and size]
            if block is not None:
                yield block
            yield from map(safetensors.torch.load, received)
        if 0 in sizes:
            return


def broadcast_tensors(tensors: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    """What the first process has, in all of them.

    Args:
        tensors: on the CPU; None in the others.
    """
    if not process_group.is_distributed():
        assert tensors is not None
        return tensors
    content = b"" if tensors is None else _packed(tensors)
    (size, *_) = _meet(len(content))
    buffer = _buffer(content) if process_group.is_main_process() else torch.empty(size, dtype=torch.uint8)
    dist.broadcast(buffer, src=0)
    return tensors if tensors is not None else safetensors.torch.load(buffer.numpy().tobytes())


def main_process_first(work: Callable[[], T]) -> T:
    """Does something in the first process, and then in the others, which find what it has fetched."""
    if not process_group.is_main_process():
        _meet()
    result = work()
    if process_group.is_main_process():
        _meet()
    return result


def barrier() -> None:
    """Waits for all processes."""
    _meet()


def _meet(size: int = 0) -> list[int]:
    """All processes meet and say how much they have to send."""
    return [int(one) for one in process_group.all_gather(torch.tensor(size))]


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
