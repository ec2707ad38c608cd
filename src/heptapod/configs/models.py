"""Settings of the model, and the named sizes."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from heptapod.configs.distributions import DISTRIBUTIONS, MAX_DEPTH, MAX_WIDTH, DistributionConfig
from heptapod.utils.config import settings
from heptapod.utils.registry import Builtin, Registry


class Size(NamedTuple):
    """One named size of method.md: backbone and head layers, width, heads, and the MLP of a continuous cell."""

    depth: int
    head_depth: int
    width: int
    num_heads: int
    cell_mlp_depth: int
    cell_mlp_width: int


SIZES = {
    "tiny": Size(4, 2, 64, 2, 2, 128),
    "B": Size(12, 12, 768, 12, 6, 1024),
    "L": Size(16, 16, 1024, 16, 8, 1280),
    "H": Size(20, 20, 1280, 16, 12, 1536),
}


@settings
class HeadConfig:
    """The 2D prediction head."""

    kind: str = "cross"
    """global: the whole grid sees itself (the paper's best); local: a window around the next cell; cross: any cells
    against the states read (the efficient default); group: as cross, but the cells that are predicted together see
    each other; next_token: only the next cell (the baseline); or a registered head."""
    depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 0
    """Blocks of the head; 0 takes the depth of the named size."""
    window: Annotated[int, Field(ge=1, le=511)] | None = None
    """Side of the window of a local head, an odd number; only for kind local (5 if unset)."""

    def __post_init__(self) -> None:
        HEADS.check(self.kind)
        if self.window is not None and self.kind != "local":
            raise ValueError(f"window: {self.window} given, but only kind: local has a window (kind is {self.kind})")
        if self.window is not None and self.window % 2 == 0:
            raise ValueError(f"window: {self.window} given, must be an odd number")


Density = tuple[int | Literal["all"], int | Literal["all"]]
"""Prefixes per image and targets per prefix."""


def _facts(
    predicts_grid: bool, density: Density, separate_targets: bool = False, sees_targets: bool = False
) -> dict[str, Any]:
    return {
        "predicts_grid": predicts_grid,
        "density": density,
        "separate_targets": separate_targets,
        "sees_targets": sees_targets,
    }


HEADS = Registry(
    "head",
    "cross",
    HeadConfig,
    builtin={
        "cross": Builtin("heptapod.models.heads.cross", HeadConfig, _facts(True, ("all", 1), True)),
        "global": Builtin("heptapod.models.heads.global_", HeadConfig, _facts(True, (1, "all"))),
        "group": Builtin("heptapod.models.heads.group", HeadConfig, _facts(True, (32, 8), sees_targets=True)),
        "local": Builtin("heptapod.models.heads.local", HeadConfig, _facts(True, ("all", 3))),
        "next_token": Builtin("heptapod.models.heads.next_token", HeadConfig, _facts(False, ("all", 1))),
    },
)
"""Every head by kind."""


@settings
class ModelConfig:
    """The model: backbone, head and cell distribution. A field left at 0 takes its value from the named size."""

    size: Literal["tiny", "B", "L", "H"] = "tiny"
    """Named size: tiny (4+2 layers, width 64), B (12+12, 768), L (16+16, 1024), H (20+20, 1280)."""
    width: Annotated[int, Field(ge=0, le=MAX_WIDTH)] = 0
    """Model width D."""
    depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 0
    """Blocks of the causal backbone."""
    num_heads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Attention heads; width / num_heads must be a multiple of 4."""
    rotary_base: Annotated[float, Field(gt=1, le=1e9)] = 100.0
    """Ratio of the highest to the lowest rotary frequency."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of zeroing a value of the input embeddings and of the branches of every Transformer block in
    training: against overfitting where images are few. The masks depend on the seed, the step, the number of processes
    and train.accumulation."""
    head: Annotated[HeadConfig, HEADS] = field(default_factory=HeadConfig)
    """The 2D prediction head."""
    distribution: Annotated[DistributionConfig, DISTRIBUTIONS] = field(default_factory=DistributionConfig)
    """Distribution of one cell."""

    def __post_init__(self) -> None:
        size = SIZES[self.size]
        self.width = self.width or size.width
        self.depth = self.depth or size.depth
        self.num_heads = self.num_heads or size.num_heads
        self.head = dataclasses.replace(self.head, depth=self.head.depth or size.head_depth)
        if DISTRIBUTIONS.fact(self.distribution.kind, "has_mlp"):
            self.distribution = dataclasses.replace(
                self.distribution,
                mlp_depth=self.distribution.mlp_depth or size.cell_mlp_depth,
                mlp_width=self.distribution.mlp_width or size.cell_mlp_width,
            )
        if self.width % self.num_heads or (self.width // self.num_heads) % 4:
            raise ValueError(
                f"width: {self.width} given with num_heads {self.num_heads}; width / num_heads must be a multiple of 4"
            )
