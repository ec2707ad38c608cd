"""Settings of the cell distribution."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from heptapod.utils.config import settings
from heptapod.utils.registry import Registry

MAX_DEPTH = 512
"""Blocks of a stack, at most; four times as many as any published model has."""
MAX_WIDTH = 65_536
"""Features of a layer, at most."""


@settings
class DistributionConfig:
    """The distribution of one cell. The MLP belongs to diffusion and flow."""

    kind: str = "categorical"
    """categorical: codes of a discrete tokenizer; diffusion (after MAR) or flow (rectified flow, with a likelihood):
    continuous tokens; or a registered distribution."""
    mlp_depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 0
    """Residual blocks of the per-cell MLP; 0 takes those of the named size."""
    mlp_width: Annotated[int, Field(ge=0, le=MAX_WIDTH)] = 0
    """Width of the per-cell MLP; 0 takes that of the named size."""
    modulation: Literal["joint", "separable"] | None = None
    """How feature z and noise level t steer a block. joint: W·SiLU(z + t), as MAR does; separable: A·SiLU(z) once per
    cell plus B·SiLU(t) once per schedule, which leaves less to compute at every step (the default)."""
    noise_levels: Annotated[int, Field(ge=0, le=1000)] = 0
    """Noise levels at which every supervised cell is trained in a step; 0 takes 4."""

    def __post_init__(self) -> None:
        has_mlp = DISTRIBUTIONS.get(self.kind).has_mlp
        if has_mlp:
            self.modulation = self.modulation or "separable"
            self.noise_levels = self.noise_levels or 4
            return
        for name in ("mlp_depth", "mlp_width", "modulation", "noise_levels"):
            if value := getattr(self, name):
                raise ValueError(f"{name}: {value} given, but a {self.kind} distribution has no MLP")


DISTRIBUTIONS = Registry("distribution", "categorical", DistributionConfig)
"""Every cell distribution by kind."""
