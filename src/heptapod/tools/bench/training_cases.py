"""What the training benchmark compares: a recipe with several heads and densities, and the steps that are timed."""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from heptapod.data.loader import BatchStream
from heptapod.data.tokens import TokenSet
from heptapod.grid import GridSpec
from heptapod.models import HEADS, HeadConfig, head_class
from heptapod.models.heads import head_without_weights
from heptapod.models.heptapod import build_model
from heptapod.objective import draw_supervision
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.model_task import ModelTask
from heptapod.training.optim import EMA, build_optimizer
from heptapod.training.parallelize import Parallel
from heptapod.training.recipe import Recipe

OWN = "own"
"""The recipe as it is."""
PHASES = ("data", "forward", "backward", "optimizer", "EMA")
IMAGES = 4096
"""Images of random tokens that stand in for data."""
Density = int | Literal["all"]


@dataclass(frozen=True)
class Entrant:
    """A head and a supervision density."""

    head: str
    prefixes: Density
    """S."""
    targets: Density
    """L."""

    @property
    def name(self) -> str:
        """As it is asked for: global:4/all, next_token."""
        return self.head if not head_class(self.head).predicts_grid else f"{self.head}:{self.prefixes}/{self.targets}"


def parse_entrant(text: str, recipe: Recipe) -> Entrant:
    """What ``--models`` names: own, next_token, or KIND:S/L.

    Raises:
        ValueError: if it is none of them.
    """
    objective = recipe.objective
    if text == OWN:
        return Entrant(recipe.model.head.kind, objective.prefixes_per_image, objective.targets_per_prefix)
    if text in HEADS.kinds() and not head_class(text).predicts_grid:
        return Entrant(text, "all", 1)
    found = re.fullmatch(r"([^:]+):(\d+|all)/(\d+|all)", text)
    if not found or "0" in found.groups() or found.group(1) not in HEADS.kinds():
        raise ValueError(
            f"models: {text} given, must be own, next_token, or a head with prefixes/targets such as global:4/all, "
            "local:8/all or cross:all/3"
        )
    prefixes, targets = (one if one == "all" else int(one) for one in found.groups()[1:])
    return Entrant(found.group(1), prefixes, targets)  # type: ignore[arg-type]


def entrant_recipe(recipe: Recipe, entrant: Entrant) -> Recipe:
    """The recipe with a head and density in place of its own; width and depths stay."""
    head = recipe.model.head
    if entrant.head != head.kind:
        head = HeadConfig(entrant.head, head.depth)
    objective = dataclasses.replace(
        recipe.objective, prefixes_per_image=entrant.prefixes, targets_per_prefix=entrant.targets
    )
    model = dataclasses.replace(recipe.model, head=head)
    sampling = dataclasses.replace(recipe.sampling, approximate_head=False)  # nothing is sampled here
    return dataclasses.replace(recipe, model=model, objective=objective, sampling=sampling)


def random_tokens(grid: GridSpec, num_classes: int, images: int = IMAGES) -> TokenSet:
    """Tokens as of a set that lies in memory; what they are changes no time."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, 1, *grid.token_shape)
    if grid.is_discrete:
        tokens = torch.randint(grid.vocabulary_size, shape, generator=generator, dtype=torch.int32)
    else:
        tokens = torch.randn(shape, generator=generator)
    labels = torch.randint(max(num_classes, 1), (images,), generator=generator)
    names = [str(number) for number in range(images)]
    return TokenSet([tokens], labels, names, [str(number) for number in range(num_classes)], grid, [0])


class Stopwatch:
    """Seconds by phase, a GPU's work included where phases are asked for.

    On a CPU with one thread it is the time of this process, so that other work on the machine does not count.

    Args:
        device: where the work is done.
        by_phase: wait for the device at every mark.
    """

    def __init__(self, device: torch.device, by_phase: bool) -> None:
        self.device = device
        self.by_phase = by_phase
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = clock(device)

    def mark(self, phase: str) -> None:
        """What was done since the last mark belongs to a phase."""
        if self.by_phase:
            now = clock(self.device)
            self.seconds[phase] += now - self._last
            self._last = now


def clock(device: torch.device) -> float:
    """Seconds, when the device has done what it was asked to."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.process_time() if is_process_time(device) else time.perf_counter()


def is_process_time(device: torch.device) -> bool:
    """Whether :func:`clock` tells the time of this process."""
    return device.type == "cpu" and torch.get_num_threads() == 1


class TrainingSteps:
    """A model in training: a step as :class:`heptapod.training.trainer.Trainer` does it, on tokens in memory.

    Args:
        recipe: of the entrant.
        tokens: training tokens.
        device: where to train.
    """

    def __init__(self, recipe: Recipe, tokens: TokenSet, device: torch.device) -> None:
        self.config = recipe.train
        self.device = device
        model = build_model(recipe.model, tokens.grid, len(tokens.class_names), recipe.seed).to(device)
        self.model = model.train()
        task = ModelTask(model, tokens, tokens, recipe.objective, _unused, _unused)
        self.average = EMA(model, recipe.train.ema_decay)
        self.parallel = Parallel(task, recipe.train, device)
        self.optimizer = build_optimizer(model, recipe.train)
        self.stream = BatchStream(tokens, recipe.train.batch_size, recipe.seed, ahead=device.type != "cpu")
        self.steps = 0

    def step(self, by_phase: bool) -> tuple[float, dict[str, float]]:
        """Seconds of one step, and of its phases where they are asked for."""
        config, started = self.config, clock(self.device)
        watch = Stopwatch(self.device, by_phase)
        micros = self.stream.at(self.steps).to(self.device).split(config.accumulation)
        watch.mark("data")
        self.optimizer.zero_grad(set_to_none=True)
        for micro in micros:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                losses = self.parallel.losses(micro, self.steps).loss
            loss = losses.sum() / config.batch_size
            del losses
            watch.mark("forward")
            loss.backward()
            watch.mark("backward")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip or float("inf"))
        norm.item()  # the trainer looks at it before it updates the weights
        self.optimizer.step()
        watch.mark("optimizer")
        self.average.update(self.model, self.steps)
        watch.mark("EMA")
        self.steps += 1
        return clock(self.device) - started, watch.seconds


def _unused(*_: Any) -> Any:
    raise AssertionError("a timed task draws and writes nothing")


def matmul_flops(device: torch.device, dtype: torch.dtype, side: int = 1024) -> float:
    """FLOPs per second of a square matrix product, once; the most of several runs is a device's measured peak."""
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    started = clock(device)
    a @ b
    return 2 * side**3 / max(clock(device) - started, 1e-9)


def supervised_cells(recipe: Recipe, grid: GridSpec, images: int = 64) -> float:
    """Cells per image that the objective asks for, on the mean of a few images."""
    window = head_without_weights(recipe.model).window
    keys = [(recipe.seed, 0, number) for number in range(images)]
    mask: Tensor = draw_supervision(recipe.objective, grid.height, grid.width, keys, window).mask
    return float(mask.sum()) / images


def entrant_subject(training_setup: TrainingSetup, entrant: Entrant) -> TrainingSetup:
    """A planner's subject with a head and density in place of its own."""
    return dataclasses.replace(training_setup, recipe=entrant_recipe(training_setup.recipe, entrant))
