"""Data parallelism: what processes started by torchrun share. In a single process every function does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


def is_parallel() -> bool:
    """Whether several processes work together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if is_parallel() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if is_parallel() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Joins the other processes where torchrun started several; leaves them at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def refuse_several(command: str) -> None:
    """Refuses several processes where one does the work.

    Raises:
        ValueError: if torchrun started several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{command} is the work of one process; start it without torchrun")


def barrier() -> None:
    """Waits for all processes."""
    if is_parallel():
        dist.barrier()


def gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all processes, which must have one shape, in the order of their ranks."""
    if not is_parallel():
        return [tensor]
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


def sum_in_place(tensors: Iterable[Tensor]) -> None:
    """Replaces tensors by their sums over all processes, in one message per dtype."""
    if not is_parallel():
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view(tensor.shape))
