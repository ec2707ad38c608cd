"""Training a model on tokens."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from heptapod.configs.objective import ObjectiveConfig
from heptapod.data.loader import Batch
from heptapod.data.tokens import TokenSet
from heptapod.distributed import process_group
from heptapod.likelihood import next_cell_loss
from heptapod.models.heptapod import HeptapodModel
from heptapod.objective import Supervision, draw_supervision, drop_labels, objective_loss
from heptapod.training.task import LossOutput
from heptapod.utils.random import KeyedGenerator, Stream


class ModelTask:
    """Trains a Heptapod model on tokens.

    Args:
        module: the model.
        train: tokens to train on.
        validation: held-out tokens.
        objective: token order and supervised cells.
        steps: optimizer steps of the whole training, for schedules of the objective.
        preview: renders a picture of samples.
        export: writes the weights for use.
        probe: additional figures of the model at every evaluation.
    """

    name = "model"
    selects_best = True

    def __init__(
        self,
        module: HeptapodModel,
        train: TokenSet,
        validation: TokenSet,
        objective: ObjectiveConfig,
        steps: int,
        preview: Callable[[HeptapodModel], Image.Image],
        export: Callable[[HeptapodModel, Path, dict[str, str]], None],
        probe: Callable[[HeptapodModel], dict[str, float]] | None = None,
    ) -> None:
        self.module = module
        self.train_items = train
        self.validation = validation
        self.objective = objective.for_head(module.config.head.kind)
        self.steps = steps
        self._preview = preview
        self._export = export
        self._probe = probe

    @property
    def averaged(self) -> HeptapodModel:
        """The whole model."""
        return self.module

    @property
    def parts(self) -> list[nn.Module]:
        """The whole model."""
        return [self.module]

    def prepare(self, batch: Batch, step: int) -> Batch:
        """Draws the supervision and drops labels."""
        grid, far_scale = self.module.grid, self.objective.far_scale(step / self.steps)
        window = self.module.head.window
        drawn = draw_supervision(self.objective, grid.height, grid.width, batch.keys, window, far_scale)
        labels = drop_labels(batch.labels, self.objective.label_dropout, batch.keys)
        return dataclasses.replace(batch, labels=labels, drawn=drawn)

    def losses(self, batch: Batch, step: int) -> LossOutput:
        """The objective's loss of a prepared micro-batch."""
        assert isinstance(batch.drawn, Supervision)
        generator = KeyedGenerator(Stream.LOSS, batch.keys)
        return LossOutput(objective_loss(self.module, batch.items, batch.labels, batch.drawn, generator))

    def after_step(self, statistics: Any, step: int) -> dict[str, Tensor]:
        """Does nothing."""
        return {}

    def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
        """Held-out loss of the next cells (``val_loss``), for codes the negative log-likelihood in nats per token.

        The figures of the probe, if there is one, are added. Several ranks share the images.
        """
        assert isinstance(module, HeptapodModel)
        tokens = self.validation.head(max_images)
        share = torch.arange(process_group.rank(), len(tokens), process_group.world_size())
        labels = self.validation.labels[share]
        total = torch.zeros((), dtype=torch.float64)
        if len(share):
            total += next_cell_loss(module, tokens[share], labels, self.objective.token_order, numbers=share).sum()
        process_group.all_reduce_sum([total])
        loss = float(total / len(tokens))
        figures = {"val_loss": loss}
        if module.distribution.loss_is_likelihood:
            bits = loss * module.grid.num_cells / math.log(2)
            figures |= {"val_nats_per_token": loss, "val_bits_per_image": bits}
        probe = self._probe
        return figures | (process_group.broadcast_result(lambda: probe(module)) if probe else {})

    def preview(self, module: nn.Module) -> Image.Image:
        """Samples of the model."""
        assert isinstance(module, HeptapodModel)
        return self._preview(module)

    def export(self, module: nn.Module, folder: Path, metadata: dict[str, str]) -> None:
        """Writes a folder that ``Heptapod.from_pretrained`` reads."""
        assert isinstance(module, HeptapodModel)
        self._export(module, folder, metadata)
