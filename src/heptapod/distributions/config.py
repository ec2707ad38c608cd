"""Settings of the cell distribution."""

from __future__ import annotations

from typing import Literal

from heptapod.config import settings


@settings
class DistributionConfig:
    """The distribution of one cell. The MLP belongs to diffusion and flow."""

    kind: Literal["categorical", "diffusion", "flow"] = "categorical"
    """categorical: codes of a discrete tokenizer; diffusion (after MAR) or flow (rectified flow, with a likelihood):
    vectors of a continuous one."""
    mlp_depth: int = 0
    """Residual blocks of the per-cell MLP; 0 takes those of the named size."""
    mlp_width: int = 0
    """Width of the per-cell MLP; 0 takes that of the named size."""
    modulation: Literal["joint", "separable"] = "separable"
    """How feature z and noise level t steer a block. joint: W·SiLU(z + t), as MAR does; separable: A·SiLU(z) once per
    cell plus B·SiLU(t) once per schedule, which leaves less to compute at every step."""
    noise_levels: int = 4
    """Noise levels at which every supervised cell is trained in a step."""

    def __post_init__(self) -> None:
        for name, lowest in (("mlp_depth", 0), ("mlp_width", 0), ("noise_levels", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name}: {getattr(self, name)} given, must be at least {lowest}")
