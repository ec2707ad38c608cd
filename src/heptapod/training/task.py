"""The interface between the trainer and what it trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from heptapod.data.loader import Batch, ItemSet


@dataclass
class LossOutput:
    """The loss of one micro-batch."""

    loss: Tensor
    """(B,) float32: the loss of every image."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """(B,) values of every image, averaged for the log."""
    statistics: Any = None
    """A value that is summed over micro-batches and passed to ``after_step``."""


class TrainTask(Protocol):
    """Something that can be trained: a tokenizer, a model."""

    name: str
    """For messages and the progress bar."""

    @property
    def selects_best(self) -> bool:
        """Whether the weights with the lowest ``val_loss`` are the best; otherwise the newest are."""
        ...

    @property
    def module(self) -> nn.Module:
        """The trained module."""
        ...

    @property
    def averaged(self) -> nn.Module:
        """The part of it whose moving average is evaluated and exported."""
        ...

    @property
    def parts(self) -> list[nn.Module]:
        """Parts whose gradients are clipped separately."""
        ...

    @property
    def train_items(self) -> ItemSet:
        """The training set."""
        ...

    def prepare(self, batch: Batch, step: int) -> Batch:
        """Adds to a micro-batch what :meth:`losses` needs besides its items, drawn on the CPU.

        It runs in the thread that reads ahead, where there is one; ``step`` counts the optimizer steps before.
        """
        ...

    def losses(self, batch: Batch, step: int) -> LossOutput:
        """Loss of a prepared micro-batch, through ``module``; ``step`` counts the optimizer steps before."""
        ...

    def after_step(self, statistics: Any, step: int) -> dict[str, Tensor]:
        """Called once after each optimizer step with the summed statistics; returns values to log."""
        ...

    def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
        """Figures on held-out images; ``val_loss`` among them decides which weights are best."""
        ...

    def preview(self, module: nn.Module) -> Image.Image:
        """A picture that shows how far training is."""
        ...

    def export(self, module: nn.Module, folder: Path, metadata: dict[str, str]) -> None:
        """Writes the weights for use, each file whole or absent."""
        ...
