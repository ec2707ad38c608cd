"""Images too many for memory: decoded when they are read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger(__name__)


class ImagesOnDemand:
    """Stands in for the (M, 3, h, w) uint8 pixels of a set of images: decodes those that are indexed, on all cores.

    In place of an image that cannot be read the next one that can is given, always the same, and said once.

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
        self._said: set[int] = set()
        self.shape = torch.Size((len(rows), 3, *size))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Pixels (B, 3, h, w) uint8.

        Raises:
            ValueError: if no image of the set can be read.
        """
        numbers = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        pixels = list(self._pool.map(self._one, numbers))
        return torch.stack(pixels) if pixels else torch.empty(0, *self.shape[1:], dtype=torch.uint8)

    def take(self, indices: Tensor) -> ImagesOnDemand:
        """The images with the given indices, none decoded."""
        chosen = indices.numpy()
        names = [self._names[i] for i in chosen.tolist()]
        return ImagesOnDemand(self._read, self._rows[chosen], names, (self.shape[2], self.shape[3]))

    def _one(self, number: int) -> Tensor:
        for ahead in range(len(self)):
            place = (number + ahead) % len(self)
            pixels = self._read(int(self._rows[place]))
            if not isinstance(pixels, str):
                return torch.from_numpy(pixels)
            if place not in self._said:
                self._said.add(place)
                logger.info(f"data: {self._names[place]} cannot be read ({pixels}); the next image stands in for it")
        raise ValueError(f"data: none of {len(self)} image(s) can be read; the first is {self._names[0]}")

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(32, os.cpu_count() or 1))
