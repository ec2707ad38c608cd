"""Images that exceed the memory: decoded on demand."""

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
    """Replaces the (M, 3, h, w) uint8 pixels of an image set: indexing decodes images, on all cores.

    The next readable image replaces an unreadable one, always the same; this is reported once.

    Args:
        read: returns the pixels (3, h, w) of a row, or the reason why it is unreadable.
        rows: row of each image.
        names: name of each image, for messages.
        size: height and width in pixels.
    """

    def __init__(
        self, read: Callable[[int], np.ndarray | str], rows: np.ndarray, names: Sequence[str], size: tuple[int, int]
    ) -> None:
        self._read = read
        self._rows = rows
        self._names = names
        self._reported: set[int] = set()
        self.shape = torch.Size((len(rows), 3, *size))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Pixels (B, 3, h, w) uint8.

        Raises:
            ValueError: if no image of the set is readable.
        """
        numbers = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        pixels = list(self._pool.map(self._decode, numbers))
        return torch.stack(pixels) if pixels else torch.empty(0, *self.shape[1:], dtype=torch.uint8)

    def take(self, indices: Tensor) -> ImagesOnDemand:
        """The images with the given indices, without decoding."""
        chosen = indices.numpy()
        names = [self._names[i] for i in chosen.tolist()]
        return ImagesOnDemand(self._read, self._rows[chosen], names, (self.shape[2], self.shape[3]))

    def _decode(self, number: int) -> Tensor:
        for offset in range(len(self)):
            place = (number + offset) % len(self)
            pixels = self._read(int(self._rows[place]))
            if not isinstance(pixels, str):
                return torch.from_numpy(pixels)
            if place not in self._reported:
                self._reported.add(place)
                logger.warning(f"data: {self._names[place]} cannot be read ({pixels}); the next image replaces it")
        raise ValueError(f"data: none of {len(self)} image(s) can be read; the first is {self._names[0]}")

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(32, os.cpu_count() or 1))
