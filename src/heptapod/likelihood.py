"""Likelihood of token grids by the chain rule, and of images if their tokenizer is lossless."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from heptapod.configs.grid import TokenOrder
from heptapod.configs.objective import ObjectiveConfig
from heptapod.grid import GridSpec, tokens_at
from heptapod.models.heptapod import HeptapodModel
from heptapod.objective import Supervision, draw_far_cells, draw_token_order, next_cell_supervision, objective_loss
from heptapod.tokenizers.base import Tokenizer
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.encode import decode_pixels
from heptapod.utils.checks import check_at_least
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream
from heptapod.utils.weights import non_finite_error

READABLE_IN: dict[TokenOrder, tuple[TokenOrder, ...]] = {
    "raster": ("raster",),
    "random": ("random",),
    "mixed": ("raster", "random", "mixed"),
}
"""The orders in which a model has a likelihood by the order of its training."""
FAR_ELEMENTS = 1 << 24
"""Limit of the cells of all prefixes of a batch from which far cells are drawn."""


@torch.no_grad()
def negative_log_likelihood(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: TokenOrder = "raster",
    batch_size: int = 128,
    numbers: Tensor | None = None,
    orders: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """−(1/N) Σ_t log p(x_σ(t+1) | x_σ(1..t), c) of every image, in nats per token.

    Exact for categorical cells, by an ODE for a flow (see :meth:`FlowDistribution.log_prob`).

    With several orders it is −(1/N) log of the *mean of the probabilities* over them: the likelihood of a model that
    first draws one of these orders, a proper distribution. The mean of log p would be lower (Jensen) and not the log of
    a distribution.

    Args:
        model: a model with a likelihood.
        tokens: (M, N) int64 or (M, N, C) float32.
        labels: (M,) int64 with -1 for "no label", or None.
        token_order: the order in which the chain rule reads; a random order depends on seed and image number only.
        batch_size: images at a time; the result does not depend on it except for rounding.
        numbers: (M,) image numbers; 0, 1, … if left out.
        orders: random orders per image; more orders extend fewer.
        seed: keys the random orders, and the noise of an estimated likelihood.
        progress: show a progress bar.

    Returns:
        (M,) float32 on the CPU.

    Raises:
        ValueError: if the model's distribution has no likelihood, for several raster orders: there is only one, or if
            a result is not finite.
    """
    check_likelihood(model, token_order, orders, batch_size)
    title = f"likelihood of {len(tokens):,} images"
    with Progress(title, orders * len(tokens), shown=progress) as bar:
        each = [
            _by_batch(model, tokens, labels, token_order, numbers, batch_size, _next_cell_nats, (seed, k), bar)
            for k in range(orders)
        ]
    valid = torch.stack(each).isfinite().all(0)
    if not valid.all():
        row = int((~valid).nonzero()[0])
        number = row if numbers is None else int(numbers[row])
        raise non_finite_error(f"likelihood: the model's of image {number} is", model, model.dtype)
    if orders == 1:
        return each[0]
    N = tokens.shape[1]
    log_p = -torch.stack(each).double() * N
    return (-(log_p.logsumexp(0) - math.log(orders)) / N).float()


@torch.no_grad()
def next_cell_loss(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: TokenOrder = "raster",
    batch_size: int = 128,
    numbers: Tensor | None = None,
) -> Tensor:
    """Mean training loss of every image's next cells, (M,) float32; noise is fixed per image number.

    For categorical cells it is the negative log-likelihood. Arguments as for :func:`negative_log_likelihood`.
    """
    return _by_batch(model, tokens, labels, token_order, numbers, batch_size, objective_loss)


@torch.no_grad()
def far_cell_nats(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: TokenOrder = "raster",
    batch_size: int = 128,
    numbers: Tensor | None = None,
) -> Tensor:
    """−log p of unread cells other than the next, given the prefix alone: (M,) float32, in nats per cell.

    The mean over N-1 cells of every image, one after each prefix with at least two unread cells, drawn from these by
    the image's number. Arguments as for :func:`negative_log_likelihood`; the head must predict the whole grid.
    """
    if not model.head.reaches_grid:
        raise ValueError(
            f"head: {type(model.head).__name__} given, but it does not predict the whole grid; must be cross, group or "
            "global"
        )
    check_likelihood(model)
    batch_size = max(1, min(batch_size, FAR_ELEMENTS // tokens.shape[1] ** 2))
    return _by_batch(model, tokens, labels, token_order, numbers, batch_size, _far_cell_nats)


def trained_order(requested: TokenOrder | None, trained: TokenOrder) -> TokenOrder:
    """The requested order, or the order of training.

    Raises:
        ValueError: if the model was not trained to read in it, so that its likelihood there means nothing.
    """
    order = trained if requested is None else requested
    if order not in READABLE_IN[trained]:
        raise ValueError(
            f"token_order: {requested} given, but the model was trained on {trained} order; must be "
            f"{' or '.join(READABLE_IN[trained])}"
        )
    return order


def check_likelihood(
    model: HeptapodModel, token_order: TokenOrder | None = None, orders: int = 1, batch_size: int = 1
) -> None:
    """Checks that a model has a likelihood, before any work.

    Raises:
        ValueError: for a distribution without a likelihood (diffusion), or a number out of range.
    """
    if not model.distribution.has_likelihood:
        raise ValueError(
            f"{type(model.distribution).__name__} has no likelihood; flow and categorical distributions have"
        )
    check_at_least(1, orders=orders, batch_size=batch_size)
    if orders > 1 and token_order == "raster":
        raise ValueError(f"orders: {orders} given, but there is only one raster order; use random or mixed")


def log_scale(tokenizer: Tokenizer) -> float:
    """The log-Jacobian of the latents' normalization, to add to nats per token; 0 for codes."""
    return tokenizer.log_scale if isinstance(tokenizer, ContinuousTokenizer) else 0.0


