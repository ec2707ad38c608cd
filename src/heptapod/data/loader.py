"""The order in which training reads its items: an endless stateless stream.

Item k of the stream is item ``permutation(seed, epoch)[k mod M]`` of epoch ``k // M``. The number of items read so far
resumes a run exactly, also within an epoch, and no item is lost or read twice in an epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from heptapod.utils.random import Stream, numpy_generator, pinned


class ItemSet(Protocol):
    """Images or tokens with random access."""

    labels: Tensor
    """(M,) int64, -1 for no label."""

    @property
    def is_slow(self) -> bool:
        """Whether reading is slow enough to prefetch."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """A name for each item, for messages."""
        ...

    def __len__(self) -> int: ...

    def items(self, indices: Tensor, keys: list[tuple[int, int, int]]) -> Tensor:
        """The items with the given indices, augmented by the random streams of the keys."""
        ...


def names_sha256(items: ItemSet) -> str:
    """Hash of the names and labels of items."""
    digest = hashlib.sha256("\n".join(items.names).encode())
    digest.update(items.labels.numpy().data)
    return digest.hexdigest()


class Drawn(Protocol):
    """Tensors that a task draws for a batch."""

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        ...

    def pin_memory(self) -> Self:
        """The same in pinned memory."""
        ...


@dataclass
class Batch:
    """A part of the training stream."""

    items: Tensor
    """(B, ...): images or tokens."""
    labels: Tensor
    """(B,) int64."""
    keys: list[tuple[int, int, int]]
    """(seed, epoch, index) of each item, the key of all randomness of training."""
    names: list[str]
    """Names of the items."""
    drawn: Drawn | None = None
    """What the task drew for these items, see :meth:`heptapod.training.task.TrainTask.prepare`."""

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device; the copy of pinned memory is asynchronous."""
        items, labels = (tensor.to(device, non_blocking=True) for tensor in (self.items, self.labels))
        return Batch(items, labels, self.keys, self.names, self.drawn and self.drawn.to(device))

    def pin_memory(self) -> Batch:
        """The batch in pinned memory."""
        return Batch(
            pinned(self.items), pinned(self.labels), self.keys, self.names, self.drawn and self.drawn.pin_memory()
        )

    def split(self, parts: int) -> list[Batch]:
        """Micro-batches of (nearly) equal size, in order."""
        bounds = [len(self.keys) * part // parts for part in range(parts + 1)]
        return [
            Batch(self.items[a:b], self.labels[a:b], self.keys[a:b], self.names[a:b])
            for a, b in zip(bounds, bounds[1:], strict=False)
        ]


def batch_at(items: ItemSet, position: int, batch_size: int, seed: int) -> Batch:
    """Items ``position`` to ``position + batch_size`` of the stream over a set."""
    size = len(items)
    keys = []
    for k in range(position, position + batch_size):
        epoch, offset = divmod(k, size)
        keys.append((seed, epoch, int(_shuffled(size, seed, epoch)[offset])))
    indices = torch.tensor([index for _, _, index in keys])
    names = [items.names[index] for _, _, index in keys]
    return Batch(items.items(indices, keys), items.labels[indices], keys, names)


class BatchStream:
    """The batches of a run, as micro-batches.

    With ``ahead`` the next batch is prepared in the background. That helps if reading is slow or a GPU would wait; on a
    CPU it takes cores from training (an eighth of its speed on two cores).

    Args:
        items: the items.
        batch_size: items per step, over all processes.
        seed: seed of the order.
        share: rank and number of processes: the part of every batch that this process reads.
        ahead: prepare the next batch in the background.
        accumulation: micro-batches per step.
        prepare: adds to a micro-batch of a step (counted from 0) what its loss needs besides the items.
        pin: return pinned memory, from which a GPU copies asynchronously.
    """

    def __init__(
        self,
        items: ItemSet,
        batch_size: int,
        seed: int,
        share: tuple[int, int] = (0, 1),
        ahead: bool = False,
        accumulation: int = 1,
        prepare: Callable[[Batch, int], Batch] = lambda batch, _: batch,
        pin: bool = False,
    ) -> None:
        self._items = items
        self._batch_size = batch_size
        self._seed = seed
        self._share = share
        self._accumulation = accumulation
        self._prepare = prepare
        self._pin = pin
        self._pool = ThreadPoolExecutor(1) if ahead else None
        self._ahead: dict[int, Future[list[Batch]]] = {}

    def at(self, step: int) -> list[Batch]:
        """The micro-batches of this process's part of the batch of a step (counted from 0), on the CPU."""
        if self._pool is None:
            return self._read(step)
        future = self._ahead.pop(step, None) or self._pool.submit(self._read, step)
        self._ahead = {step + 1: self._pool.submit(self._read, step + 1)}
        return future.result()

    def _read(self, step: int) -> list[Batch]:
        rank, processes = self._share
        size = self._batch_size // processes
        batch = batch_at(self._items, step * self._batch_size + rank * size, size, self._seed)
        micros = [self._prepare(micro, step) for micro in batch.split(self._accumulation)]
        return [micro.pin_memory() for micro in micros] if self._pin else micros


@lru_cache(maxsize=4)
def _shuffled(size: int, seed: int, epoch: int) -> np.ndarray:
    return numpy_generator(Stream.SHUFFLE, seed, epoch).permutation(size)
