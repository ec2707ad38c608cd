"""The per-cell MLP of the continuous distributions: a noisy vector, its noise level and the head's feature -> a vector.

Residual blocks whose adaptive LayerNorm is steered by feature and noise level (after MAR, 2406.11838).

Shape legend: C numbers per token, D width of a feature, W width of the MLP.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.models.layers import Linear

NUM_SINES = 256
LEVEL_SCALE = 1000.0
"""Noise levels lie between 0 (clean) and 1 (noise alone); the sines see them times this."""


class Modulation(nn.Module, ABC):
    """Shift, scale and gate of every block from a feature z and a noise level t.

    What depends on z alone is computed once per cell, what depends on t alone once per schedule.
    """

    @abstractmethod
    def of_features(self, z: Tensor) -> list[Tensor]:
        """The part of z (..., W), one entry per modulated layer."""

    @abstractmethod
    def of_levels(self, t: Tensor) -> list[Tensor]:
        """The part of t (..., W), one entry per modulated layer."""

    @abstractmethod
    def forward(self, layer: int, z: Tensor, t: Tensor) -> Tensor:
        """The two parts joined, for one layer."""


class JointModulation(Modulation):
    """W·SiLU(z + t), a matrix per layer: MAR's, recomputed for every cell at every step."""

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(Linear(width, size) for size in sizes)

    def of_features(self, z: Tensor) -> list[Tensor]:
        """Z itself."""
        return [z] * len(self.maps)

    def of_levels(self, t: Tensor) -> list[Tensor]:
        """T itself."""
        return [t] * len(self.maps)

    def forward(self, layer: int, z: Tensor, t: Tensor) -> Tensor:
        """See :meth:`Modulation.forward`."""
        out: Tensor = self.maps[layer](F.silu(z + t))
        return out


class SeparableModulation(Modulation):
    """A·SiLU(z) + B·SiLU(t): nothing but a sum is left at a step."""

    def __init__(self, width: int, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.features = Linear(width, sum(sizes))
        self.levels = Linear(width, sum(sizes), bias=False)

    def of_features(self, z: Tensor) -> list[Tensor]:
        """A·SiLU(z)."""
        return list(self.features(F.silu(z)).split(self.sizes, -1))

    def of_levels(self, t: Tensor) -> list[Tensor]:
        """B·SiLU(t)."""
        return list(self.levels(F.silu(t)).split(self.sizes, -1))

    def forward(self, layer: int, z: Tensor, t: Tensor) -> Tensor:
        """See :meth:`Modulation.forward`."""
        return z + t


class CellBlock(nn.Module):
    """x + gate · MLP(LayerNorm(x) · (1 + scale) + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = Linear(width, width)
        self.down = Linear(width, width)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(..., W) with a modulation (..., 3W)."""
        shift, scale, gate = modulation.chunk(3, -1)
        h = torch.addcmul(shift, self.norm(x).to(shift.dtype), 1 + scale)
        out: Tensor = x + gate * self.down(F.silu(self.up(h)))
        return out


class CellMLP(nn.Module):
    """(noisy vector, noise level, feature) -> vector.

    Args:
        channels: C, numbers per token.
        outputs: numbers that are predicted per token.
        condition_width: D, width of the head's features.
        depth: residual blocks.
        width: W.
        modulation: how feature and noise level steer a block, see :class:`DistributionConfig`.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        condition_width: int,
        depth: int,
        width: int,
        modulation: Literal["joint", "separable"],
    ) -> None:
        super().__init__()
        self.input = Linear(channels, width)
        self.condition = Linear(condition_width, width)
        self.level = nn.Sequential(Linear(NUM_SINES, width), nn.SiLU(), Linear(width, width))
        self.blocks = nn.ModuleList(CellBlock(width) for _ in range(depth))
        sizes = [3 * width] * depth + [2 * width]
        self.modulation: Modulation = {"joint": JointModulation, "separable": SeparableModulation}[modulation](
            width, sizes
        )
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.output = Linear(width, outputs)
        self._initialize()

    def of_features(self, features: Tensor) -> list[Tensor]:
        """What the network needs of features (..., D): once per cell."""
        return self.modulation.of_features(self.condition(features))

    def of_levels(self, levels: Tensor) -> list[Tensor]:
        """What the network needs of noise levels (...) between 0 and 1: once per schedule."""
        half = NUM_SINES // 2
        frequencies = torch.exp(-math.log(10_000) / half * torch.arange(half, device=levels.device))
        angles = (LEVEL_SCALE * levels.float()).unsqueeze(-1) * frequencies
        return self.modulation.of_levels(self.level(torch.cat([angles.cos(), angles.sin()], -1)))

    def forward(self, x: Tensor, levels: list[Tensor], features: list[Tensor]) -> Tensor:
        """(..., C) -> (..., outputs) float32; levels and features broadcast against x."""
        h = self.input(x)
        for layer, block in enumerate(self.blocks):
            h = block(h, self.modulation(layer, features[layer], levels[layer]))
        shift, scale = self.modulation(len(self.blocks), features[-1], levels[-1]).chunk(2, -1)
        out: Tensor = self.output(torch.addcmul(shift, self.norm(h).to(shift.dtype), 1 + scale))
        return out.float()

    def _initialize(self) -> None:
        """As MAR: Xavier; modulations and output begin at 0, so that blocks do nothing at first."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in (*self.modulation.modules(), self.output):
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.weight)
        for layer in (self.level[0], self.level[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.02)
