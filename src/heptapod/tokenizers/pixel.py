"""A lossless tokenizer for tiny images: one cell per pixel, one code per palette color."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from heptapod.grid import GridSpec
from heptapod.tokenizers.base import Tokenizer, TokenizerConfig, register_tokenizer
from heptapod.utils.config import settings


@settings
class PixelConfig(TokenizerConfig):
    """Tokens are pixels on evenly spaced levels; nothing is trained."""

    kind: Literal["pixel"] = "pixel"
    """Kind of tokenizer."""
    levels: Annotated[int, Field(ge=2, le=256)] = 17
    """Levels per channel."""
    color: bool = False
    """False: gray levels, V = levels. True: an RGB palette, V = levels cubed."""

    def __post_init__(self) -> None:
        if self.color and self.levels > 40:
            raise ValueError(f"levels: {self.levels} given, at most 40 with color (64,000 codes)")


@register_tokenizer("pixel", PixelConfig)
class PixelTokenizer(Tokenizer):
    """Rounds every pixel to its level: exact for images whose pixels are on the levels."""

    factor = 1
    is_lossless = True

    def __init__(self, config: PixelConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = config.levels**3 if config.color else config.levels

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Tokenizer.encode`; gray levels are the mean of the channels."""
        scaled = (images.clamp(-1, 1) + 1) / 2 * (self.config.levels - 1)
        if not self.config.color:
            return scaled.mean(1).round().long().flatten(1)
        digits = scaled.round().long()
        place = self.config.levels ** torch.arange(3, device=images.device)
        return (digits * place.view(3, 1, 1)).sum(1).flatten(1)

    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """See :meth:`Tokenizer.decode`."""
        tokens = tokens.view(-1, 1, grid.height, grid.width)
        place = self.config.levels ** torch.arange(3, device=tokens.device).view(3, 1, 1)
        levels = tokens // place % self.config.levels if self.config.color else tokens.expand(-1, 3, -1, -1)
        return levels / (self.config.levels - 1) * 2 - 1
