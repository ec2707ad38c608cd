"""Cases of the training benchmark: a recipe with several heads and supervision densities, and its training steps."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from heptapod.configs.models import HEADS
from heptapod.data.loader import BatchStream
from heptapod.data.tokens import TokenSet
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig
from heptapod.models.heads import head_without_weights
from heptapod.models.heptapod import build_model
from heptapod.objective import draw_supervision
from heptapod.tools.bench.config import TrainingVariant
from heptapod.tools.bench.timing import clock
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.training.model_task import ModelTask
from heptapod.training.optim import EMA, build_optimizer
from heptapod.training.parallelize import Parallel
from heptapod.training.precision import with_arithmetic
from heptapod.training.recipe import Recipe
from heptapod.utils.random import seeded_dropout

PHASES = ("data", "supervision", "forward", "backward", "optimizer", "EMA")
COMPUTING = ("forward", "backward", "optimizer")
IMAGES = 4096
"""Images of random tokens in place of data."""


def variant_recipe(recipe: Recipe, variant: TrainingVariant) -> Recipe:
    """The recipe with the head and density of a variant; width and depths stay."""
    head = recipe.model.head
    if variant.head != head.kind:
        head = HeadConfig(variant.head, head.depth)
    objective = recipe.objective.with_density(variant.prefixes, variant.targets, variant.head, recipe.model.head.kind)
    model = dataclasses.replace(recipe.model, head=head)
    sampling = dataclasses.replace(recipe.sampling, approximate_head=False)  # nothing is sampled here
    has_flex = HEADS.fact(variant.head, "flex_attention") is not None
    train = dataclasses.replace(recipe.train, flex_attention=recipe.train.flex_attention and has_flex)
    return dataclasses.replace(recipe, model=model, objective=objective, sampling=sampling, train=train)


def random_tokens(grid: GridSpec, num_classes: int, images: int = IMAGES) -> TokenSet:
    """Random tokens in memory; their values do not change the time."""
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
    """Seconds by phase, on the clock of :func:`heptapod.tools.bench.timing.clock`.

    Args:
        device: the device that does the work.
        by_phase: if false, nothing is measured and nothing waits for the device.
    """

    def __init__(self, device: torch.device, by_phase: bool) -> None:
        self.device = device
        self.by_phase = by_phase
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = clock(device)

    def mark(self, phase: str) -> None:
        """Adds the time since the last mark to a phase."""
        if self.by_phase:
            now = clock(self.device)
            self.seconds[phase] += now - self._last
            self._last = now


class TrainingSteps:
    """Training steps as in :class:`heptapod.training.trainer.Trainer`, on tokens in memory.

    Args:
        recipe: model, objective and training.
        tokens: training tokens.
        device: where to train.
    """

    def __init__(self, recipe: Recipe, tokens: TokenSet, device: torch.device) -> None:
        self.config = with_arithmetic(recipe.train, device)
        self.device = device
        model = build_model(recipe.model, tokens.grid, len(tokens.class_names), recipe.seed).to(device)
        self.model = model.train()
        task = ModelTask(model, tokens, tokens, recipe.objective, recipe.train.steps, _unused, _unused)
        self.average = EMA(model, recipe.train.ema_decay)
        self.parallel = Parallel(task, self.config, device)
        self.optimizer = build_optimizer(model, recipe.train)
        self.stream = BatchStream(
            tokens,
            recipe.train.batch_size,
            recipe.seed,
            ahead=device.type != "cpu",
            accumulation=self.config.accumulation,
            prepare=task.prepare if device.type != "cpu" else lambda batch, _: batch,
            pin=device.type == "cuda",
        )
        self.task = task
        self.steps = 0

    def step(self, by_phase: bool) -> tuple[float, dict[str, float]]:
        """Runs a step; returns its seconds and, if requested, those of its phases."""
        config, started = self.config, clock(self.device)
        watch = Stopwatch(self.device, by_phase)
        micros = self.stream.at(self.steps)
        watch.mark("data")
        self.optimizer.zero_grad(set_to_none=True)
        watch.mark("optimizer")
        for read in micros:
            # The batches of a GPU are prepared by the thread that reads ahead; a CPU has no such thread.
            micro = read.to(self.device) if self.device.type != "cpu" else self.task.prepare(read, self.steps)
            watch.mark("supervision")
            is_bfloat16 = config.precision == "bfloat16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=is_bfloat16), seeded_dropout(self.device):
                losses = self.parallel.losses(micro, self.steps).loss
            loss = losses.sum() / config.batch_size
            del losses
            watch.mark("forward")
            loss.backward()
            watch.mark("backward")
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip or float("inf"))
        self.optimizer.step()
        watch.mark("optimizer")
        self.average.update(self.model, self.steps)
        watch.mark("EMA")
        self.steps += 1
        return clock(self.device) - started, watch.seconds


def _unused(*_: Any) -> Any:
    raise AssertionError("a timed task writes no samples and no probe")


def matmul_flops(device: torch.device, dtype: torch.dtype, side: int = 1024) -> float:
    """FLOPs per second of one square matrix product; the maximum of several runs is the measured peak of a device."""
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))
    started = clock(device)
    a @ b
    return 2 * side**3 / max(clock(device) - started, 1e-9)


def supervised_cells(recipe: Recipe, grid: GridSpec, images: int = 64) -> float:
    """Mean number of supervised cells per image, over a few images."""
    window = head_without_weights(recipe.model).window
    keys = [(recipe.seed, 0, number) for number in range(images)]
    objective = recipe.objective.for_head(recipe.model.head.kind)
    drawn = draw_supervision(objective, grid.height, grid.width, keys, window)
    return float((drawn.weights > 0).expand_as(drawn.targets).sum()) / images


def variant_setup(setup: TrainingSetup, variant: TrainingVariant) -> TrainingSetup:
    """The setup with the head and density of a variant."""
    return dataclasses.replace(setup, recipe=variant_recipe(setup.recipe, variant))
