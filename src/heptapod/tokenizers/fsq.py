"""Finite scalar quantization (2309.15505): every channel rounds to a few levels, and there is no codebook to learn.

Shape legend: B batch, N cells, C channels (one per entry of ``levels``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from heptapod.configs.tokenizers import FSQConfig
from heptapod.grid import GridSpec
from heptapod.tokenizers.base import register_tokenizer
from heptapod.tokenizers.networks import build_decoder, build_encoder
from heptapod.tokenizers.trainable import Reconstruction, TrainableTokenizer, at_least_float32
from heptapod.utils.random import KeyedGenerator


class FiniteScalarQuantizer(nn.Module):
    """Bounds each channel by a tanh and rounds it to its levels.

    Args:
        levels: of each channel.
    """

    levels: Tensor
    place: Tensor

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        place = [math.prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer("place", torch.tensor(place), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Quantized values (…, C) in [-1, 1] of x (…, C); straight-through gradients."""
        half_levels = ((self.levels - 1) * (1 + 1e-3) / 2).to(x.dtype)
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0).to(x.dtype)
        shift = (offset / half_levels).atanh()
        bounded = (x + shift).tanh() * half_levels - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2)

    def codes(self, quantized: Tensor) -> Tensor:
        """Codes (…) int64 of quantized values (…, C)."""
        half = self.levels // 2
        digits = (quantized * half + half).round().long()
        return (digits * self.place).sum(-1)

    def values(self, codes: Tensor) -> Tensor:
        """Quantized values (…, C) float32 of codes (…)."""
        digits = codes.unsqueeze(-1) // self.place % self.levels
        half = self.levels // 2
        return (digits - half) / half


@register_tokenizer("fsq", FSQConfig)
class FSQTokenizer(TrainableTokenizer):
    """Convolutional encoder, rounding, convolutional decoder."""

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = config.factor
        self.vocabulary_size = math.prod(config.levels)
        self.encoder = build_encoder(config, len(config.levels))
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.decoder = build_decoder(config, len(config.levels))

    def reconstruct(self, images: Tensor, generator: KeyedGenerator) -> Reconstruction:
        """See :meth:`TrainableTokenizer.reconstruct`."""
        quantized = self._quantize(images)
        decoded = at_least_float32(self.decoder(quantized.permute(0, 3, 1, 2)))
        codes = self.quantizer.codes(quantized.detach()).flatten(1)
        return Reconstruction(decoded, decoded.new_zeros(len(images)), {}, codes)

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Tokenizer.encode`; -1 where the encoder's output is not finite."""
        quantized = self._quantize(images)
        codes = self.quantizer.codes(quantized)
        return torch.where(quantized.isfinite().all(-1), codes, -1).flatten(1)

    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """See :meth:`Tokenizer.decode`."""
        values = self.quantizer.values(tokens).unflatten(1, (grid.height, grid.width))
        decoded: Tensor = self.decoder(values.permute(0, 3, 1, 2).to(self.dtype))
        return decoded.float().clamp(-1, 1)

    def _quantize(self, images: Tensor) -> Tensor:
        """(B, H, W, C), in float32 under autocast too."""
        latent = at_least_float32(self.encoder(images)).permute(0, 2, 3, 1)
        quantized: Tensor = self.quantizer(latent)
        return quantized
