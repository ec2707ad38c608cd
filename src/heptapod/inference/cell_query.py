"""Queries of one cell: the model's distribution of its token, given the cells read so far.

Shape legend: N cells, t read cells, K candidates, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heptapod.distributions import Categorical, CellSampling
from heptapod.distributions.continuous import BELIEF_DRAWS
from heptapod.grid import GridSpec, with_tokens_at
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.record import check_cells
from heptapod.models.heads import ReadStates
from heptapod.utils.checks import check_at_least
from heptapod.utils.random import KeyedGenerator, Stream
from heptapod.utils.weights import non_finite_error


@dataclass
class CellBelief:
    """The predicted distribution (belief) of a cell. All tensors are on the CPU."""

    cell: int
    """Row · columns + column."""
    values: Tensor
    """(K,) int64: the most likely codes, the most likely first; or (K, C) float32: the mean, then draws."""
    probabilities: Tensor | None
    """(K,) float32 of each code, as it would be sampled; None for continuous tokens."""
    uncertainty: float
    """Entropy in nats at temperature 1, or spread at the given temperature."""
    mean: Tensor | None
    """(C,) float32 of continuous tokens."""
    spread: Tensor | None
    """(C,) float32 of continuous tokens: the standard deviation of each channel."""
    tokens: Tensor
    """(K, N) int64 or (K, N, C) float32: the image with each candidate, the other unread cells as predicted (0 if the
    head does not predict them); :meth:`Heptapod.decode` shows them."""

    @property
    def rest(self) -> float | None:
        """Probability of all other codes."""
        return None if self.probabilities is None else max(0.0, 1 - float(self.probabilities.sum()))


@torch.inference_mode()
def ask_cell(
    heptapod: Heptapod,
    cell: int,
    label: int | str | None = None,
    cells: Sequence[int] = (),
    values: Tensor | None = None,
    *,
    top: int = 8,
    seed: int = 0,
    **settings: Any,
) -> CellBelief:
    """A model's prediction of an unread cell. A head that predicts one cell or a window treats it as the next cell.

    Args:
        heptapod: the model.
        cell: row · columns + column of the cell.
        label: a class index or name; None for no label.
        cells: the t cells read before, in reading order: ``step.prefix[0]`` of a step of :meth:`Heptapod.stream`.
        values: their tokens, (t,) int64 or (t, C) float32.
        top: number of most likely codes, or of samples of a continuous token.
        seed: keys the samples.
        **settings: sampling config of the cell, as in :meth:`Heptapod.generate`: temperature, top_k, top_p, ...

    Returns:
        Candidates, their probabilities or mean and spread, and the image with each.

    Raises:
        ValueError: for a cell that is read already or not on the grid, or a label or setting out of range;
            NonFiniteError, which is one, if the prediction is infinite or not a number.
    """
    grid, device = heptapod.model.grid, heptapod.model.token_embedding.weight.device
    check_question(cell, cells, grid)
    check_at_least(1, top=top)
    read = torch.tensor(list(cells), dtype=torch.int64).view(1, -1)
    if values is None and len(cells):
        raise ValueError(f"values: none given for {len(cells)} cells; give their tokens")
    read_tokens = grid.empty_tokens(1)[:, :0] if values is None else values.unsqueeze(0).cpu()
    if read_tokens.shape[:2] != read.shape or read_tokens.is_floating_point() == grid.is_discrete:
        raise ValueError(f"values: {tuple(read_tokens.shape[1:])} of {read_tokens.dtype} given for {len(cells)} cells")
    sampling = heptapod.sampling_config(**settings)
    index = torch.tensor(heptapod.label_indices(None if label is None else [label]), device=device)
    states = heptapod.model.read(read_tokens.to(device), read.to(device), index)
    prediction = _of_cell(heptapod, states, cell, top, seed, sampling)
    tokens = with_tokens_at(grid.empty_tokens(1), read, read_tokens).to(device)
    if heptapod.model.head.reaches_grid:
        is_read = torch.zeros(grid.num_cells, dtype=torch.bool).index_fill(0, read[0], True)
        others = (~is_read).nonzero().T.to(device)
        generator = KeyedGenerator(Stream.BELIEF, [(seed, 1)])
        believed, _ = heptapod.model.distribution.belief(heptapod.model.predict(states, others), generator, sampling)
        tokens = with_tokens_at(tokens, others, believed)
    count = len(prediction.values)
    place = torch.full((count, 1), cell, device=device)
    filled = with_tokens_at(tokens.expand(count, *tokens.shape[1:]), place, prediction.values.to(device).unsqueeze(1))
    prediction.tokens = filled.cpu()
    return prediction


def check_question(cell: int, cells: Sequence[int], grid: GridSpec) -> None:
    """Checks that a cell is on a grid and not read already.

    Raises:
        ValueError: naming the cell.
    """
    check_cells([*cells], grid)
    check_cells([cell], grid)
    if cell in cells:
        raise ValueError(f"cell: {cell} given, but it is read already")


def _of_cell(
    heptapod: Heptapod, states: ReadStates, cell: int, top: int, seed: int, sampling: CellSampling
) -> CellBelief:
    """The prediction of a cell, without the rest of the image."""
    distribution, none = heptapod.model.distribution, torch.empty(0)
    features = heptapod.model.predict(states, torch.tensor([[cell]], device=states.hidden.device))
    generator = KeyedGenerator(Stream.BELIEF, [(seed, 0)])
    if isinstance(distribution, Categorical):
        likely = distribution.probabilities(features, sampling)[0, 0]
        _check_finite(heptapod, likely)
        ranked = (likely / likely.sum()).cpu().topk(min(top, likely.numel()))
        shown = ranked.values > 0
        entropy = float(distribution.belief(features, generator, sampling)[1])
        return CellBelief(cell, ranked.indices[shown], ranked.values[shown], entropy, None, None, none)
    draws = [distribution.sample(features, generator, sampling)[0, 0].cpu() for _ in range(max(top, BELIEF_DRAWS))]
    variance, mean = torch.var_mean(torch.stack(draws), dim=0)
    _check_finite(heptapod, mean)
    values = torch.stack([mean, *draws[:top]])
    return CellBelief(cell, values, None, float(variance.mean().sqrt()), mean, variance.sqrt(), none)


def _check_finite(heptapod: Heptapod, predicted: Tensor) -> None:
    if not predicted.isfinite().all():
        model = heptapod.model
        raise non_finite_error("values: with them the model's prediction is", model, model.dtype)


def cell_surroundings(heptapod: Heptapod, cell: int, reach: int = 1) -> tuple[slice, slice, tuple[int, int]]:
    """The pixels of a cell and of those up to ``reach`` cells around it.

    Returns:
        Rows and columns to cut out of an image (…, h, w), and where the cell then begins: pixels from the top and from
        the left.
    """
    grid, factor = heptapod.model.grid, heptapod.tokenizer.factor
    row, column = divmod(cell, grid.width)
    top, left = max(0, row - reach), max(0, column - reach)
    bottom, right = min(grid.height, row + reach + 1), min(grid.width, column + reach + 1)
    rows, columns = slice(top * factor, bottom * factor), slice(left * factor, right * factor)
    return rows, columns, ((row - top) * factor, (column - left) * factor)
