"""Settings of the cell distribution."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from heptapod.configs.grid import MAX_CODES
from heptapod.utils.config import settings
from heptapod.utils.registry import Builtin, Registry

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
        has_mlp = DISTRIBUTIONS.fact(self.kind, "has_mlp")
        if has_mlp:
            self.modulation = self.modulation or "separable"
            self.noise_levels = self.noise_levels or 4
            return
        for name in ("mlp_depth", "mlp_width", "modulation", "noise_levels"):
            if value := getattr(self, name):
                raise ValueError(f"{name}: {value} given, but a {self.kind} distribution has no MLP")


_CODES = {"is_discrete": True, "has_mlp": False, "has_likelihood": True}
_FLOW = {"is_discrete": False, "has_mlp": True, "has_likelihood": True}
_DIFFUSION = {"is_discrete": False, "has_mlp": True, "has_likelihood": False}
DISTRIBUTIONS = Registry(
    "distribution",
    "categorical",
    DistributionConfig,
    builtin={
        "categorical": Builtin("heptapod.distributions.categorical", DistributionConfig, _CODES),
        "diffusion": Builtin("heptapod.distributions.diffusion", DistributionConfig, _DIFFUSION),
        "flow": Builtin("heptapod.distributions.flow", DistributionConfig, _FLOW),
    },
)
"""Every cell distribution by kind."""


Solver = Literal["multistep", "ancestral", "ddim", "euler", "heun"]


MIN_TEMPERATURE = 1e-4
"""Logits divided by less may overflow float32."""


def _check_temperature(temperature: float) -> float:
    if 0 < temperature < MIN_TEMPERATURE:
        raise PydanticCustomError("temperature", "must be 0 (the most likely code) or at least 0.0001")
    return temperature


@settings
class CellSampling:
    """How the token of a cell is sampled from its distribution."""

    temperature: Annotated[float, Field(ge=0, le=100), AfterValidator(_check_temperature)] = 1.0
    """Below 1 sharpens the distribution of every cell: it divides the logits of codes and scales all noise from
    which continuous tokens are sampled (the variance of a normal times its square). 0 takes the most likely code, or no
    noise; otherwise at least 0.0001."""
    top_k: Annotated[int, Field(ge=1, le=MAX_CODES)] | None = None
    """Keep only the k most likely codes of each cell."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Keep only the smallest set of most likely codes with at least this total probability."""
    preset: Literal["default", "fast"] = "default"
    """Solver and solver steps of continuous tokens where cell_solver and cell_steps are unset. default: 12 steps of
    multistep, within 2% of the learned spread; fast: 8, within 5%."""
    cell_solver: Solver | None = None
    """Solver of continuous tokens: multistep, or ancestral or ddim (diffusion), euler or heun (flow); unset takes the
    preset's."""
    cell_steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Solver steps per continuous token; unset takes the preset's."""
