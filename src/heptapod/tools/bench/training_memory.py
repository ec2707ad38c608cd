"""Peak memory of training: the model is built, and two steps are made, above what a process needs anyway."""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from heptapod.distributions import distribution_class
from heptapod.grid import GridSpec
from heptapod.tools.bench.memory import ask_process, give_blocks_back, peak_of
from heptapod.tools.bench.training_cases import TrainingSteps, random_tokens
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.recipe import Recipe
from heptapod.utils.config import from_dict, to_dict
from heptapod.utils.extensions import import_extensions

STEPS = 2
"""The second one has everything: the optimizer's moments are made at the end of the first."""
CPU = torch.device("cpu")


def cpu_training_peaks(subjects: Sequence[TrainingSetup], threads: int) -> list[int | None]:
    """Peak bytes of training each recipe; None where this system cannot tell."""
    if not sys.platform.startswith("linux") or not subjects:
        return [None] * len(subjects)
    asked = {
        "recipes": [to_dict(training_setup.recipe) for training_setup in subjects],
        "grids": [dataclasses.asdict(training_setup.grid) for training_setup in subjects],
        "classes": [training_setup.num_classes for training_setup in subjects],
        "threads": threads,
    }
    return ask_process("heptapod.tools.bench.training_memory", asked, len(subjects))


def cuda_training_peak(training_setup: TrainingSetup, device: torch.device) -> int:
    """Peak bytes of training a recipe, as torch counts them."""
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    train(training_setup.recipe, training_setup.grid, training_setup.num_classes, device)
    return torch.cuda.max_memory_allocated(device) - before


def train(recipe: Recipe, grid: GridSpec, num_classes: int, device: torch.device) -> None:
    """Builds a model and makes a few steps."""
    steps = TrainingSteps(recipe, random_tokens(grid, num_classes, images=64), device)
    for _ in range(STEPS):
        steps.step(by_phase=False)


def main() -> None:
    """Reads recipes from standard input and writes the peak of each as a line of JSON."""
    asked: dict[str, Any] = json.load(sys.stdin)
    give_blocks_back()
    torch.set_num_threads(asked["threads"])
    import_extensions(name for values in asked["recipes"] for name in values["imports"])
    for values, shape, classes in zip(asked["recipes"], asked["grids"], asked["classes"], strict=True):
        recipe, grid = from_dict(Recipe, values), GridSpec(**shape)
        train(_smallest(recipe), grid, classes, CPU)  # what is loaded and allocated once for all belongs to no recipe
        print(json.dumps(peak_of(partial(train, recipe, grid, classes, CPU))), flush=True)


def _smallest(recipe: Recipe) -> Recipe:
    """The same kinds of parts, small."""
    head = dataclasses.replace(recipe.model.head, depth=1)
    distribution = recipe.model.distribution
    if distribution_class(distribution.kind).has_mlp:
        distribution = dataclasses.replace(distribution, mlp_depth=1, mlp_width=16)
    model = dataclasses.replace(
        recipe.model, size="tiny", width=16, depth=1, num_heads=1, head=head, distribution=distribution
    )
    train = dataclasses.replace(recipe.train, batch_size=1, accumulation=1)
    return dataclasses.replace(recipe, model=model, train=train)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
