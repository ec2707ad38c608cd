"""The sampling loop. It knows the model's parts, never the tokenizer.

Shape legend: B batch, N cells, k cells filled in a step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.grid import tokens_at, with_tokens_at
from heptapod.models.heads import ReadStates
from heptapod.models.heptapod import HeptapodModel, ReadCache
from heptapod.sampling.order import fill_order, split_by_confidence
from heptapod.sampling.schedule import SamplingConfig, cells_per_step
from heptapod.utils.random import KeyedGenerator, Stream


@dataclass
class Known:
    """Cells that are given: a prefix of the sequence, kept as they are."""

    tokens: Tensor
    """(B, N) int64 or (B, N, C) float32; only the known cells are read."""
    mask: Tensor
    """(N,) bool: which cells are known."""
    order: Tensor | None = None
    """(k,) int64: the known cells in the order in which they are read; by default as the token order has them."""

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or self.mask.ndim != 1 or self.tokens.shape[1:2] != self.mask.shape:
            raise ValueError(
                f"known: tokens {tuple(self.tokens.shape)}, mask {tuple(self.mask.shape)} of {self.mask.dtype} given; "
                "they must be (B, N) or (B, N, C), and (N,) of bool"
            )
        if self.order is not None and not torch.equal(self.order.sort().values, self.mask.nonzero().flatten()):
            raise ValueError("known: the order must name every known cell once")


@dataclass
class SamplingStep:
    """One step: what was read before it, what it draws, what the model believed."""

    step: int
    """Steps done before."""
    prefix: Tensor
    """(B, t) int64: the cells read before, in reading order."""
    tokens: Tensor
    """(B, N) int64 or (B, N, C) float32: tokens by cell before the step; 0 where unread."""
    is_read: Tensor
    """(B, N) bool: the cells of the prefix."""
    cells: Tensor
    """(B, k) int64: the cells it fills, in the order in which they will be read; none after the last step."""
    values: Tensor
    """(B, k) int64 or (B, k, C) float32: the tokens drawn for them."""
    believed: Tensor | None = None
    """As ``tokens``: on request, the most likely code or the mean vector of every unread cell, the token of a read
    one."""
    uncertainty: Tensor | None = None
    """(B, N): on request, the entropy in nats or the spread of every unread cell, 0 of a read one."""


@torch.inference_mode()
def sample_stream(
    model: HeptapodModel,
    labels: Tensor | None,
    seeds: Sequence[int],
    config: SamplingConfig,
    known: Known | None = None,
    belief: bool | Collection[int] = False,
    use_cache: bool = True,
) -> Iterator[SamplingStep]:
    """Samples token grids step by step.

    Args:
        model: in evaluation mode.
        labels: (B,) int64, -1 for "no label"; None for an unconditional model.
        seeds: one per image: an image depends on its label, its seed and the settings, not on its batch.
        config: order, schedule and filter; ``token_order`` must be set.
        known: cells that are given.
        belief: also predict the whole grid, at every step or at the given ones (the finished grid is the last).
        use_cache: keep keys and values between steps; without, the whole prefix is read again at every step.

    Yields:
        Every step, and at the end a state with the finished grid and no cells to fill.

    Raises:
        ValueError: for settings that the model's head cannot follow.
    """
    grid, batch, device = model.grid, len(seeds), model.token_embedding.weight.device
    token_order = config.token_order or "raster"
    _check_labels(model, labels, batch)
    if config.approximate_head and not use_cache:
        raise ValueError("approximate_head: given, but without a cache nothing is kept between steps")
    order, num_known, counts = check_plan(model, config, seeds, known, belief)
    generator = KeyedGenerator(Stream.SAMPLE, [(seed,) for seed in seeds])
    how = model.distribution.plan(config.cell())
    schedule = model.distribution.schedule(how)
    cache = model.new_cache(batch, approximate_head=config.approximate_head) if use_cache else None
    labels = None if labels is None else labels.to(device)

    order = order.to(device)
    cells, unread = order[:, :num_known], order[:, num_known:]
    prefix = order[:, :0]
    tokens = grid.empty_tokens(batch).to(device)
    if known is not None:
        tokens = with_tokens_at(tokens, cells, tokens_at(known.tokens.to(tokens), cells))
    is_read = torch.zeros(batch, grid.num_cells, dtype=torch.bool, device=device)
    for step, count in enumerate(counts):
        prefix, is_read = torch.cat([prefix, cells], dim=1), is_read.scatter(1, cells, True)
        states = _read(model, labels, tokens, prefix, cells, cache)
        if token_order == "confidence":
            features = model.predict(states, unread, cache)
            confidence_generator = KeyedGenerator(Stream.CONFIDENCE, [(seed, step) for seed in seeds])
            uncertainty = model.distribution.uncertainty(features, confidence_generator, how, schedule)
            cells, places, left = split_by_confidence(unread, uncertainty, count)
            features = features.gather(1, places.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        else:
            cells, left = unread[:, :count], unread[:, count:]
            features = model.predict(states, cells, cache)
        values = model.distribution.sample(features, generator, how, schedule)
        state = SamplingStep(step, prefix, tokens, is_read, cells, values)
        if belief is True or (belief is not False and step in belief):
            look = KeyedGenerator(Stream.BELIEF, [(seed, step) for seed in seeds])  # changes no image
            believed = model.distribution.belief(model.predict(states, unread, cache), look, how, schedule)
            state.believed = with_tokens_at(tokens, unread, believed[0])
            state.uncertainty = torch.zeros(order.shape, device=device).scatter(1, unread, believed[1])
        yield state
        tokens, unread = with_tokens_at(tokens, cells, values), left
    prefix = torch.cat([prefix, cells], dim=1)
    done = SamplingStep(len(counts), prefix, tokens, torch.ones_like(is_read), unread, tokens[:, :0])
    if belief is True or (belief is not False and len(counts) in belief):
        done.believed, done.uncertainty = tokens, torch.zeros(order.shape, device=device)
    yield done


def sample_tokens(
    model: HeptapodModel,
    labels: Tensor | None,
    seeds: Sequence[int],
    config: SamplingConfig,
    known: Known | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Token grids (B, N) int64 or (B, N, C) float32; arguments as for :func:`sample_stream`."""
    *_, last = sample_stream(model, labels, seeds, config, known, use_cache=use_cache)
    return last.tokens


