"""Continuous tokens on a grid: normalized latents, a patch of them per cell.

Shape legend: B batch, c latent channels, p patch, N cells, C = c·p² channels per token.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.grid import GridSpec
from heptapod.tokenizers.base import Tokenizer


class ContinuousTokenizer(Tokenizer):
    """A tokenizer whose tokens are latents with mean 0 and variance 1 in every channel.

    The statistics are measured once, on training images (:meth:`measure`), and are part of the weights.

    Args:
        latent_factor: pixels per side of a latent position.
        latent_channels: channels c of the latent.
        patch: p×p latent positions make one token of C = c·p² channels.
    """

    latent_mean: Tensor
    latent_std: Tensor
    measured: Tensor

    def __init__(self, latent_factor: int, latent_channels: int, patch: int = 1) -> None:
        super().__init__()
        self.patch = patch
        self.factor = latent_factor * patch
        self.channels = latent_channels * patch**2
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))
        self.register_buffer("measured", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def encode_latent(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) in [-1, 1] -> latents (B, c, h / factor, w / factor) as the network gives them."""

    @abstractmethod
    def decode_latent(self, latent: Tensor) -> Tensor:
        """Latents as the network gives them -> images (B, 3, h, w), about in [-1, 1]."""

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Tokenizer.encode`."""
        latent = self.encode_latent(images).float()
        normalized = (latent - self.latent_mean.view(-1, 1, 1)) / self.latent_std.view(-1, 1, 1)
        return F.pixel_unshuffle(normalized, self.patch).flatten(2).transpose(1, 2).contiguous()  # (B, N, C)

    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """See :meth:`Tokenizer.decode`."""
        patches = tokens.transpose(1, 2).unflatten(2, (grid.height, grid.width))  # (B, C, H, W)
        normalized = F.pixel_shuffle(patches, self.patch)
        latent = normalized * self.latent_std.view(-1, 1, 1) + self.latent_mean.view(-1, 1, 1)
        return self.decode_latent(latent.to(self.dtype)).float().clamp(-1, 1)

    @property
    def log_scale(self) -> float:
        """Σ log σ over the channels of a token.

        The log-density of a latent is that of the normalized token minus this, per token.
        """
        return float(self.latent_std.double().log().sum()) * self.patch**2

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Measures mean and standard deviation of every latent channel over batches of images (B, 3, h, w).

        Raises:
            ValueError: if there are no images, or a channel is constant or not finite.
        """
        count = 0
        total = square = torch.zeros_like(self.latent_mean, dtype=torch.float64)
        for images in batches:
            latent = self.encode_latent(images.to(self.device)).double()
            count += latent[:, 0].numel()
            total = total + latent.sum((0, 2, 3))
            square = square + latent.square().sum((0, 2, 3))
        if not count:
            raise ValueError("latent statistics: no images to measure them on")
        mean = total / count
        variance = square / count - mean.square()
        flat = ~(variance > 1e-12)
        if flat.any():
            raise ValueError(f"latent statistics: channel {int(flat.nonzero()[0])} is constant or not finite")
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(variance.sqrt())
        self.measured.fill_(True)
