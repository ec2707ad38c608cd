"""A lossless tokenizer for tiny images: one cell per pixel, one code per palette color."""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.configs.tokenizers import PixelConfig
from heptapod.grid import GridSpec
from heptapod.tokenizers.base import Tokenizer, register_tokenizer


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
