"""The process group of the ranks started by torchrun. In a single process every function is trivial."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from heptapod.distributed.errors import REPORTED_ERRORS, as_lost_process_error

T = TypeVar("T")

TIMEOUT = 600.0
"""Seconds a rank waits for the others before it gives up, unless a setting changes it."""


def is_distributed() -> bool:
    """Whether there are several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """The rank of this process."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """The number of ranks."""
    return dist.get_world_size() if is_distributed() else 1


def is_main_process() -> bool:
    """Whether this is rank 0, which writes files."""
    return rank() == 0


def launched_rank_and_world_size() -> tuple[int, int]:
    """Rank and world size as torchrun set them, before or after the process group is initialized."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def init_process_group(timeout: float = TIMEOUT) -> Iterator[None]:
    """Initializes the process group if torchrun started several ranks; destroys it at the end.

    Args:
        timeout: seconds to wait for other ranks.

    Raises:
        ValueError: if a machine with GPUs has more ranks than GPUs.
        LostProcessError: if the other ranks do not join.
    """
    if launched_rank_and_world_size()[1] == 1:
        yield
        return
    _check_gpus()
    try:
        _join(timedelta(seconds=timeout))
    except RuntimeError as error:
        raise as_lost_process_error(error) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def _check_gpus() -> None:
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if torch.cuda.is_available() and here > gpus:
        raise ValueError(
            f"{here} processes on this machine, but each needs a GPU and it has {gpus}: start at most {gpus}, or hide "
            "the GPUs (CUDA_VISIBLE_DEVICES=) to work on the CPU"
        )


def shared_store() -> Store:
    """The key-value store of the process group."""
    if hasattr(dist.distributed_c10d, "_get_default_store"):  # also of a group that others initialized
        return dist.distributed_c10d._get_default_store()
    if _store is None:
        raise RuntimeError("no process group was initialized here")
    return _store


_store: Store | None = None


def _join(timeout: timedelta) -> None:
    global _store
    store: Store
    store, number, processes = next(rendezvous("env://", timeout=timeout))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # After a restart torchrun's store may still hold the addresses of those that were stopped. Restarts are counted
        # on each machine for itself, so several need TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 instead (docs/scale.md).
        store = PrefixStore(f"heptapod/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    _store = store
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=number, world_size=processes, timeout=timeout)


def require_single_process(command: str) -> None:
    """Raises an error if torchrun started several processes for a command of one.

    Raises:
        ValueError: if torchrun started several.
    """
    if launched_rank_and_world_size()[1] > 1:
        raise ValueError(f"{command} runs in one process; start it without torchrun")


def barrier() -> None:
    """Waits until all ranks reach it."""
    if is_distributed():
        dist.barrier()


def broadcast_result(decide: Callable[[], T]) -> T:
    """Calls a function on rank 0 and broadcasts its result; an error on rank 0 is raised on all ranks.

    Args:
        decide: returns a value that can be pickled.
    """
    if not is_distributed():
        return decide()
    answer: list[Any] = [None, None]
    if is_main_process():
        try:
            answer = [decide(), None]
        except REPORTED_ERRORS as error:
            answer = [None, error]
    dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
    if answer[1] is not None:
        raise answer[1]
    decided: T = answer[0]
    return decided


def new_gloo_group(timeout: float) -> dist.ProcessGroup | None:
    """A second group of all ranks, for communication during training; None in a single process."""
    return dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if is_distributed() else None


def all_gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, which must have equal shapes, by rank."""
    if not is_distributed():
        return [tensor]
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


def all_reduce_sum(tensors: Iterable[Tensor]) -> None:
    """Replaces tensors by their sums over all ranks, in one message per dtype."""
    if not is_distributed():
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view(tensor.shape))
