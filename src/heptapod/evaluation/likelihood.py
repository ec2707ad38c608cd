"""Likelihood of token grids by the chain rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from heptapod.models.heptapod import HeptapodModel
from heptapod.objective import Supervision, draw_token_order, next_cell_supervision, objective_loss
from heptapod.random import KeyedGenerator, Stream
from heptapod.tokenizers.base import tokens_at


@torch.no_grad()
def negative_log_likelihood(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: Literal["raster", "random", "mixed"] = "raster",
    batch_size: int = 128,
    numbers: Tensor | None = None,
) -> Tensor:
    """−(1/N) Σ_t log p(x_σ(t+1) | x_σ(1..t), c) of every image, in nats per token.

    Exact for categorical cells, by an ODE for a flow (see :meth:`FlowDistribution.log_prob`).

    Args:
        model: a model with a likelihood.
        tokens: (M, N) int64 or (M, N, C) float32.
        labels: (M,) int64 with -1 for "no label", or None.
        token_order: the order in which the chain rule reads; a random order is fixed per image number.
        batch_size: images at a time; the result does not depend on it.
        numbers: (M,) numbers of the images; 0, 1, … if left out.

    Returns:
        (M,) float32 on the CPU.

    Raises:
        ValueError: if the model's distribution has no likelihood.
    """
    return _by_batch(model, tokens, labels, token_order, numbers, batch_size, _next_cell_nats)


@torch.no_grad()
def next_cell_loss(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: Literal["raster", "random", "mixed"] = "raster",
    batch_size: int = 128,
) -> Tensor:
    """Mean training loss of every image's next cells, (M,) float32; noise is fixed per image number.

    For categorical cells it is the negative log-likelihood. Arguments as for :func:`negative_log_likelihood`.
    """
    return _by_batch(model, tokens, labels, token_order, None, batch_size, objective_loss)


def _by_batch(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: Literal["raster", "random", "mixed"],
    numbers: Tensor | None,
    batch_size: int,
    measure: Callable[[HeptapodModel, Tensor, Tensor | None, Supervision, KeyedGenerator], Tensor],
) -> Tensor:
    device = model.token_embedding.weight.device
    numbers = torch.arange(len(tokens)) if numbers is None else numbers
    parts = []
    for rows in torch.arange(len(tokens)).split(batch_size):
        generator = KeyedGenerator(Stream.EVALUATION, [(0, number) for number in numbers[rows].tolist()])
        order = draw_token_order(token_order, tokens.shape[1], generator).to(device)
        condition = None if labels is None else labels[rows].to(device)
        supervision = next_cell_supervision(order)
        parts.append(measure(model, tokens[rows].to(device), condition, supervision, generator).cpu())
    return torch.cat(parts)


def _next_cell_nats(
    model: HeptapodModel, tokens: Tensor, labels: Tensor | None, ask: Supervision, generator: KeyedGenerator
) -> Tensor:
    features = model.features(tokens, labels, ask.token_order, ask.prefix_lengths, ask.targets)
    values = tokens_at(tokens, ask.token_order)
    nats: Tensor = -model.distribution.log_prob(features.squeeze(2), values, generator).mean(-1)
    return nats
