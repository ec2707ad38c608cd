"""A convolutional VQ-VAE (1711.00937): residual encoder and decoder around a codebook.

Shape legend: B batch, N cells, C channels per code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.configs.tokenizers import VQConfig
from heptapod.grid import GridSpec
from heptapod.tokenizers.base import register_tokenizer
from heptapod.tokenizers.codebook import Codebook, nearest_or_none
from heptapod.tokenizers.networks import build_decoder, build_encoder
from heptapod.tokenizers.trainable import Reconstruction, TrainableTokenizer, at_least_float32
from heptapod.utils.random import KeyedGenerator


@register_tokenizer("vq", VQConfig)
class VQTokenizer(TrainableTokenizer):
    """Convolutional encoder, nearest code, convolutional decoder."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = config.factor
        self.vocabulary_size = config.codebook_size
        self.encoder = build_encoder(config, config.code_width)
        self.codebook = Codebook(config.codebook_size, config.code_width, config.codebook_decay, config.dead_below)
        self.decoder = build_decoder(config, config.code_width)

    def reconstruct(self, images: Tensor, generator: KeyedGenerator) -> Reconstruction:
        """See :meth:`TrainableTokenizer.reconstruct`; the codebook itself is left as it is."""
        latent = at_least_float32(self.encoder(images))  # (B, C, H, W)
        vectors = latent.permute(0, 2, 3, 1)
        flat = vectors.flatten(0, 2)
        codes = self.codebook.nearest(flat)
        # The first step only gathers what the codebook starts from.
        quantized = torch.where(self.codebook.initialized, self.codebook.vectors[codes].view_as(vectors), vectors)
        quantized = quantized.detach()
        commitment = (vectors - quantized).square().flatten(1).mean(1)
        straight_through = vectors + (quantized - vectors).detach()
        decoded = at_least_float32(self.decoder(straight_through.permute(0, 3, 1, 2)))
        return Reconstruction(
            decoded,
            self.config.commitment * commitment,
            {"commitment": commitment},
            codes.view(images.shape[0], -1),
            self.codebook.statistics(flat, codes),
        )

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Tokenizer.encode`; -1 where the encoder's output is not finite."""
        vectors = at_least_float32(self.encoder(images)).permute(0, 2, 3, 1)
        return nearest_or_none(vectors.flatten(0, 2), self.codebook.vectors).view(images.shape[0], -1)

    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """See :meth:`Tokenizer.decode`."""
        vectors = self.codebook.vectors[tokens].unflatten(1, (grid.height, grid.width))
        decoded: Tensor = self.decoder(vectors.permute(0, 3, 1, 2))
        return decoded.float().clamp(-1, 1)
