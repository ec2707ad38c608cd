"""Images too many for memory: decoded when they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


class ImagesOnDemand:
    """Stands in for the (M, 3, h, w) uint8 pixels of a set of images: decodes those that are indexed, on all cores.

    Args:
        read: gives the pixels (3, h, w) of an image by its number, or says why there are none.
        rows: number of each image.
        names: name of each image, for messages.
        size: height and width in pixels.
    """

    def __init__(
        self, read: Callable[[int], np.ndarray | str], rows: np.ndarray, names: Sequence[str], size: tuple[int, int]
    ) -> None:
        self._read = read
        self._rows = rows
        self._names = names
        self.shape = torch.Size((len(rows), 3, *size))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Pixels (B, 3, h, w) uint8.

        Raises:
            ValueError: naming an image that cannot be read.
        """
        numbers = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        return (
            torch.stack(list(self._pool.map(self._one, numbers))) if len(numbers) else torch.zeros(0, *self.shape[1:])
        )

    def take(self, indices: Tensor) -> ImagesOnDemand:
        """The images with the given indices, none decoded."""
        chosen = indices.numpy()
        names = [self._names[i] for i in chosen.tolist()]
        return ImagesOnDemand(self._read, self._rows[chosen], names, (self.shape[2], self.shape[3]))

    def _one(self, number: int) -> Tensor:
        pixels = self._read(int(self._rows[number]))
        if isinstance(pixels, str):
            raise ValueError(f"{self._names[number]}: {pixels}; remove it and give the same command again")
        return torch.from_numpy(pixels)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(32, os.cpu_count() or 1))
