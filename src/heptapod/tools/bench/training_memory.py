"""Peak memory of training a recipe: the model and two steps, above the memory of an idle process."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from heptapod.grid import GridSpec
from heptapod.models import HeadConfig
from heptapod.tools.bench.memory import cuda_peak, peak_of, peaks_in_process, serve
from heptapod.tools.bench.training_cases import TrainingSteps, random_tokens
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.recipe import Recipe
from heptapod.utils.config import from_dict, to_dict

STEPS = 2
"""The optimizer allocates its moments at the end of the first step, so that the second has the peak."""
CPU = torch.device("cpu")


def cpu_training_peaks(setups: Sequence[TrainingSetup], threads: int) -> list[int | None]:
    """Peak bytes of training each recipe; None where the system does not report it."""
    if not sys.platform.startswith("linux") or not setups:
        return [None] * len(setups)
    request = {
        "recipes": [to_dict(setup.recipe) for setup in setups],
        "grids": [dataclasses.asdict(setup.grid) for setup in setups],
        "classes": [setup.num_classes for setup in setups],
        "threads": threads,
    }
    return peaks_in_process("heptapod.tools.bench.training_memory", request, len(setups))


def cuda_training_peak(setup: TrainingSetup, device: torch.device) -> int:
    """Peak bytes of training a recipe, as torch counts them."""
    return cuda_peak(partial(train, setup.recipe, setup.grid, setup.num_classes, device), device)


def train(recipe: Recipe, grid: GridSpec, num_classes: int, device: torch.device) -> None:
    """Builds a model and trains it for a few steps."""
    steps = TrainingSteps(recipe, random_tokens(grid, num_classes, images=64), device)
    for _ in range(STEPS):
        steps.step(by_phase=False)


def training_peaks(request: dict[str, Any]) -> Iterator[int | None]:
    """The peak of every recipe of a request."""
    for values, shape, classes in zip(request["recipes"], request["grids"], request["classes"], strict=True):
        recipe, grid = from_dict(Recipe, values), GridSpec(**shape)
        train(_smallest(recipe), grid, classes, CPU)  # one-time loading and allocation belong to no recipe
        yield peak_of(partial(train, recipe, grid, classes, CPU))


def _smallest(recipe: Recipe) -> Recipe:
    """A small model with the same kinds of parts."""
    head = HeadConfig(recipe.model.head.kind, 1, recipe.model.head.window)
    distribution = recipe.model.distribution
    if distribution.kind != "categorical":
        distribution = dataclasses.replace(distribution, mlp_depth=1, mlp_width=16)
    model = dataclasses.replace(
        recipe.model, size="tiny", width=16, depth=1, num_heads=1, head=head, distribution=distribution
    )
    train = dataclasses.replace(recipe.train, batch_size=1, accumulation=1)
    return dataclasses.replace(recipe, model=model, train=train)


if __name__ == "__main__":
    serve(training_peaks)
