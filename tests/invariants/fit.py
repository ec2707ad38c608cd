"""A short training on fresh samples of a known distribution."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.models import HeptapodModel
from heptapod.objective import draw_supervision, objective_loss
from heptapod.training.config import TrainConfig
from heptapod.training.optim import EMA, build_optimizer, learning_rate
from heptapod.utils.random import KeyedGenerator, Stream


def fit(
    model: HeptapodModel,
    objective: ObjectiveConfig,
    config: TrainConfig,
    sample: Callable[[int], tuple[Tensor, Tensor]],
    noise: type[KeyedGenerator] = KeyedGenerator,
) -> HeptapodModel:
    """The averaged model after training in float32 on ``sample(count)``: labels and tokens.

    ``noise`` draws what the loss of vectors adds to them.
    """
    optimizer, ema = build_optimizer(model, config), EMA(model, config.ema_decay)
    if config.compile is True:
        model.compile_blocks()
    for step in range(config.steps):
        labels, tokens = sample(config.batch_size)
        keys = [(0, step, i) for i in range(config.batch_size)]
        far_scale = objective.far_scale(step / config.steps)
        supervision = draw_supervision(objective, model.grid.height, model.grid.width, keys, far_scale=far_scale)
        loss = objective_loss(model, tokens, labels, supervision, noise(Stream.LOSS, keys)).mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.update(model, step)
    with ema.whole() as averaged:
        assert isinstance(averaged, HeptapodModel)
        return averaged
