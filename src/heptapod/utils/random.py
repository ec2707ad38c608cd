"""Random numbers keyed by purpose: one independent stream per image, for any batch size and number of ranks.

No global generator is read or seeded anywhere in the library, except for torch's own inside two context managers that
seed it and restore it: initialization and dropout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heptapod.utils.checks import as_list, whole_number

SeedsInput = int | Sequence[int] | np.ndarray | Tensor
"""A seed, or one per image."""


class Stream(IntEnum):
    """The purpose of a stream of random numbers; streams with the same key and different purposes are independent."""

    SHUFFLE = 0
    AUGMENT = 1
    LABEL_DROPOUT = 2
    SUPERVISION = 3
    LOSS = 4
    SAMPLE = 5
    SAMPLE_ORDER = 6
    CODEBOOK = 7
    SPLIT = 8
    EVALUATION = 9
    INIT = 10
    BELIEF = 11
    CONFIDENCE = 12
    DROPOUT = 13


class _Unseeded(np.random.bit_generator.ISeedSequence):
    """A seed sequence of zeros, for generators whose state is set."""

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return np.zeros(n_words, dtype)


_UNSEEDED = _Unseeded()


def numpy_generator(stream: Stream, *key: int) -> np.random.Generator:
    """A counter-based (Philox) generator for a purpose and a key of up to three non-negative integers.

    Raises:
        ValueError: for a longer key, of which only a part would count.
    """
    if len(key) > 3:
        raise ValueError(f"key: {key} given, must have at most three numbers")
    first, second, third = (*key, 0, 0, 0)[:3]
    # The same as Philox(key=[first, second], counter=[0, 0, third, stream]), which also reads the system's entropy and
    # takes twice as long; training makes a generator per image.
    philox = np.random.Philox(_UNSEEDED)  # type: ignore[arg-type]
    philox.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([0, 0, third, int(stream)], dtype=np.uint64),
            "key": np.array([first, second], dtype=np.uint64),
        },
        "buffer": np.zeros(4, dtype=np.uint64),
        "buffer_pos": 4,  # empty
        "has_uint32": 0,
        "uinteger": 0,
    }
    return np.random.Generator(philox)


def random_rows(generator: np.random.Generator, total: int, count: int | None) -> np.ndarray:
    """``count`` of the rows 0..total-1 at random, ascending; all if ``count`` is None."""
    rows: np.ndarray = np.sort(generator.permutation(total)[:count])
    return rows


class KeyedGenerator:
    """A batch of streams, one per image.

    Args:
        stream: what the numbers are for.
        keys: one key of up to three numbers per image, for example (seed, epoch, image index).

    Raises:
        ValueError: for a longer key.
    """

    def __init__(self, stream: Stream, keys: Iterable[Sequence[int]]) -> None:
        self._stream = stream
        self._keys = list(keys)
        if wrong := [tuple(key) for key in self._keys if len(key) > 3]:
            raise ValueError(f"key: {wrong[0]} given, must have at most three numbers")

    def __len__(self) -> int:
        return len(self._keys)

    @cached_property
    def _generators(self) -> list[np.random.Generator]:
        return [numpy_generator(self._stream, *key) for key in self._keys]

    def uniform(self, num: int) -> Tensor:
        """The next ``num`` uniform numbers in [0, 1) of every stream: (B, num) float32 on the CPU."""
        drawn = np.empty((len(self), num), dtype=np.float32)
        for generator, row in zip(self._generators, drawn, strict=True):
            generator.random(dtype=np.float32, out=row)
        return torch.from_numpy(drawn)

    def normal(self, num: int) -> Tensor:
        """The next ``num`` standard normal numbers of every stream: (B, num) float32 on the CPU."""
        drawn = np.empty((len(self), num), dtype=np.float32)
        for generator, row in zip(self._generators, drawn, strict=True):
            generator.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(drawn)

    def permutation(self, num: int) -> Tensor:
        """A random order of 0..num-1 from every stream: (B, num) int64 on the CPU."""
        rows = [generator.permutation(num) for generator in self._generators]
        return torch.from_numpy(np.stack(rows).astype(np.int64, copy=False))


def pinned(tensor: Tensor) -> Tensor:
    """The tensor in pinned memory, from which a GPU copies asynchronously; an expanded one is copied first."""
    return tensor.contiguous().pin_memory()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Moves a CPU tensor to a device, without synchronizing with a GPU."""
    return pinned(tensor).to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def image_seeds(seed: SeedsInput, count: int) -> list[int]:
    """One seed per image: image i takes ``seed`` + i, or the i-th of several.

    Raises:
        ValueError: if they are not as many as images, not whole, or out of range.
    """
    given, is_single = as_list(seed)
    seeds = [whole_number("seed", one) for one in given]
    seeds = [seeds[0] + i for i in range(count)] if is_single else seeds
    if len(seeds) != count:
        raise ValueError(f"seed: {len(seeds)} seeds given for {count} images")
    if min(seeds) < 0 or max(seeds) >= 2**63:
        raise ValueError(f"seed: {min(seeds) if min(seeds) < 0 else max(seeds)} given, must be between 0 and 2^63 - 1")
    return seeds


@contextmanager
def seeded_initialization(*key: int) -> Iterator[None]:
    """Weights initialized in this block on the CPU depend on the key only, and are float32 whatever torch's default.

    Torch's global state is restored.
    """
    dtype = torch.get_default_dtype()
    with _seeded(Stream.INIT, key, torch.device("cpu")):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


@contextmanager
def seeded_dropout(device: torch.device, *key: int) -> Iterator[None]:
    """Dropout in this block depends on the key only. Torch's global state is restored.

    Args:
        device: where the values are dropped.
        key: up to three non-negative integers.
    """
    with _seeded(Stream.DROPOUT, key, device):
        yield


@contextmanager
def _seeded(stream: Stream, key: Sequence[int], device: torch.device) -> Iterator[None]:
    """Seeds torch's generators of the CPU and of a device, and restores them."""
    seed = int(numpy_generator(stream, *key).integers(2**63 - 1))
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        # Not torch.manual_seed, which would reseed every GPU as well.
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
