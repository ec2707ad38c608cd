"""Likelihood of token grids by the chain rule."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heptapod.models.heptapod import HeptapodModel
from heptapod.objective import draw_token_order, next_cell_supervision, objective_loss
from heptapod.random import KeyedGenerator, Stream


@torch.no_grad()
def negative_log_likelihood(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: Literal["raster", "random", "mixed"] = "raster",
    batch_size: int = 128,
) -> Tensor:
    """−(1/N) Σ_t log p(x_σ(t+1) | x_σ(1..t), c) of every image, in nats per token.

    Args:
        model: a model with a likelihood.
        tokens: (M, N) int64.
        labels: (M,) int64 with -1 for "no label", or None.
        token_order: the order in which the chain rule reads; a random order is fixed per image number.
        batch_size: images at a time; the result does not depend on it.

    Returns:
        (M,) float32 on the CPU.
    """
    device = model.token_embedding.weight.device
    parts = []
    for start in range(0, len(tokens), batch_size):
        part = tokens[start : start + batch_size].to(device)
        keys = [(0, start + i) for i in range(len(part))]
        order = draw_token_order(token_order, tokens.shape[1], KeyedGenerator(Stream.EVALUATION, keys)).to(device)
        condition = None if labels is None else labels[start : start + batch_size].to(device)
        parts.append(objective_loss(model, part, condition, next_cell_supervision(order)).cpu())
    return torch.cat(parts)
