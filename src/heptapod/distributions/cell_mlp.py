"""The per-cell MLP of the continuous distributions: a noisy token, its noise level and the head's feature -> a token.

Residual blocks whose adaptive LayerNorm is steered by feature and noise level (after MAR, 2406.11838).

Shape legend: C channels, D width of a feature, W width of the MLP.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.nn.layers import LayerNorm, Linear

NUM_SINES = 256
LEVEL_SCALE = 1000.0
"""Noise levels are between 0 (clean) and 1 (pure noise); the sine embedding multiplies them by this."""


class Modulation(nn.Module, ABC):
    """Shift, scale and (in blocks) gate of every layer from a feature z and a noise level t.

    The part of z is computed once per cell, the part of t once per schedule.

    Args:
        width: W.
        counts: for each layer, the number of its modulation vectors (W): 3 (shift, scale, gate) or 2.
    """

    def __init__(self, width: int, counts: list[int]) -> None:
        super().__init__()
        self.width = width
        self.counts = counts

    @abstractmethod
    def of_features(self, z: Tensor) -> list[Tensor]:
        """The part of z (..., W)."""

    @abstractmethod
    def of_levels(self, t: Tensor) -> list[Tensor]:
        """The part of t (..., W)."""

    @abstractmethod
    def forward(self, layer: int, z: list[Tensor], t: list[Tensor]) -> list[Tensor]:
        """The vectors (..., W) of one layer from the two parts."""

    @abstractmethod
    def initialize(self) -> None:
        """Shifts and gates begin at 0 and scales at 1, whatever z and t."""


class JointModulation(Modulation):
    """M_l·SiLU(z + t), a matrix per layer: MAR's, recomputed for every cell at every step."""

    def __init__(self, width: int, counts: list[int]) -> None:
        super().__init__(width, counts)
        self.maps = nn.ModuleList(Linear(width, count * width) for count in counts)

    def of_features(self, z: Tensor) -> list[Tensor]:
        """See :meth:`Modulation.of_features`."""
        return [z]

    def of_levels(self, t: Tensor) -> list[Tensor]:
        """See :meth:`Modulation.of_levels`."""
        return [t]

    def forward(self, layer: int, z: list[Tensor], t: list[Tensor]) -> list[Tensor]:
        """See :meth:`Modulation.forward`."""
        return list(self.maps[layer](F.silu(z[0] + t[0])).chunk(self.counts[layer], -1))

    def initialize(self) -> None:
        """See :meth:`Modulation.initialize`."""
        for linear in self.maps:
            assert isinstance(linear, Linear)
            nn.init.zeros_(linear.weight)
            nn.init.ones_(linear.bias[self.width : 2 * self.width])


class SeparableModulation(Modulation):
    """A·SiLU(z) + B·SiLU(t): a step only adds the two."""

    def __init__(self, width: int, counts: list[int]) -> None:
        super().__init__(width, counts)
        # A matrix for each vector: one large one would have to be split, and its gradients joined again.
        self.features = nn.ModuleList(Linear(width, width) for _ in range(sum(counts)))
        self.levels = nn.ModuleList(Linear(width, width, bias=False) for _ in range(sum(counts)))

    def of_features(self, z: Tensor) -> list[Tensor]:
        """See :meth:`Modulation.of_features`."""
        active = F.silu(z)
        return [linear(active) for linear in self.features]

    def of_levels(self, t: Tensor) -> list[Tensor]:
        """See :meth:`Modulation.of_levels`."""
        active = F.silu(t)
        return [linear(active) for linear in self.levels]

    def forward(self, layer: int, z: list[Tensor], t: list[Tensor]) -> list[Tensor]:
        """See :meth:`Modulation.forward`."""
        first = sum(self.counts[:layer])
        return [z[i] + t[i] for i in range(first, first + self.counts[layer])]

    def initialize(self) -> None:
        """See :meth:`Modulation.initialize`."""
        for linear in (*self.features, *self.levels):
            assert isinstance(linear, Linear)
            nn.init.zeros_(linear.weight)
        for layer in range(len(self.counts)):
            scale = self.features[sum(self.counts[:layer]) + 1]
            assert isinstance(scale, Linear)
            nn.init.ones_(scale.bias)


class CellBlock(nn.Module):
    """x + gate · MLP(LayerNorm(x) · scale + shift)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width, eps=1e-6)
        self.up = Linear(width, width)
        self.down = Linear(width, width)

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """(..., W), all of them."""
        h = torch.addcmul(shift, self.norm(x).to(shift.dtype), scale)
        out: Tensor = x + gate * self.down(F.silu(self.up(h)))
        return out


class CellMLP(nn.Module):
    """(noisy token, noise level, feature) -> token.

    Args:
        channels: C of a token.
        outputs: predicted values per token.
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
        kind = {"joint": JointModulation, "separable": SeparableModulation}[modulation]
        self.modulation: Modulation = kind(width, [3] * depth + [2])
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.output = Linear(width, outputs)
        self._initialize()

    def of_features(self, features: Tensor) -> list[Tensor]:
        """The modulation by features (..., D), computed once per cell."""
        return self.modulation.of_features(self.condition(features))

    def of_levels(self, levels: Tensor) -> list[Tensor]:
        """The modulation by noise levels (...) between 0 and 1, computed once per schedule."""
        half = NUM_SINES // 2
        frequencies = torch.exp(
            -math.log(10_000) / half * torch.arange(half, device=levels.device, dtype=torch.float32)
        )
        angles = (LEVEL_SCALE * levels.float()).unsqueeze(-1) * frequencies
        return self.modulation.of_levels(self.level(torch.cat([angles.cos(), angles.sin()], -1)))

    def forward(self, x: Tensor, levels: list[Tensor], features: list[Tensor]) -> Tensor:
        """(..., C) -> (..., outputs) float32; levels and features broadcast against x."""
        h = self.input.in_float32(x)  # bfloat16 would round small noise away
        for layer, block in enumerate(self.blocks):
            h = block(h, *self.modulation(layer, features, levels))
        shift, scale = self.modulation(len(self.blocks), features, levels)
        with torch.autocast(x.device.type, enabled=False):
            return self.output.in_float32(torch.addcmul(shift.float(), self.norm(h), scale.float()))

    def _initialize(self) -> None:
        """As MAR: Xavier, small noise embeddings; blocks and output start at zero."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in (self.level[0], self.level[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.02)
        with torch.no_grad():
            self.modulation.initialize()
        nn.init.zeros_(self.output.weight)
