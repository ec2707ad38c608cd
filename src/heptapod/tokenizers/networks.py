"""The convolutional encoder and decoder that every tokenizer trained here shares.

Shape legend: B batch, C channels, h and w pixels (or cells) per side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.configs.tokenizers import NORM_GROUPS, NetworkConfig


class ResidualBlock(nn.Module):
    """Two normalized convolutions around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(NORM_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = x + h
        return out


class SelfAttention(nn.Module):
    """One head of attention of every cell to every cell, around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (B, h·w, 3C)
        q, k, v = (part.unsqueeze(1) for part in qkv.chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1)  # (B, h·w, C)
        out: Tensor = x + self.out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))
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


class ChannelsLast(nn.Sequential):
    """Layers that compute on images with the channels last in memory: convolutions are faster that way."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w'), contiguous."""
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self:
            x = layer(x)
        return x.contiguous()


def _grid_blocks(config: NetworkConfig, channels: int) -> list[nn.Module]:
    """The blocks at the resolution of the grid, with attention after the first."""
    blocks: list[nn.Module] = [ResidualBlock(channels) for _ in range(config.blocks)]
    if config.attention:
        blocks[1:1] = [SelfAttention(channels)]
    return blocks


def build_encoder(config: NetworkConfig, outputs: int) -> nn.Sequential:
    """(B, 3, h, w) -> (B, outputs, h / factor, w / factor)."""
    widths = config.level_widths()
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1)]
    for fine, coarse in zip(widths, widths[1:], strict=False):
        layers += [ResidualBlock(fine) for _ in range(config.blocks)]
        layers.append(nn.Conv2d(fine, coarse, 4, stride=2, padding=1))
    layers += _grid_blocks(config, widths[-1])
    layers += [nn.GroupNorm(NORM_GROUPS, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], outputs, 1)]
    return ChannelsLast(*layers)


def build_decoder(config: NetworkConfig, inputs: int) -> nn.Sequential:
    """(B, inputs, h / factor, w / factor) -> (B, 3, h, w); its last layer is a convolution."""
    widths = config.level_widths()[::-1]
    layers: list[nn.Module] = [nn.Conv2d(inputs, widths[0], 3, padding=1)]
    layers += _grid_blocks(config, widths[0])
    for coarse, fine in zip(widths, widths[1:], strict=False):
        layers.append(Upsample(coarse, fine))
        layers += [ResidualBlock(fine) for _ in range(config.blocks)]
    layers += [nn.GroupNorm(NORM_GROUPS, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 3, 3, padding=1)]
    return ChannelsLast(*layers)
