"""The plan of a study: the cost of a training step of every arm, and the steps of each in equal time."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from heptapod.data.cached_tokens import load_tokens
from heptapod.data.tokens import TokenSet
from heptapod.distributed.device import resolve_device
from heptapod.models.heptapod import parameters_by_part
from heptapod.tools.ablation.arms import Arm
from heptapod.tools.ablation.recipes import arm_recipe
from heptapod.tools.ablation.study import Run, Study
from heptapod.tools.bench.results import hardware
from heptapod.tools.bench.timing import in_turns
from heptapod.tools.bench.training_cases import TrainingSteps
from heptapod.training.precision import Arithmetic, arithmetic
from heptapod.training.recipe import Recipe
from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.files import read_json, write_json
from heptapod.utils.logging import Progress

ROUNDS = 12
Positive = Annotated[float, Field(gt=0)]


@settings
class ArmCost:
    """The cost of an arm."""

    parameters: Annotated[int, Field(ge=0)]
    """Of its model."""
    relative_time: Positive
    """Time of a step, as a multiple of the first arm's."""
    seconds_per_step: Positive
    """Time of a step."""


@settings
class Plan:
    """Content of ``plan.json``."""

    arms: dict[str, ArmCost]
    """By name."""
    first: str
    """Name of the first arm."""
    hardware: dict[str, Any]
    """The machine that timed the arms."""
    precision: Arithmetic = "bfloat16"
    """Arithmetic of every run with train.precision auto; bfloat16 in plans of earlier versions."""


def read_plan(folder: Path) -> dict[str, Any]:
    """The plan of a study.

    Raises:
        FileNotFoundError, ValueError: if it is missing or damaged.
    """
    file = folder / "plan.json"
    return to_dict(from_dict(Plan, read_json(file), str(file)))


def make_plan(study: Study, folder: Path) -> dict[str, Any]:
    """The plan of a study, stored in ``plan.json``. Only new arms are timed.

    The steps of an arm and of the first arm run in turns, so that the load of the machine affects both alike, with two
    models in memory. The fastest step counts, without reading its batch, as a multiple of the first arm's. Every step
    has its far cells, also where a warm-up leaves them out at the start of a training.

    Returns:
        ``arms``: by name their parameters, ``relative_time`` and ``seconds_per_step``; ``first``; ``hardware``;
        ``precision``.
    """
    path = folder / "plan.json"
    plan: dict[str, Any] = read_plan(folder) if path.is_file() else {"arms": {}}
    first, *_ = arms = study.arms()
    new = [arm for arm in arms if arm.name not in plan["arms"]]
    if not new:
        return plan
    sets: dict[str, TokenSet] = {}

    recipe = arm_recipe(study, first)
    plan.setdefault("precision", arithmetic(recipe.train, resolve_device(recipe.device)))

    def training_steps(arm: Arm) -> TrainingSteps:
        recipe = with_precision_of(plan, arm_recipe(study, arm))
        objective = dataclasses.replace(recipe.objective, far_warmup=0.0, far_decay=0.0)
        recipe = dataclasses.replace(recipe, objective=objective)
        if recipe.data.path not in sets:
            sets[recipe.data.path] = load_tokens(recipe.data)[0]
        return TrainingSteps(recipe, sets[recipe.data.path], resolve_device(recipe.device))

    baseline = training_steps(first)
    with Progress(f"timing {len(new)} arms", len(new), "arms") as progress:
        for arm in new:
            other = baseline if arm == first else training_steps(arm)
            reference, seconds = fastest_steps(baseline, other)
            base = plan["arms"].get(first.name, {"seconds_per_step": reference})["seconds_per_step"]
            relative = 1.0 if arm == first else seconds / reference
            parameters = parameters_by_part(other.model)["total"]
            facts = {"parameters": parameters, "relative_time": relative, "seconds_per_step": base * relative}
            plan["arms"][arm.name] = facts
            progress.advance(1)
    plan |= {"first": first.name, "hardware": plan.get("hardware") or hardware(baseline.device)}
    write_json(path, plan)
    return plan


def with_precision_of(plan: dict[str, Any], recipe: Recipe) -> Recipe:
    """A recipe with the precision of the plan in place of auto, the same for all runs of a study on all machines."""
    if recipe.train.precision != "auto":
        return recipe
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, precision=plan["precision"]))


def fastest_steps(*arms: TrainingSteps) -> list[float]:
    """Seconds of the fastest step of each arm, without reading its batch. The first round warms up."""

    def seconds(steps: TrainingSteps) -> float:
        total, phases = steps.step(by_phase=True)
        return total - phases["data"]

    runs = in_turns({number: partial(seconds, steps) for number, steps in enumerate(arms)}, ROUNDS + 1)
    return [min(times[1:]) for times in runs.values()]


def steps_of(run: Run, plan: dict[str, Any], images: int = 0, batch_size: int = 1) -> int:
    """Optimizer steps of a run within its budget.

    Args:
        run: the run.
        plan: of the study.
        images: training images, for equal epochs.
        batch_size: of the run, for equal epochs.

    Raises:
        ValueError: if these are fewer than 10.
    """
    if run.budget.epochs is not None:
        steps = math.ceil(run.budget.epochs * images / batch_size)
        if steps < 10:
            raise ValueError(
                f"budgets.epochs: {run.budget.epochs} given, which is {steps} steps of {batch_size} of the {images:,} "
                "training images; at least 10 are needed"
            )
        return steps
    if run.budget.equal == "steps":
        return run.budget.steps
    relative: float = plan["arms"][run.arm.name]["relative_time"]
    steps = round(run.budget.steps / relative)
    if steps < 10:
        raise ValueError(
            f"budgets.steps: {run.budget.steps} given, but {run.arm.name} takes {relative:.1f} times as long per step, "
            f"which leaves it {steps}; at least {math.ceil(10 * relative)} are needed"
        )
    return steps
