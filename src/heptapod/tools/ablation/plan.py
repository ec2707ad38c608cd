"""The plan of a study: what a training step of every arm costs, and hence the steps that are equal time."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from heptapod.data.cache import load_tokens
from heptapod.data.loader import BatchStream
from heptapod.data.tokens import TokenSet
from heptapod.distributed.device import resolve_device
from heptapod.models.heptapod import build_model, parameters_by_part
from heptapod.tools.ablation.study import Arm, Run, Study, arm_recipe
from heptapod.tools.bench.hardware import hardware
from heptapod.training.model_task import ModelTask
from heptapod.training.optim import build_optimizer
from heptapod.training.recipe import Recipe
from heptapod.utils.files import read_json, write_json
from heptapod.utils.logging import Progress

ROUNDS = 12


class StepTimer:
    """Training steps of one arm, timed one at a time.

    With one thread the time is that of this process alone, so that other work on the machine does not count; else it is
    the clock's. Reading the batch does not count.

    Args:
        recipe: what the arm is trained with.
        tokens: training tokens.
    """

    def __init__(self, recipe: Recipe, tokens: TokenSet) -> None:
        self.device = resolve_device(recipe.device)
        self.model = build_model(recipe.model, tokens.grid, len(tokens.class_names), recipe.seed).to(self.device)
        self._config = recipe.train
        self._task = ModelTask(self.model, tokens, tokens, recipe.objective, _unused, _unused)
        self._optimizer = build_optimizer(self.model, recipe.train)
        self._stream = BatchStream(tokens, recipe.train.batch_size, recipe.seed)
        self._step = 0

    def seconds(self) -> float:
        """Runs a step; returns what it took."""
        batch = self._stream.at(self._step).to(self.device)
        started = self._clock()
        for micro in batch.split(self._config.accumulation):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
                loss = self._task.losses(micro, self._step).loss
            (loss.sum() / self._config.batch_size).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1
        return self._clock() - started

    def _clock(self) -> float:
        if self.device.type != "cpu":
            torch.accelerator.synchronize()
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        return time.process_time() if alone else time.perf_counter()


def _unused(*_: Any) -> Any:
    raise AssertionError("a timed task draws and writes nothing")


def make_plan(study: Study, folder: Path) -> dict[str, Any]:
    """The plan of a study, kept in ``plan.json``: arms that are new to it are timed, the others stay as they are.

    Steps of an arm are timed in turn with steps of the first one, so that what slows the machine slows both alike, and
    two models are in memory at a time. The fastest of a few counts, as a multiple of the first arm's.

    Returns:
        ``arms``: by name their parameters, ``relative_time`` and ``seconds_per_step``; ``first``; ``hardware``.
    """
    path = folder / "plan.json"
    plan: dict[str, Any] = read_json(path) if path.is_file() else {"arms": {}}
    first, *_ = arms = study.arms()
    new = [arm for arm in arms if arm.name not in plan["arms"]]
    if not new:
        return plan
    sets: dict[str, TokenSet] = {}

    def timer(arm: Arm) -> StepTimer:
        recipe = arm_recipe(study, arm)
        if recipe.data.path not in sets:
            sets[recipe.data.path] = load_tokens(recipe.data)[0]
        return StepTimer(recipe, sets[recipe.data.path])

    baseline = timer(first)
    with Progress(f"timing {len(new)} arms", len(new), "arms") as progress:
        for arm in new:
            other = baseline if arm == first else timer(arm)
            reference, seconds = _fastest(baseline, other)
            base = plan["arms"].get(first.name, {"seconds_per_step": reference})["seconds_per_step"]
            relative = 1.0 if arm == first else seconds / reference
            parameters = parameters_by_part(other.model)["total"]
            facts = {"parameters": parameters, "relative_time": relative, "seconds_per_step": base * relative}
            plan["arms"][arm.name] = facts
            progress.advance(1)
    plan |= {"first": first.name, "hardware": plan.get("hardware") or hardware(baseline.device)}
    write_json(path, plan)
    return plan


def _fastest(*timers: StepTimer) -> list[float]:
    """Of a few rounds over all timers; the first round warms up."""
    rounds = [[timer.seconds() for timer in timers] for _ in range(ROUNDS + 1)]
    return [min(times) for times in zip(*rounds[1:], strict=True)]


def steps_of(run: Run, plan: dict[str, Any]) -> int:
    """Optimizer steps of a run under its budget."""
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
