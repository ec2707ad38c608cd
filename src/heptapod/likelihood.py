"""Likelihood of token grids by the chain rule, and of images where their tokenizer loses nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from heptapod.grid import GridSpec, TokenOrder, tokens_at
from heptapod.models.heptapod import HeptapodModel
from heptapod.objective import Supervision, draw_token_order, next_cell_supervision, objective_loss
from heptapod.tokenizers.base import Tokenizer, to_float, to_uint8
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream

READABLE_IN: dict[TokenOrder, tuple[TokenOrder, ...]] = {
    "raster": ("raster",),
    "random": ("random",),
    "mixed": ("raster", "random", "mixed"),
}
"""The orders in which a model has a likelihood by the order of its training."""


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
    first draws one of these orders, which is a proper distribution as each of them is. The mean of log p would be lower
    (Jensen) and the log of nothing that sums to one.

    Args:
        model: a model with a likelihood.
        tokens: (M, N) int64 or (M, N, C) float32.
        labels: (M,) int64 with -1 for "no label", or None.
        token_order: the order in which the chain rule reads; random ones are fixed per seed and image number.
        batch_size: images at a time; the result does not depend on it but for rounding.
        numbers: (M,) numbers of the images; 0, 1, … if left out.
        orders: random orders per image; the first of more are those of fewer.
        seed: keys the random orders, and the noise of a likelihood that is an estimate.
        progress: show a progress bar.

    Returns:
        (M,) float32 on the CPU.

    Raises:
        ValueError: if the model's distribution has no likelihood, or for several orders where there is only one.
    """
    check_likelihood(model, token_order, orders, batch_size)
    title = f"likelihood of {len(tokens):,} images"
    with Progress(title, orders * len(tokens), shown=progress) as bar:
        each = [
            _by_batch(model, tokens, labels, token_order, numbers, batch_size, _next_cell_nats, (seed, k), bar)
            for k in range(orders)
        ]
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


def trained_order(asked: TokenOrder | None, trained: TokenOrder) -> TokenOrder:
    """The order asked for, or that of training.

    Raises:
        ValueError: if the model was not trained to read in it, so that its likelihood there says nothing.
    """
    order = trained if asked is None else asked
    if order not in READABLE_IN[trained]:
        raise ValueError(
            f"token_order: {asked} given, but the model was trained on {trained} order; must be "
            f"{' or '.join(READABLE_IN[trained])}"
        )
    return order


def check_likelihood(
    model: HeptapodModel, token_order: TokenOrder | None = None, orders: int = 1, batch_size: int = 1
) -> None:
    """Refuses what has no likelihood, before any work.

    Raises:
        ValueError: for a distribution without a likelihood (diffusion), or a number out of range.
    """
    if not model.distribution.has_likelihood:
        raise ValueError(
            f"{type(model.distribution).__name__} has no likelihood; flow and categorical distributions have"
        )
    if orders < 1:
        raise ValueError(f"orders: {orders} given, must be at least 1")
    if orders > 1 and token_order == "raster":
        raise ValueError(f"orders: {orders} given, but there is only one raster order; ask for random or mixed")
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, must be at least 1")


@torch.no_grad()
def tokens_of_images(
    tokenizer: Tokenizer, grid: GridSpec, images: Tensor, batch_size: int, progress: bool = False
) -> Tensor:
    """Tokens (M, N) int64 or (M, N, C) float32 on the CPU of images (M, 3, h, w) uint8.

    Raises:
        ValueError: for images of another size than the grid's.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, must be at least 1")
    shape = (3, grid.height * tokenizer.factor, grid.width * tokenizer.factor)
    if images.dtype != torch.uint8 or images.shape[1:] != shape:
        raise ValueError(
            f"images: {tuple(images.shape)} of {images.dtype} given, must be (M, 3, {shape[1]}, {shape[2]}) of uint8"
        )
    parts = []
    with Progress(f"encoding {len(images):,} images", len(images), shown=progress) as bar:
        for part in images.split(batch_size):
            parts.append(tokenizer.encode(to_float(part).to(tokenizer.device)).cpu())
            bar.advance(len(part))
    return torch.cat(parts)


def log_scale(tokenizer: Tokenizer) -> float:
    """What leads from nats per token to nats per latent vector as the network gives it; 0 for codes."""
    return tokenizer.log_scale if isinstance(tokenizer, ContinuousTokenizer) else 0.0


@torch.no_grad()
def bits_per_dimension(
    tokenizer: Tokenizer, grid: GridSpec, images: Tensor, tokens: Tensor, nats: Tensor, batch_size: int = 128
) -> Tensor:
    """Bits per number of an image: nats per token · N / (ln 2 · numbers).

    A pixel counts as three numbers, and as one where all the images are gray: its three channels say the same thing
    once. Of images on fewer than 256 levels these are bits for telling so many levels apart, not 256.

    Args:
        tokenizer: made the tokens.
        grid: their grid.
        images: (M, 3, h, w) uint8.
        tokens: (M, N) int64, their tokens.
        nats: (M,) nats per token.
        batch_size: images at a time.

    Returns:
        (M,) float64.

    Raises:
        ValueError: if the tokens do not hold all of the images, and there is no such number.
    """
    if not tokenizer.is_lossless:
        raise ValueError(
            f"bits per dimension: {type(tokenizer).__name__} loses detail, so the likelihood of its tokens is not one "
            "of pixels; a pixel tokenizer is needed"
        )
    for part, rows in zip(images.split(batch_size), tokens.split(batch_size), strict=True):
        if not torch.equal(to_uint8(tokenizer.decode(rows.to(tokenizer.device), grid)).cpu(), part):
            raise ValueError(
                "bits per dimension: not all pixels lie on the levels of the tokenizer, which rounds them; its tokens "
                "do not hold the images"
            )
    return nats.double() * tokens.shape[1] / (math.log(2) * dimensions(images))


def dimensions(images: Tensor) -> int:
    """Numbers in one of the images (M, 3, h, w): three per pixel, one where all of them are gray."""
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
    model: HeptapodModel, tokens: Tensor, labels: Tensor | None, ask: Supervision, generator: KeyedGenerator
) -> Tensor:
    features = model.features(tokens, labels, ask.token_order, ask.prefix_lengths, ask.targets)
    values = tokens_at(tokens, ask.token_order)
    nats: Tensor = -model.distribution.log_prob(features.squeeze(2), values, generator).mean(-1)
    return nats
