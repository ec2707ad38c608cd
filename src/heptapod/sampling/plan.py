"""Checks a sampling config against a model and works out what its steps need, once for all batches.

Shape legend: B images, N cells, k known cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from heptapod.configs.sampling import SamplingConfig
from heptapod.models.heptapod import HeptapodModel
from heptapod.sampling.order import fill_order
from heptapod.sampling.schedule import cells_per_step


@dataclasses.dataclass
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


@dataclasses.dataclass(frozen=True)
class SamplingPlan:
    """A checked sampling config and everything that its steps need, for B images."""

    config: SamplingConfig
    """With token order, cell solver and cell steps filled in."""
    seeds: list[int]
    """One per image."""
    known: Known | None
    """Cells whose tokens are given."""
    belief: bool | frozenset[int]
    """Whether to predict the whole grid, or the steps at which to do so."""
    order: Tensor
    """(B, N) int64 on the CPU: the token order of every image, known cells first."""
    num_known: int
    """Number of known cells."""
    counts: list[int]
    """Number of cells that each step fills."""

    def batch(self, rows: Sequence[int]) -> SamplingPlan:
        """The same plan for some of the images, given by index; an image may occur twice."""
        known = self.known and dataclasses.replace(self.known, tokens=self.known.tokens[list(rows)])
        return dataclasses.replace(self, seeds=[self.seeds[i] for i in rows], known=known, order=self.order[list(rows)])

    def predicts_grid_at(self, step: int) -> bool:
        """Whether to predict the whole grid at a step."""
        return self.belief if isinstance(self.belief, bool) else step in self.belief


def plan_sampling(
    model: HeptapodModel,
    config: SamplingConfig,
    seeds: Sequence[int] = (0,),
    known: Known | None = None,
    belief: bool | Collection[int] = False,
) -> SamplingPlan:
    """Checks everything that sampling needs; arguments as for :func:`sample_stream`.

    Raises:
        ValueError: naming the setting, if the model does not support it.
    """
    if not seeds:
        raise ValueError("seeds: none given, must be one per image")
    grid, mask = model.grid, None if known is None else known.mask.cpu()
    if known is not None:
        _check_known(model, known, len(seeds))
    config = model.distribution.plan(config.with_token_order("raster"))
    assert config.token_order is not None
    order = fill_order(config.token_order, seeds, grid.height, grid.width, mask)
    num_known = 0 if mask is None else int(mask.sum())
    if known is not None and known.order is not None:
        order[:, :num_known] = known.order
    counts = cells_per_step(config, grid.num_cells - num_known)
    if not isinstance(belief, bool):
        if not all(0 <= step <= len(counts) for step in belief):
            raise ValueError(f"belief: steps {sorted(belief)} given, must be between 0 and {len(counts)}")
        belief = frozenset(belief)
    _check_reach(model, config, order, num_known, counts, belief is not False)
    return SamplingPlan(config, list(seeds), known, belief, order, num_known, counts)


def _check_known(model: HeptapodModel, known: Known, batch: int) -> None:
    """Raises ValueError for tokens of another kind, shape or range than the model's."""
    grid, tokens = model.grid, known.tokens
    if tokens.shape != (batch, *grid.token_shape) or tokens.is_floating_point() == grid.is_discrete:
        raise ValueError(
            f"known: tokens {tuple(tokens.shape)} of {tokens.dtype} given, but this model reads "
            f"{(batch, *grid.token_shape)} of {'int64' if grid.is_discrete else 'float32'}"
        )
    if grid.is_discrete and not 0 <= int(tokens.min()) <= int(tokens.max()) < grid.vocabulary_size:
        raise ValueError(f"known: tokens must be between 0 and {grid.vocabulary_size - 1}")
    if not tokens[:, known.mask.to(tokens.device)].isfinite().all():
        raise ValueError("known: the tokens are not finite")


def _check_reach(
    model: HeptapodModel, config: SamplingConfig, order: Tensor, num_known: int, counts: list[int], belief: bool
) -> None:
    """Raises ValueError if the head cannot predict the cells of a step together."""
    head, width, name = model.head, model.grid.width, type(model.head).__name__
    if config.approximate_head and head.cache_is_exact:
        raise ValueError(f"approximate_head: given, but sampling with a {name} is exact at no further cost")
    if not head.reaches_grid:
        if belief:
            raise ValueError(f"belief over the whole grid needs a cross, global or group head; this is {name}")
        if config.token_order == "confidence":
            raise ValueError(
                f"token_order: confidence given, but it needs a cross, global or group head; this is {name}"
            )
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
