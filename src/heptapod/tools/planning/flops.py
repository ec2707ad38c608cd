"""FLOPs of training, counted by torch on fake tensors; a multiply-add is two.

Only matrix products count, with those of attention (two forward, four backward, as in the usual definition of model
FLOPs; causal attention counts in full). Everything else is small in comparison.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from heptapod.grid import tokens_at
from heptapod.models.heptapod import HeptapodModel
from heptapod.tools.planning.fake import (
    BatchShapes,
    FakeBatch,
    checkpoint_blocks,
    fake_model,
    meta_model,
    without_contents,
)
from heptapod.tools.planning.training_setup import TrainingSetup

T = TypeVar("T")
COUNTED_IMAGES = 2
"""FLOPs are linear in the images, so that a few suffice."""
PARTS = ("backbone", "head", "distribution")


@dataclass(frozen=True)
class PassFlops:
    """FLOPs of one part of the model."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Both passes."""
        return self.forward + self.backward


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs per image of a training step."""

    parts: dict[str, PassFlops]
    """backbone (embeddings included), head, distribution."""
    recomputed: float
    """FLOPs of the recomputation under activation checkpointing; not part of the model FLOPs."""

    @property
    def forward(self) -> float:
        """Of all parts."""
        return sum(part.forward for part in self.parts.values())

    @property
    def backward(self) -> float:
        """Of all parts."""
        return sum(part.backward for part in self.parts.values())

    @property
    def total(self) -> float:
        """Of both passes, without the recomputation."""
        return self.forward + self.backward


def training_flops(setup: TrainingSetup) -> TrainingFlops:
    """FLOPs of a training step of a recipe."""
    shapes = BatchShapes(setup, meta_model(setup).head.window)
    # The math kernel: that of a CPU is not counted, and fused ones count their recomputation.
    with without_contents(), sdpa_kernel(SDPBackend.MATH):
        parts = _by_part(fake_model(setup), shapes.batch(COUNTED_IMAGES))
        recomputed = 0.0
        if setup.recipe.train.activation_checkpointing:
            model = fake_model(setup)
            checkpoint_blocks(model)
            again = _by_part(model, shapes.batch(COUNTED_IMAGES))
            recomputed = sum(again[name].total - parts[name].total for name in PARTS)
    return TrainingFlops(parts, recomputed)


def _by_part(model: HeptapodModel, batch: FakeBatch) -> dict[str, PassFlops]:
    """Runs each part with a separate backward pass from a gradient of its output."""
    supervision = batch.supervision
    cells = supervision.token_order[:, :-1]
    backbone, states = _count(
        lambda: model.read(tokens_at(batch.tokens, cells), cells, batch.labels), lambda states: states.hidden
    )
    states = dataclasses.replace(states, hidden=_leaf(states.hidden))
    head, features = _count(
        lambda: model.head(states, supervision.prefix_lengths, supervision.targets), lambda features: features
    )
    features = _leaf(features)
    values = tokens_at(batch.tokens, supervision.targets.flatten(1)).unflatten(1, supervision.targets.shape[1:])
    distribution, _ = _count(lambda: model.distribution.loss(features, values, batch.generator), lambda losses: losses)
    images = len(batch.tokens)
    return {
        name: PassFlops(part.forward / images, part.backward / images)
        for name, part in zip(PARTS, (backbone, head, distribution), strict=True)
    }


def _count(forward: Callable[[], T], output: Callable[[T], Tensor]) -> tuple[PassFlops, T]:
    with FlopCounterMode(display=False) as counted_forward:
        result = forward()
    out = output(result)
    with FlopCounterMode(display=False) as counted_backward:
        out.backward(torch.empty_like(out))
    return PassFlops(counted_forward.get_total_flops(), counted_backward.get_total_flops()), result


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()
