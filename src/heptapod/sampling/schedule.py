"""How many cells each sampling step fills, and the settings of sampling."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

from pydantic import Field

from heptapod.distributions import CellSampling
from heptapod.grid import MAX_CELLS
from heptapod.sampling.order import SamplingOrder
from heptapod.utils.config import settings

CellCounts = Annotated[list[int], Field(max_length=MAX_CELLS, fail_fast=True)]


@settings
class StepConfig:
    """Which cells each sampling step fills."""

    steps: Annotated[int, Field(ge=1, le=MAX_CELLS)] | None = None
    """Sampling steps; unset means one cell per step."""
    token_order: SamplingOrder | None = None
    """Order in which cells are filled: raster, random, spiral (from the center outwards) or confidence (the cells with
    the least uncertainty first); unset takes the order of training (raster where it was mixed)."""
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


def cells_per_step(config: StepConfig, num_cells: int) -> list[int]:
    """Number of cells each step fills.

    Args:
        config: steps and schedule.
        num_cells: cells to fill.

    Returns:
        Positive numbers with sum ``num_cells``.

    Raises:
        ValueError: if there are more steps than cells, or a list does not fill the grid.
    """
    if num_cells == 0:
        return []
    if isinstance(config.schedule, list):
        if min(config.schedule, default=0) < 1 or sum(config.schedule) != num_cells:
            raise ValueError(
                f"schedule: {config.schedule} given, needs positive numbers with sum {num_cells} (the cells to fill)"
            )
        return list(config.schedule)
    steps = num_cells if config.steps is None else config.steps
    if not 1 <= steps <= num_cells:
        raise ValueError(f"steps: {steps} given, must be between 1 and {num_cells} (the cells to fill)")
    done = [0]
    for step in range(1, steps + 1):
        share = step / steps
        if config.schedule == "cosine":
            share = 1 - math.cos(math.pi / 2 * share)
        # Every step fills at least one cell and leaves at least one for each step after it.
        done.append(min(max(round(share * num_cells), done[-1] + 1), num_cells - (steps - step)))
    return [after - before for before, after in zip(done, done[1:], strict=False)]
