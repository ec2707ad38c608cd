"""The sampling loop. It knows the model's parts, never the tokenizer.

Shape legend: B batch, N cells, k cells filled in a step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.distributions import CellSampling
from heptapod.models.heads import ReadStates
from heptapod.models.heptapod import HeptapodModel, ReadCache
from heptapod.random import KeyedGenerator, Stream
from heptapod.sampling.order import fill_order
from heptapod.sampling.schedule import SamplingConfig, cells_per_step
from heptapod.tokenizers.base import tokens_at, with_tokens_at


@dataclass
class Known:
    """Cells that are given: a prefix of the sequence, kept as they are."""

    tokens: Tensor
    """(B, N) int64 or (B, N, C) float32; only the known cells are read."""
    mask: Tensor
    """(N,) bool: which cells are known."""

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or self.mask.ndim != 1 or self.tokens.shape[1:2] != self.mask.shape:
            raise ValueError(
                f"known: tokens {tuple(self.tokens.shape)}, mask {tuple(self.mask.shape)} of {self.mask.dtype} given; "
                "they must be (B, N) or (B, N, C), and (N,) of bool"
            )


@dataclass
class SamplingStep:
    """The state before a step fills its cells; the last one, with no cells to fill, shows the finished grid."""

    step: int
    """Steps done."""
    tokens: Tensor
    """(B, N) int64 or (B, N, C) float32: tokens by cell; 0 where unread."""
    is_read: Tensor
    """(B, N) bool."""
    cells: Tensor
    """(B, k) int64: cells filled next."""
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
        belief: also predict the whole grid, at every step or at the given ones.
        use_cache: keep keys and values between steps; without, the whole prefix is read again at every step.

    Yields:
        One state before each step and one after the last.

    Raises:
        ValueError: for settings that the model's head cannot follow.
    """
    N, batch, device = model.grid.num_cells, len(seeds), model.token_embedding.weight.device
    if known is not None:
        _check_known(model, known, batch)
    order = fill_order(config.token_order or "raster", seeds, N, None if known is None else known.mask.cpu())
    num_known = 0 if known is None else int(known.mask.sum())
    counts = cells_per_step(config, N - num_known)
    _check_reach(model, order, num_known, counts, belief is not False)
    order = order.to(device)
    generator = KeyedGenerator(Stream.SAMPLE, [(seed,) for seed in seeds])
    how = model.distribution.plan(config.cell())
    schedule = model.distribution.schedule(how)

    tokens = model.grid.empty_tokens(batch).to(device)
    if known is not None:
        tokens = with_tokens_at(tokens, order[:, :num_known], tokens_at(known.tokens.to(tokens), order[:, :num_known]))
    is_read = torch.zeros(batch, N, dtype=torch.bool, device=device)
    reader = _Reader(model, labels, batch, use_cache)
    start, end = 0, num_known
    for step, count in enumerate(counts):
        states = reader.read(tokens, order[:, start:end])
        is_read = is_read.scatter(1, order[:, start:end], True)
        start, end = end, end + count
        cells = order[:, start:end]
        state = SamplingStep(step, tokens, is_read, cells)
        if belief is True or (belief is not False and step in belief):
            _add_belief(model, states, order, start, state, reader.cache, seeds, how, schedule)
        yield state
        features = model.predict(states, cells, reader.cache)
        tokens = with_tokens_at(tokens, cells, model.distribution.sample(features, generator, how, schedule))
    is_read = torch.ones_like(is_read)
    done = SamplingStep(len(counts), tokens, is_read, order[:, N:])
    if belief is not False:
        done.believed, done.uncertainty = tokens, torch.zeros(batch, N, device=device)
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


class _Reader:
    """Feeds tokens to the model, against a cache or (without one) by reading everything again."""

    def __init__(self, model: HeptapodModel, labels: Tensor | None, batch: int, use_cache: bool) -> None:
        self.model = model
        self.labels = None if labels is None else labels.to(model.token_embedding.weight.device)
        self.cache: ReadCache | None = model.new_cache(batch) if use_cache else None
        self.cells = torch.zeros(batch, 0, dtype=torch.long, device=model.token_embedding.weight.device)

    def read(self, tokens: Tensor, cells: Tensor) -> ReadStates:
        """Reads the tokens on further cells (B, k); the first call also reads the condition."""
        self.cells = torch.cat([self.cells, cells], dim=1)
        if self.cache is None:
            return self.model.read(tokens_at(tokens, self.cells), self.cells, self.labels)
        if self.cache.backbone.length == 0:
            states = self.model.read_condition(self.cache, self.labels)
            if cells.shape[1] == 0:
                return states
        return self.model.read_more(self.cache, tokens_at(tokens, cells), cells)


def _add_belief(
    model: HeptapodModel,
    states: ReadStates,
    order: Tensor,
    num_read: int,
    state: SamplingStep,
    cache: ReadCache | None,
    seeds: Sequence[int],
    how: CellSampling,
    schedule: list[Tensor],
) -> None:
    """What every unread cell may be, and how uncertain that is; the numbers drawn for it change no image."""
    unread = order[:, num_read:]
    generator = KeyedGenerator(Stream.BELIEF, [(seed, state.step) for seed in seeds])
    value, spread = model.distribution.belief(model.predict(states, unread, cache), generator, how, schedule)
    state.believed = with_tokens_at(state.tokens, unread, value)
    state.uncertainty = torch.zeros(order.shape, device=order.device).scatter(1, unread, spread)


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
    if not tokens[:, known.mask].isfinite().all():
        raise ValueError("known: tokens hold numbers that are not finite")


def check_plan(model: HeptapodModel, config: SamplingConfig) -> None:
    """Refuses settings that sampling without known cells could not follow.

    Raises:
        ValueError: naming the setting.
    """
    counts = cells_per_step(config, model.grid.num_cells)
    model.distribution.plan(config.cell())
    _check_reach(model, fill_order(config.token_order or "raster", [0], model.grid.num_cells), 0, counts, False)


def _check_reach(model: HeptapodModel, order: Tensor, num_known: int, counts: list[int], belief: bool) -> None:
    """Refuses what the head cannot predict: several cells at once, or cells outside a local head's window."""
    head, width = model.head, model.grid.width
    if belief and not head.reaches_grid:
        raise ValueError(f"belief over the whole grid needs a global or cross head; this is {type(head).__name__}")
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
