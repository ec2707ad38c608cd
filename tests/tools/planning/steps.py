"""Recipes to plan, and real training steps of them to compare with."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.models import HeptapodModel
from heptapod.models.heptapod import build_model
from heptapod.objective import Supervision, draw_supervision, objective_loss
from heptapod.tools.planning.training_setup import SetupOverrides, TrainingSetup, resolve_setup
from heptapod.training.recipe import load_recipe
from heptapod.utils.random import KeyedGenerator, Stream

KINDS: dict[str, list[str]] = {
    "cross": [],
    "cross all": ["--objective.prefixes_per_image", "all"],
    "global": ["--model.head.kind", "global", "--objective.targets_per_prefix", "all"],
    "group": ["--model.head.kind", "group"],
    "local": ["--model.head.kind", "local", "--model.head.window", "3"],
    "next_token": [
        *("--model.head.kind", "next_token", "--objective.targets_per_prefix", "1"),
        *("--objective.prefixes_per_image", "all", "--objective.far_weight", "none"),
    ],
    "flow": ["--model.distribution.kind", "flow"],
    "diffusion": ["--model.distribution.kind", "diffusion", "--model.distribution.modulation", "joint"],
}
"""Settings of a recipe, by what is tested."""


def training_setup(kind: str, *settings: str, side: int = 6, base: str = "demo") -> TrainingSetup:
    """A recipe of a kind with tokens of its own on a small grid; nothing of its data is looked at."""
    density = ["--objective.prefixes_per_image", "4", "--objective.token_order", "random"]
    recipe = load_recipe(base, [*density, *KINDS[kind], *settings])
    is_vector = recipe.model.distribution.kind != "categorical"
    tokens = {"channels": 5} if is_vector else {"codes": 24}
    return resolve_setup(recipe, SetupOverrides(grid=f"{side}x{side}", classes=3, images=100, **tokens))


@dataclass
class RealBatch:
    """Tokens, labels and supervision with contents."""

    tokens: Tensor
    labels: Tensor
    supervision: Supervision
    generator: KeyedGenerator


def real_model(training_setup: TrainingSetup, device: str = "cpu") -> HeptapodModel:
    """The model of a recipe, freshly initialized."""
    return (
        build_model(training_setup.recipe.model, training_setup.grid, training_setup.num_classes, seed=0)
        .to(device)
        .train()
    )


def real_batch(training_setup: TrainingSetup, model: HeptapodModel, images: int, device: str = "cpu") -> RealBatch:
    """A micro-batch with contents."""
    keys = [(0, 0, number) for number in range(images)]
    grid = training_setup.grid
    objective = training_setup.recipe.objective.for_head(training_setup.recipe.model.head.kind)
    drawn = draw_supervision(objective, grid.height, grid.width, keys, model.head.window)
    fields = (drawn.token_order, drawn.prefix_lengths, drawn.targets, drawn.weights)
    supervision = Supervision(*(tensor.contiguous().clone().to(device) for tensor in fields))
    labels = torch.zeros(images, dtype=torch.int64, device=device)
    return RealBatch(grid.empty_tokens(images).to(device), labels, supervision, KeyedGenerator(Stream.LOSS, keys))


def real_loss(training_setup: TrainingSetup, model: HeptapodModel, batch: RealBatch) -> Tensor:
    """The loss of a micro-batch in the precision of the recipe."""
    is_bfloat16 = training_setup.recipe.train.precision == "bfloat16"
    device = batch.tokens.device.type
    with torch.autocast(device, torch.bfloat16) if is_bfloat16 else nullcontext():
        losses = objective_loss(model, batch.tokens, batch.labels, batch.supervision, batch.generator)
    return losses.sum() / len(batch.labels)
