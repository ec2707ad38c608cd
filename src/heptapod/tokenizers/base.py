"""The interface of a tokenizer: images ↔ a grid of tokens.

Images are float tensors (B, 3, height, width) in [-1, 1], RGB. Tokens are codes (B, N) int64, or vectors (B, N, C)
float32; cells in raster order.
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
    vocabulary_size: int = 0
    """V: tokens are codes in 0..V-1; 0 where they are vectors."""
    channels: int = 0
    """C: tokens are vectors of C numbers; 0 where they are codes."""

    def __post_init__(self) -> None:
        if (self.vocabulary_size > 0) == (self.channels > 0):
            raise ValueError(
                f"vocabulary_size: {self.vocabulary_size} and channels: {self.channels} given, one of them must be "
                "above 0"
            )

    @property
    def num_cells(self) -> int:
        """N = H·W."""
        return self.height * self.width

    @property
    def is_discrete(self) -> bool:
        """Whether tokens are codes."""
        return self.vocabulary_size > 0

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of the tokens of one image: (N,) or (N, C)."""
        return (self.num_cells,) if self.is_discrete else (self.num_cells, self.channels)

    def empty_tokens(self, batch: int) -> Tensor:
        """Zeros (B, N) int64 or (B, N, C) float32 on the CPU."""
        return torch.zeros(batch, *self.token_shape, dtype=torch.int64 if self.is_discrete else torch.float32)


def tokens_at(tokens: Tensor, cells: Tensor) -> Tensor:
    """Tokens (B, N) or (B, N, C) on cells (B, k): (B, k) or (B, k, C)."""
    if tokens.ndim == 2:
        return tokens.gather(1, cells)
    return tokens.gather(1, cells.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def with_tokens_at(tokens: Tensor, cells: Tensor, values: Tensor) -> Tensor:
    """A copy of tokens (B, N) or (B, N, C) with values (B, k) or (B, k, C) on cells (B, k)."""
    index = cells if tokens.ndim == 2 else cells.unsqueeze(-1).expand_as(values)
    return tokens.scatter(1, index, values)


class Tokenizer(nn.Module, ABC):
    """Images to tokens and back.

    Attributes:
        factor: pixels per cell side.
        vocabulary_size: number of codes V; 0 for a continuous tokenizer.
        channels: numbers per token C; 0 for a discrete tokenizer.
        is_lossless: whether different codes are different pictures and every picture it can show comes back as it was,
            so that the likelihood of codes is one of pixels. Pictures that it cannot show exactly may exist.
    """

    factor: int
    vocabulary_size: int = 0
    channels: int = 0
    is_lossless: bool = False

    def grid(self, image_height: int, image_width: int) -> GridSpec:
        """The token grid of an image size.

        Raises:
            ValueError: if a side is smaller than the factor or not divisible by it.
        """
        for side in (image_height, image_width):
            if side < self.factor:
                raise ValueError(
                    f"image size {image_height}×{image_width}: must be at least {self.factor} pixels each way"
                )
            if side % self.factor:
                lower = side // self.factor * self.factor
                near = f"{lower} or {lower + self.factor}" if lower else f"{self.factor}"
                raise ValueError(
                    f"image size {image_height}×{image_width} is not divisible by the tokenizer's factor "
                    f"{self.factor}; try {near}"
                )
        return GridSpec(image_height // self.factor, image_width // self.factor, self.vocabulary_size, self.channels)

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) in [-1, 1] -> tokens (B, N) int64 or (B, N, C) float32, cells in raster order."""

    @abstractmethod
    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """Tokens (B, N) int64 or (B, N, C) float32 -> images (B, 3, h, w) in [-1, 1]."""

    @property
    def is_discrete(self) -> bool:
        """Whether its tokens are codes."""
        return self.vocabulary_size > 0

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
