"""Settings of sampling."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from heptapod.configs.distributions import CellSampling
from heptapod.configs.grid import MAX_CELLS
from heptapod.utils.config import settings

SamplingOrder = Literal["raster", "random", "spread", "spiral", "confidence"]
TRAINED_FOR: dict[str, tuple[SamplingOrder, ...]] = {
    "raster": ("raster",),
    "random": ("random", "spread", "spiral", "confidence"),
    "mixed": ("raster", "random", "spread", "spiral", "confidence"),
}
"""The orders that a model has been trained for by the order of its training."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""The precision of a model in use; auto is the fastest of float32 and bfloat16 on the device."""
DEFAULT_BATCH = 64
"""Images at a time where no batch size is given."""
CellCounts = Annotated[list[Annotated[int, Field(ge=1, le=MAX_CELLS)]], Field(max_length=MAX_CELLS, fail_fast=True)]


@settings
class StepConfig:
    """Which cells each sampling step fills."""

    steps: Annotated[int, Field(ge=1, le=MAX_CELLS)] | None = None
    """Sampling steps; unset means one cell per step."""
    token_order: SamplingOrder | None = None
    """Order in which cells are filled: raster, random, spread (the cells of a step lie far apart), spiral (from the
    center outwards) or confidence (the cells with the least uncertainty first); unset takes the order of training
    (raster where it was mixed)."""
    schedule: Literal["cosine", "constant"] | CellCounts = "cosine"
    """Cells per step: cosine (few at first, many at the end), constant, or a list of cell counts that fill the grid."""


@settings
class SamplingConfig(CellSampling, StepConfig):  # fields in the order of StepConfig, CellSampling, SamplingConfig
    """How images are sampled. There is no classifier-free guidance."""

    approximate_head: bool = False
    """Only for a global head: keep the states of read cells between steps instead of recomputing them. Faster, but not
    the exact prediction."""

    def __post_init__(self) -> None:
        if isinstance(self.schedule, list) and self.steps not in (None, len(self.schedule)):
            raise ValueError(f"steps: {self.steps} given, but the schedule has {len(self.schedule)} steps")

    def with_token_order(self, trained: str) -> SamplingConfig:
        """The same config with its token order filled in from the order of training (raster, random or mixed)."""
        order: SamplingOrder = "random" if trained == "random" else "raster"
        return dataclasses.replace(self, token_order=self.token_order or order)