def _read(
    model: HeptapodModel, labels: Tensor | None, tokens: Tensor, prefix: Tensor, new: Tensor, cache: ReadCache | None
) -> ReadStates:
    """States of the prefix (B, t), whose last cells (B, k) are new to the cache; without one all is read again."""
    if cache is None:
        return model.read(tokens_at(tokens, prefix), prefix, labels)
    if cache.backbone.length == 0:
        states = model.read_condition(cache, labels)
        if new.shape[1] == 0:
            return states
    return model.read_more(cache, tokens_at(tokens, new), new)


def check_plan(
    model: HeptapodModel,
    config: SamplingConfig,
    seeds: Sequence[int] = (0,),
    known: Known | None = None,
    belief: bool | Collection[int] = False,
) -> tuple[Tensor, int, list[int]]:
    """Refuses settings or known cells that sampling could not follow; arguments as for :func:`sample_stream`.

    Returns:
        Token orders (B, N) on the CPU, the number of known cells, and how many cells each step fills.

    Raises:
        ValueError: naming the setting.
    """
    grid, mask = model.grid, None if known is None else known.mask.cpu()
    if known is not None:
        _check_known(model, known, len(seeds))
    model.distribution.plan(config.cell())
    order = fill_order(config.token_order or "raster", seeds, grid.height, grid.width, mask)
    num_known = 0 if mask is None else int(mask.sum())
    if known is not None and known.order is not None:
        order[:, :num_known] = known.order
    counts = cells_per_step(config, grid.num_cells - num_known)
    if not isinstance(belief, bool) and not all(0 <= step <= len(counts) for step in belief):
        raise ValueError(f"belief: steps {sorted(belief)} given, must be between 0 and {len(counts)}")
    _check_reach(model, config, order, num_known, counts, belief is not False)
    return order, num_known, counts


def _check_labels(model: HeptapodModel, labels: Tensor | None, batch: int) -> None:
    """Refuses labels that are not one per seed, or that the model has no class for."""
    if batch == 0:
        raise ValueError("seeds: none given, must be one per image")
    if labels is None:
        return
    if labels.shape != (batch,):
        raise ValueError(f"labels: {tuple(labels.shape)} given for {batch} seeds, must be one per seed")
    if int(labels.min()) < -1 or int(labels.max()) >= model.num_classes:
        raise ValueError(f"labels: {labels.tolist()} given, must be between -1 (no label) and {model.num_classes - 1}")


def _check_known(model: HeptapodModel, known: Known, batch: int) -> None:
    """Refuses tokens of another kind, shape or range than the model's."""
    grid, tokens = model.grid, known.tokens
    if tokens.shape != (batch, *grid.token_shape) or tokens.is_floating_point() == grid.is_discrete:
        raise ValueError(
            f"known: tokens {tuple(tokens.shape)} of {tokens.dtype} given, but this model reads "
            f"{(batch, *grid.token_shape)} of {'int64' if grid.is_discrete else 'float32'}"
        )
    if grid.is_discrete and not 0 <= int(tokens.min()) <= int(tokens.max()) < grid.vocabulary_size:
        raise ValueError(f"known: tokens must lie between 0 and {grid.vocabulary_size - 1}")
    if not tokens[:, known.mask.to(tokens.device)].isfinite().all():
        raise ValueError("known: tokens hold numbers that are not finite")


def _check_reach(
    model: HeptapodModel, config: SamplingConfig, order: Tensor, num_known: int, counts: list[int], belief: bool
) -> None:
    """Refuses what the head cannot predict: several cells at once, or cells outside a local head's window."""
    head, width, name = model.head, model.grid.width, type(model.head).__name__
    if config.approximate_head and head.cache_is_exact:
        raise ValueError(f"approximate_head: given, but sampling with a {name} is exact at no further cost")
    if not head.reaches_grid:
        if belief:
            raise ValueError(f"belief over the whole grid needs a global or cross head; this is {name}")
        if config.token_order == "confidence":
            raise ValueError(f"token_order: confidence given, but it needs a global or cross head; this is {name}")
    if not head.predicts_grid and max(counts, default=1) > 1:
        raise ValueError(
            f"steps: {len(counts)} given, but a next_token head fills one cell per step: use {sum(counts)} (or leave "
            "it unset)"
        )
    if head.window is None:
        return
    start = num_known
    for step, count in enumerate(counts):
        cells = order[:, start : start + count]
        first = cells[:, :1]
        distance = torch.maximum((cells // width - first // width).abs(), (cells % width - first % width).abs())
        if int(distance.max()) > head.window // 2:
            raise ValueError(
                f"steps: {len(counts)} given, but step {step + 1} would fill a cell {int(distance.max())} away from "
                f"the next one and the local head's window of {head.window} reaches {head.window // 2}: use more "
                f"steps (one cell per step, {sum(counts)}, always works)"
            )
        start += count
