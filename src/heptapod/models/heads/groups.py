"""Which cells are supervised together, for a head whose targets see each other (group).

Rows of unequal length are packed into Q queries with one target each, (B, Q, 1): queries of the same prefix are a
group. Padding is a query of a prefix that no group has, with weight 0.

Shape legend: B batch, N cells, S prefixes per image, L targets per prefix, Q packed queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.utils.random import KeyedGenerator
from heptapod.utils.spread import spread_order

Weigh = Callable[[Tensor], Tensor]
"""Weights (B, S, L) of the targets that a mask (B, S, L) counts."""


def ranks(order: Tensor) -> Tensor:
    """(B, N) int64: the place of every cell in its token order (B, N)."""
    return torch.empty_like(order).scatter(1, order, torch.arange(order.shape[1]).expand_as(order))


def near_read(rank: Tensor, prefixes: Tensor, grid_height: int, grid_width: int) -> Tensor:
    """(B, S, N) bool: the cells that prefixes (B, S) have read, and their eight neighbors; ``rank`` is (B, 1, N)."""
    read = (rank < prefixes.unsqueeze(-1)).unflatten(-1, (grid_height, grid_width))
    return F.max_pool2d(read.float(), 3, stride=1, padding=1).flatten(2).bool()


def draw_groups(
    config: ObjectiveConfig,
    prefixes: Tensor,
    order: Tensor,
    grid_height: int,
    grid_width: int,
    weigh: Weigh,
    generator: KeyedGenerator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of random size: the next cell of every prefix, and other unread cells.

    Sizes run evenly from 1 to L over the prefixes of an image. A share of the groups is what the sampling order spread
    fills in one step; the others are random, as in random order. Of a share of either, unread neighbors of read cells
    come first.

    Args:
        config: L, and the shares.
        prefixes: (B or 1, S) int64, distinct.
        order: (B, N) int64, the token order.
        grid_height: rows of the grid.
        grid_width: columns of the grid.
        weigh: weights of the targets.
        generator: one stream per image.

    Returns:
        Prefix lengths, cells and weights, packed, or (B, S, L) where every prefix has a group.
    """
    B, N = order.shape
    S = prefixes.shape[1]
    L = N if config.targets_per_prefix == "all" else min(config.targets_per_prefix or 1, N)
    sizes, most = _sizes(S, L, generator)
    prefixes = prefixes.expand(B, S)
    rank = ranks(order).unsqueeze(1)
    others = rank > prefixes.unsqueeze(-1)  # (B, S, N): unread, and not the next

    score = generator.uniform(S * N).view(B, S, N)
    if config.spread_share:
        place = ranks(spread_order(grid_height, grid_width, generator))
        after = (place.unsqueeze(1) - place.gather(1, order.gather(1, prefixes)).unsqueeze(-1)) % N
        is_spread = generator.uniform(S) < config.spread_share
        score = torch.where(is_spread.unsqueeze(-1), after / N, score)
    if config.near_share:
        near = near_read(rank, prefixes, grid_height, grid_width)
        score = score + ((generator.uniform(S) < config.near_share).unsqueeze(-1) & ~near)
    score = score.masked_fill(~others, 3.0).masked_fill(rank == prefixes.unsqueeze(-1), -1.0)
    cells = score.argsort(dim=-1, stable=True)[..., :L]
    counts = torch.minimum(sizes, N - prefixes).unsqueeze(-1)
    mask = torch.arange(L) < counts
    cells = torch.where(mask, cells, cells[..., :1])
    if S == N:  # no prefix is left for padding
        return prefixes, cells, weigh(mask)
    return _packed(prefixes, cells, weigh(mask), mask, order, most)


def draw_pairs(count: int, order: Tensor, weigh: Weigh, generator: KeyedGenerator) -> tuple[Tensor, Tensor, Tensor]:
    """All unread cells of S prefixes in pairs t and N − 1 − t, which have N + 1 unread cells together.

    The middle prefix of an odd number of cells is its own partner and counts once.

    Args:
        count: S, even.
        order: (B, N) int64, the token order.
        weigh: weights of the targets.
        generator: one stream per image.

    Returns:
        Prefix lengths, cells and weights, packed: Q = S / 2 · (N + 1).
    """
    N = order.shape[1]
    first = generator.permutation((N + 1) // 2)[:, : count // 2]
    prefixes = torch.cat([first, N - 1 - first], dim=1)
    again = torch.cat([torch.zeros_like(first, dtype=torch.bool), first == N - 1 - first], dim=1)
    positions = prefixes.unsqueeze(-1) + torch.arange(N)
    mask = (positions < N) & ~again.unsqueeze(-1)
    positions = torch.where(mask, positions, prefixes.unsqueeze(-1))
    cells = order.gather(1, positions.flatten(1)).view_as(positions)
    weights = weigh(mask | again.unsqueeze(-1)) * mask
    return _packed(prefixes, cells, weights, mask, order, count // 2 * (N + 1))


def pairs_fit(count: int | Literal["all"] | None, N: int) -> bool:
    """Whether S prefixes are drawn as pairs: S must be even and leave a prefix for padding."""
    return isinstance(count, int) and count % 2 == 0 and count < N


def _sizes(S: int, L: int, generator: KeyedGenerator) -> tuple[Tensor, int]:
    """Sizes (B, S) of the groups, each uniform in 1..L, and the largest sum that an image can have."""
    steps = torch.arange(S) * L // S
    offset = (generator.uniform(1) * L).long().clamp(max=L - 1)
    sizes = (steps + offset) % L + 1
    most = int(((steps + torch.arange(L).unsqueeze(1)) % L + 1).sum(1).max())
    return sizes.gather(1, generator.permutation(S)), most


def _packed(
    prefixes: Tensor, cells: Tensor, weights: Tensor, mask: Tensor, order: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Prefix lengths (B, Q), cells and weights (B, Q, 1) of the targets that count, in order."""
    B, S, L = cells.shape
    N = order.shape[1]
    size = min(size, S * L)
    drawn = torch.zeros(B, N, dtype=torch.bool).scatter(1, prefixes, True)
    free = (~drawn).long().argmax(1, keepdim=True)
    index = (~mask.flatten(1)).long().argsort(dim=1, stable=True)[:, :size]
    counts = mask.flatten(1).gather(1, index)
    lengths = torch.where(counts, prefixes.gather(1, index // L), free)
    targets = torch.where(counts, cells.flatten(1).gather(1, index), order.gather(1, free))
    weights = torch.where(counts, weights.expand_as(cells).flatten(1).gather(1, index), 0.0)
    return lengths, targets.unsqueeze(-1), weights.unsqueeze(-1)
