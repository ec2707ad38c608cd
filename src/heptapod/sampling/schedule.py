"""How many cells each sampling step fills, and the settings of sampling."""

from __future__ import annotations

import math

from heptapod.configs.sampling import StepConfig


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