@torch.no_grad()
def bits_per_dimension(
    tokenizer: Tokenizer, grid: GridSpec, images: Tensor, tokens: Tensor, nats: Tensor, batch_size: int = 128
) -> Tensor:
    """Bits per dimension of an image: nats per token · N / (ln 2 · dimensions).

    A pixel has three dimensions, or one if all images are gray. For images on fewer than 256 levels the bits encode
    that number of levels, not 256.

    Args:
        tokenizer: the tokenizer of the tokens.
        grid: their grid.
        images: (M, 3, h, w) uint8.
        tokens: (M, N) int64, their tokens.
        nats: (M,) nats per token.
        batch_size: images at a time.

    Returns:
        (M,) float64.

    Raises:
        ValueError: if the tokenizer loses detail of the images, so that there are no bits per dimension.
    """
    if not tokenizer.is_lossless:
        raise ValueError(
            f"bits per dimension: {type(tokenizer).__name__} loses detail, so the likelihood of its tokens is not one "
            "of pixels; a pixel tokenizer is needed"
        )
    for part, rows in zip(images.split(batch_size), tokens.split(batch_size), strict=True):
        if not torch.equal(decode_pixels(tokenizer, rows, grid), part):
            raise ValueError(
                "bits per dimension: not all pixels lie on the levels of the tokenizer, which rounds them; its tokens "
                "do not hold the images"
            )
    return nats.double() * tokens.shape[1] / (math.log(2) * dimensions(images))


def dimensions(images: Tensor) -> int:
    """Dimensions of each of the images (M, 3, h, w): three per pixel, one if all images are gray."""
    is_gray = bool((images[:, :1] == images).all())
    return images.shape[2] * images.shape[3] * (1 if is_gray else 3)


def _by_batch(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    token_order: TokenOrder,
    numbers: Tensor | None,
    batch_size: int,
    measure: Callable[[HeptapodModel, Tensor, Tensor | None, Supervision, KeyedGenerator], Tensor],
    key: tuple[int, int] = (0, 0),
    bar: Progress | None = None,
) -> Tensor:
    device = model.token_embedding.weight.device
    numbers = torch.arange(len(tokens)) if numbers is None else numbers
    seed, which = key
    parts = []
    for rows in torch.arange(len(tokens)).split(batch_size):
        generator = KeyedGenerator(Stream.EVALUATION, [(seed, number, which) for number in numbers[rows].tolist()])
        order = draw_token_order(token_order, tokens.shape[1], generator).to(device)
        condition = None if labels is None else labels[rows].to(device)
        supervision = next_cell_supervision(order)
        parts.append(measure(model, tokens[rows].to(device), condition, supervision, generator).cpu())
        if bar is not None:
            bar.advance(len(rows))
    return torch.cat(parts)


def _next_cell_nats(
    model: HeptapodModel, tokens: Tensor, labels: Tensor | None, supervision: Supervision, generator: KeyedGenerator
) -> Tensor:
    features = model.features(tokens, labels, supervision.token_order, supervision.prefix_lengths, supervision.targets)
    values = tokens_at(tokens, supervision.token_order)
    nats: Tensor = -model.distribution.log_prob(features.squeeze(2), values, generator).mean(-1)
    return nats


def _far_cell_nats(
    model: HeptapodModel, tokens: Tensor, labels: Tensor | None, supervision: Supervision, generator: KeyedGenerator
) -> Tensor:
    order = supervision.token_order
    grid, count = model.grid, order.shape[1] - 1
    drawn = draw_far_cells(ObjectiveConfig(), count, order.cpu(), grid.height, grid.width, generator)
    prefixes, cells = (tensor.to(order.device) for tensor in drawn)
    features = model.features(tokens, labels, order, prefixes, cells.unsqueeze(-1))
    nats: Tensor = -model.distribution.log_prob(features.squeeze(2), tokens_at(tokens, cells), generator).mean(-1)
    return nats
