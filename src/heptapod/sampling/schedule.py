"""How many cells each sampling step fills, and the settings of sampling."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from heptapod.distributions import CellSampling
from heptapod.distributions.base import Solver
from heptapod.sampling.order import SamplingOrder
from heptapod.utils.config import settings


@settings
class SamplingConfig:
    """How images are sampled. There is no classifier-free guidance."""

    steps: int | None = None
    """Sampling steps; unset means one cell per step."""
    token_order: SamplingOrder | None = None
    """Order in which cells are filled: raster, random, spiral (from the center outwards) or confidence (the cells of
    least uncertainty next); unset takes the order of training (raster where it was mixed)."""
    schedule: Literal["cosine", "constant"] | list[int] = "cosine"
    """Cells per step: cosine (few at first, many at the end), constant, or a list of numbers that fill the grid."""
    temperature: float = 1.0
    """Below 1 sharpens the distribution of every cell: it divides the logits of codes (0 takes the most likely one) and
    scales the noise that vectors are drawn with."""
    top_k: int | None = None
    """Keep only the k most likely codes of each cell."""
    top_p: float | None = None
    """Keep only the most likely codes that together have this probability."""
    preset: Literal["default", "fast"] = "default"
    """How vectors are drawn where cell_solver and cell_steps do not say it: default loses no quality that we could
    measure, fast takes no longer than the transformer (with the separable modulation)."""
    cell_solver: Solver | None = None
    """How vectors are drawn: ancestral or ddim (diffusion), euler or heun (flow)."""
    cell_steps: int | None = None
    """Steps in which each vector is drawn."""
    approximate_head: bool = False
    """Only for a global head: keep the states of read cells between steps instead of computing them anew. Faster, and
    not the exact prediction."""

    def __post_init__(self) -> None:
        self.cell()
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps: {self.steps} given, must be at least 1")
        if isinstance(self.schedule, list) and self.steps not in (None, len(self.schedule)):
            raise ValueError(f"steps: {self.steps} given beside a schedule of {len(self.schedule)} steps")

    def with_token_order(self, trained: str) -> SamplingConfig:
        """The same with its token order filled in from that of training (raster, random or mixed)."""
        order: SamplingOrder = "random" if trained == "random" else "raster"
        return dataclasses.replace(self, token_order=self.token_order or order)

    def cell(self) -> CellSampling:
        """How each cell is drawn."""
        return CellSampling(self.temperature, self.top_k, self.top_p, self.preset, self.cell_solver, self.cell_steps)


def cells_per_step(config: SamplingConfig, num_cells: int) -> list[int]:
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
