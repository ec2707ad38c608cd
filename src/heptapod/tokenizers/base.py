"""The interface of a tokenizer: images ↔ a grid of tokens.

Images are float tensors (B, 3, height, width) in [-1, 1], RGB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class GridSpec:
    """A token grid: its shape and what a token is."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    vocabulary_size: int
    """V: tokens are codes in 0..V-1."""

    @property
    def num_cells(self) -> int:
        """N = H·W."""
        return self.height * self.width


class Tokenizer(nn.Module, ABC):
    """Images to discrete tokens and back.

    Attributes:
        factor: pixels per cell side.
        vocabulary_size: number of codes V.
    """

    factor: int
    vocabulary_size: int

    def grid(self, image_height: int, image_width: int) -> GridSpec:
        """The token grid of an image size.

        Raises:
            ValueError: if a side is not divisible by the factor.
        """
        for side in (image_height, image_width):
            if side % self.factor:
                lower = side // self.factor * self.factor
                near = f"{lower} or {lower + self.factor}" if lower else f"{self.factor}"
                raise ValueError(
                    f"image size {image_height}×{image_width} is not divisible by the tokenizer's factor "
                    f"{self.factor}; try {near} (data.image_size)"
                )
        return GridSpec(image_height // self.factor, image_width // self.factor, self.vocabulary_size)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) in [-1, 1] -> tokens (B, N) int64, cells in raster order."""

    @abstractmethod
    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """Tokens (B, N) int64 -> images (B, 3, h, w) in [-1, 1]."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((tensor.device for tensor in (*self.parameters(), *self.buffers())), torch.device("cpu"))


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to the nearest uint8 pixels."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
