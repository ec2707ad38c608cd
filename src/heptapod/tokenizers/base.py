"""The interface of a tokenizer: images ↔ a grid of tokens.

Images are float tensors (B, 3, height, width) in [-1, 1], RGB. Tokens are codes (B, N) int64, or latents (B, N, C)
float32; cells in raster order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from heptapod.configs.tokenizers import TOKENIZERS, TokenizerConfig
from heptapod.grid import GridSpec
from heptapod.utils.registry import Registry

PUBLISHED_TOKENIZERS = Registry("published_tokenizer", "taef2", config_base=TokenizerConfig)
"""Every published tokenizer that can be converted, by kind."""


class Tokenizer(nn.Module, ABC):
    """Images to tokens and back.

    Attributes:
        factor: pixels per cell side.
        vocabulary_size: number of codes V; 0 for a continuous tokenizer.
        channels: channels per token C; 0 for a discrete tokenizer.
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

    def image_size(self, grid: GridSpec) -> tuple[int, int]:
        """Height and width in pixels of the images of a token grid."""
        return grid.height * self.factor, grid.width * self.factor

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

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        dtypes = (tensor.dtype for tensor in (*self.parameters(), *self.buffers()))
        return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)


T = TypeVar("T", bound=Tokenizer)


def register_tokenizer(
    kind: str, config: type[Any] | None = None, registry: Registry = TOKENIZERS
) -> Callable[[type[T]], type[T]]:
    """Class decorator: makes a tokenizer available as ``tokenizer.model.kind``.

    The class is built from its config: ``cls(config)``.

    Args:
        kind: its name in recipes and saved tokenizers.
        config: its config class, made with :func:`heptapod.settings` from :class:`TokenizerConfig` (or from
            ``NetworkConfig``) with a field ``kind: str = <kind>``; None for a tokenizer without settings.
        registry: where to.

    Raises:
        ValueError: if another tokenizer is registered under that name.
    """

    def register(tokenizer: type[T]) -> type[T]:
        registry.register(kind, tokenizer, config)
        return tokenizer

    return register


def to_float(images: Tensor) -> Tensor:
    """uint8 pixels to floats in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to the nearest uint8 pixels."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
