"""A convolutional VQ-VAE (1711.00937): residual encoder and decoder around a codebook.

Shape legend: B batch, N cells, C numbers per code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.config import settings
from heptapod.tokenizers.base import GridSpec, Tokenizer
from heptapod.tokenizers.codebook import Codebook, CodebookStatistics


@settings
class VQConfig:
    """A convolutional VQ-VAE, trained for reconstruction only."""

    kind: Literal["vq"] = "vq"
    """Kind of tokenizer."""
    factor: int = 4
    """Pixels per cell side: a power of two."""
    codebook_size: int = 512
    """Number of codes V."""
    code_width: int = 8
    """Numbers per code C."""
    width: int = 32
    """Channels at full resolution; each halving of the resolution doubles them up to four times."""
    blocks: int = 1
    """Residual blocks per resolution."""
    commitment: float = 0.25
    """Weight of the commitment loss."""
    codebook_decay: float = 0.95
    """Decay of the codebook's moving averages."""
    dead_below: float = 0.05
    """A code used less than this fraction of its fair share restarts at a vector of the batch."""

    def __post_init__(self) -> None:
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise ValueError(f"factor: {self.factor} given, must be a power of two of at least 2")
        if self.codebook_size < 2:
            raise ValueError(f"codebook_size: {self.codebook_size} given, must be at least 2")
        for name in ("code_width", "width", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} given, must be at least 1")
        if self.width % 8:
            raise ValueError(f"width: {self.width} given, must be a multiple of 8")
        if not 0 <= self.commitment < float("inf"):
            raise ValueError(f"commitment: {self.commitment} given, must be at least 0")
        if not 0 <= self.dead_below < 1:
            raise ValueError(f"dead_below: {self.dead_below} given, must be at least 0 and below 1")
        if not 0 < self.codebook_decay < 1:
            raise ValueError(f"codebook_decay: {self.codebook_decay} given, must lie between 0 and 1")


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = self.skip(x) + h
        return out


class Upsample(nn.Module):
    """Doubles the resolution by repetition, then convolves."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, 2h, 2w)."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def level_widths(width: int, factor: int) -> list[int]:
    """Channels at each resolution, from full to that of the grid."""
    return [width * min(2**level, 4) for level in range(factor.bit_length())]


def build_encoder(width: int, factor: int, blocks: int, outputs: int) -> nn.Sequential:
    """(B, 3, h, w) -> (B, outputs, h / factor, w / factor)."""
    widths = level_widths(width, factor)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
    for fine, coarse in zip(widths, widths[1:], strict=False):
        layers += [ResidualBlock(fine, fine) for _ in range(blocks)]
        layers.append(nn.Conv2d(fine, coarse, 4, stride=2, padding=1))
    layers += [ResidualBlock(widths[-1], widths[-1]) for _ in range(blocks)]
    layers += [nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], outputs, 1)]
    return nn.Sequential(*layers)


def build_decoder(width: int, factor: int, blocks: int, inputs: int) -> nn.Sequential:
    """(B, inputs, h / factor, w / factor) -> (B, 3, h, w)."""
    widths = level_widths(width, factor)[::-1]
    layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1)]
    layers += [ResidualBlock(widths[0], widths[0]) for _ in range(blocks)]
    for coarse, fine in zip(widths, widths[1:], strict=False):
        layers.append(Upsample(coarse, fine))
        layers += [ResidualBlock(fine, fine) for _ in range(blocks)]
    layers += [nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 3, 3, padding=1)]
    return nn.Sequential(*layers)


@dataclass
class VQOutput:
    """A training pass of the tokenizer."""

    loss: Tensor
    """(B,) float32: reconstruction plus weighted commitment."""
    reconstruction_loss: Tensor
    """(B,) float32: mean squared error of the pixels."""
    codes: Tensor
    """(B, N) int64."""
    statistics: CodebookStatistics
    """What the codebook learns from."""


class VQTokenizer(Tokenizer):
    """Convolutional encoder, nearest code, convolutional decoder."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = config.factor
        self.vocabulary_size = config.codebook_size
        self.encoder = build_encoder(config.width, config.factor, config.blocks, config.code_width)
        self.codebook = Codebook(config.codebook_size, config.code_width, config.codebook_decay, config.dead_below)
        self.decoder = build_decoder(config.width, config.factor, config.blocks, config.code_width)

    def forward(self, images: Tensor) -> VQOutput:
        """One training pass over images (B, 3, h, w) in [-1, 1]; the codebook itself is left as it is."""
        latent = self.encoder(images).float()  # (B, C, H, W)
        vectors = latent.permute(0, 2, 3, 1)
        flat = vectors.flatten(0, 2)
        codes = self.codebook.nearest(flat)
        # The first step only gathers what the codebook starts from.
        quantised = torch.where(self.codebook.initialized, self.codebook.vectors[codes].view_as(vectors), vectors)
        quantised = quantised.detach()
        commitment = (vectors - quantised).square().flatten(1).mean(1)
        straight_through = vectors + (quantised - vectors).detach()
        decoded = self.decoder(straight_through.permute(0, 3, 1, 2)).float()
        reconstruction = (decoded - images).square().flatten(1).mean(1)
        loss = reconstruction + self.config.commitment * commitment
        statistics = self.codebook.statistics(flat, codes)
        return VQOutput(loss, reconstruction, codes.view(images.shape[0], -1), statistics)

    def encode(self, images: Tensor) -> Tensor:
        """See :meth:`Tokenizer.encode`."""
        vectors = self.encoder(images).float().permute(0, 2, 3, 1)
        return self.codebook.nearest(vectors.flatten(0, 2)).view(images.shape[0], -1)

    def decode(self, tokens: Tensor, grid: GridSpec) -> Tensor:
        """See :meth:`Tokenizer.decode`."""
        vectors = self.codebook.vectors[tokens].unflatten(1, (grid.height, grid.width))
        decoded: Tensor = self.decoder(vectors.permute(0, 3, 1, 2))
        return decoded.float().clamp(-1, 1)


@torch.no_grad()
def codebook_usage(codes: Tensor, size: int) -> tuple[float, float]:
    """Fraction of the codes that occur, and the perplexity exp(entropy) of their frequencies."""
    counts = torch.bincount(codes.flatten(), minlength=size).double()
    frequencies = counts / counts.sum().clamp(min=1)
    entropy = -(frequencies * frequencies.clamp(min=1e-12).log()).sum()
    return float((counts > 0).double().mean()), float(entropy.exp())
