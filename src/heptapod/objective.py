"""The objective: which prefixes and cells of an image are supervised, and the loss over them.

    L(θ) = E_x E_σ 1/|T| Σ_{t∈T} 1/|U_t| Σ_{n∈U_t} −log p_θ(x_n | x_σ(1..t), c)

is the paper's (``far_weight: uniform``). With a number λ the loss of a prefix is that of its next cell + λ · the mean
of its other targets. With ``far_cells``, prefixes have no other targets: far cells of some prefixes are drawn apart,
and λ weighs their mean. This module alone decides T, U_t and weights; the next-token baseline is the same code with
another head.

Shape legend: B batch, N cells, S prefixes per image, L targets per prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from heptapod.configs.grid import TokenOrder
from heptapod.configs.objective import ObjectiveConfig
from heptapod.models.heads.groups import draw_groups, draw_pairs, near_read, pairs_fit, ranks
from heptapod.models.heads.local import window_cells
from heptapod.models.heptapod import HeptapodModel
from heptapod.utils.random import KeyedGenerator, Stream, pinned


@dataclass
class Supervision:
    """The predictions that one training step supervises."""

    token_order: Tensor
    """(B, N) int64: σ."""
    prefix_lengths: Tensor
    """(B or 1, S) int64: T; with separate far cells, then the prefixes of these. Packed groups name theirs for every
    cell (see :mod:`heptapod.models.heads.groups`)."""
    targets: Tensor
    """(B, S, L) int64 cells: U_t, the next cell first; where ``weights`` is 0, the next cell again."""
    weights: Tensor
    """(B or 1, S, L) float32: weight of each target in the loss of its image."""

    def to(self, device: torch.device) -> Supervision:
        """The same on a device; the copy of pinned memory is asynchronous."""
        return Supervision(*(tensor.to(device, non_blocking=True) for tensor in self._tensors()))

    def pin_memory(self) -> Supervision:
        """The same in pinned memory."""
        return Supervision(*(pinned(tensor) for tensor in self._tensors()))

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.token_order, self.prefix_lengths, self.targets, self.weights


def draw_supervision(
    config: ObjectiveConfig,
    grid_height: int,
    grid_width: int,
    keys: Sequence[Sequence[int]],
    window: int | None = None,
    far_scale: float = 1.0,
) -> Supervision:
    """Draws σ, T and U_t for a batch, every image from its own stream.

    Args:
        config: token order and supervised cells; where unset, all prefixes and their next cells only (see
            :meth:`ObjectiveConfig.for_head`).
        grid_height: rows of the grid.
        grid_width: columns of the grid.
        keys: one key (seed, epoch, image index) per image.
        window: side of the window to which a local head restricts U_t.
        far_scale: factor of λ, see :meth:`ObjectiveConfig.far_scale`; at 0 far cells are left out.

    Returns:
        Tensors on the CPU.
    """
    generator = KeyedGenerator(Stream.SUPERVISION, keys)
    return supervision_from(generator, config, grid_height, grid_width, window, far_scale)


def supervision_from(
    generator: KeyedGenerator,
    config: ObjectiveConfig,
    grid_height: int,
    grid_width: int,
    window: int | None = None,
    far_scale: float = 1.0,
) -> Supervision:
    """:func:`draw_supervision` from given streams, one per image."""
    N = grid_height * grid_width
    order = draw_token_order(config.token_order, N, generator)
    far_weight = config.far_weight if isinstance(config.far_weight, str | None) else config.far_weight * far_scale
    weigh = partial(_weights, far_weight=far_weight)
    if config.group_size == "fixed" and config.targets_per_prefix == "all" and pairs_fit(config.prefixes_per_image, N):
        assert isinstance(config.prefixes_per_image, int)
        return Supervision(order, *draw_pairs(config.prefixes_per_image, order, weigh, generator))
    prefixes = _draw_prefixes(config.prefixes_per_image or "all", N, generator)
    if config.group_size == "random":
        return Supervision(order, *draw_groups(config, prefixes, order, grid_height, grid_width, weigh, generator))
    targets_per_prefix = (config.targets_per_prefix or 1) if far_scale else 1
    if window is None:
        positions, mask = _draw_unread(targets_per_prefix, prefixes, N, generator)
        targets = order.gather(1, positions.expand(len(generator), -1, -1).flatten(1)).unflatten(1, positions.shape[1:])
    else:
        targets, mask = _draw_in_window(targets_per_prefix, order, prefixes, grid_height, grid_width, window, generator)
    drawn = Supervision(order, prefixes, targets, weigh(mask))
    count = round((config.far_cells or 0) * N) if far_scale and N > 1 else 0
    if not count:
        return drawn
    assert isinstance(far_weight, float)
    far_prefixes, cells = draw_far_cells(config, count, order, grid_height, grid_width, generator)
    weights = torch.full((1, count, 1), far_weight / count)
    return Supervision(
        order,
        torch.cat([prefixes.expand(len(generator), -1), far_prefixes], dim=1),
        torch.cat([targets, cells.unsqueeze(-1)], dim=1),
        torch.cat([drawn.weights[:1], weights], dim=1),
    )


def next_cell_supervision(token_order: Tensor) -> Supervision:
    """Every prefix and its next cell only: next-token prediction, and the chain rule of the likelihood."""
    prefixes = torch.arange(token_order.shape[1], device=token_order.device).unsqueeze(0)
    targets = token_order.unsqueeze(-1)
    N = token_order.shape[1]
    return Supervision(token_order, prefixes, targets, torch.full((1, N, 1), 1 / N, device=token_order.device))


def draw_token_order(kind: TokenOrder, N: int, generator: KeyedGenerator) -> Tensor:
    """Token orders (B, N) int64, one per stream."""
    raster = torch.arange(N).expand(len(generator), -1)
    if kind == "raster":
        return raster
    is_random = generator.uniform(1) < (0.5 if kind == "mixed" else 1.0)
    return torch.where(is_random, generator.permutation(N), raster)


def objective_loss(
    model: HeptapodModel,
    tokens: Tensor,
    labels: Tensor | None,
    supervision: Supervision,
    generator: KeyedGenerator | None = None,
) -> Tensor:
    """The loss of every image, (B,) float32: the weighted sum over its prefixes and targets."""
    losses = model(tokens, labels, supervision.token_order, supervision.prefix_lengths, supervision.targets, generator)
    per_image: Tensor = (losses * supervision.weights.to(losses.dtype)).sum((1, 2))
    return per_image


def drop_labels(labels: Tensor, probability: float, keys: Sequence[Sequence[int]]) -> Tensor:
    """Labels (B,) with -1 in place of the dropped ones."""
    if probability == 0:
        return labels
    dropped = KeyedGenerator(Stream.LABEL_DROPOUT, keys).uniform(1).squeeze(1) < probability
    return torch.where(dropped.to(labels.device), -1, labels)


def _draw_prefixes(count: int | Literal["all"], N: int, generator: KeyedGenerator) -> Tensor:
    """(1, N) for all prefixes, else (B, S) distinct ones in random order."""
    if count == "all" or count >= N:
        return torch.arange(N).unsqueeze(0)
    return generator.permutation(N)[:, :count]


def _weights(mask: Tensor, far_weight: float | str | None) -> Tensor:
    """(B or 1, S, L) float32: weights of the targets that count, where the prefixes weigh the same."""
    counts, S = mask.float(), mask.shape[1]
    if not isinstance(far_weight, float):
        return counts / counts.sum(-1, keepdim=True) / S
    others = counts[..., 1:]
    others = far_weight * others / others.sum(-1, keepdim=True).clamp(min=1)
    return torch.cat([torch.ones_like(counts[..., :1]), others], dim=-1) / S


def draw_far_cells(
    config: ObjectiveConfig, count: int, order: Tensor, grid_height: int, grid_width: int, generator: KeyedGenerator
) -> tuple[Tensor, Tensor]:
    """Prefix lengths and cells (B, F) int64 of far cells: unread ones other than the next.

    The prefixes are spread evenly: one from each of equal parts of 0..N-2. A share of the cells lies next to a read
    cell (of its eight neighbors) where there is such an unread cell; the others are uniform.

    Args:
        config: number of prefixes, and the share of near cells.
        count: F.
        order: (B, N) int64, the token order.
        grid_height: rows of the grid.
        grid_width: columns of the grid.
        generator: one stream per image.
    """
    N = order.shape[1]
    M = min(config.far_prefixes or count, count)
    part = (torch.arange(M) + generator.uniform(M)) * (N - 1) / M
    prefixes = part.long().clamp(max=N - 2)[:, torch.arange(count) * M // count]
    rank = ranks(order).unsqueeze(1)
    allowed = rank > prefixes.unsqueeze(-1)  # (B, F, N): unread, and not the next
    if config.near_share:
        near = near_read(rank, prefixes, grid_height, grid_width) & allowed
        chosen = (generator.uniform(count) < config.near_share).unsqueeze(-1) & near.any(-1, keepdim=True)
        allowed = torch.where(chosen, near, allowed)
    number = allowed.cumsum(-1, dtype=torch.int32)  # the pick-th allowed cell, counted from 1
    available = number[..., -1:]
    pick = (generator.uniform(count).unsqueeze(-1) * available).int() + 1
    cells = (number < torch.minimum(pick, available)).sum(-1)
    return prefixes, cells


def _draw_unread(
    count: int | Literal["all"], prefixes: Tensor, N: int, generator: KeyedGenerator
) -> tuple[Tensor, Tensor]:
    """Positions in the sequence of the targets of every prefix, and which of them count: (B or 1, S, L).

    Prefix t has read positions 0..t-1; position t is next. The others are a uniform subset of t+1..N-1, drawn
    by Floyd's algorithm: at its j-th step it picks one of the first n-m+j+1 elements, or the last of these if
    the pick is already in the subset.
    """
    if count == "all":
        positions = prefixes.unsqueeze(-1) + torch.arange(N)
        mask = positions < N
        return torch.where(mask, positions, prefixes.unsqueeze(-1)), mask
    others = min(count, N) - 1
    B, S = len(generator), prefixes.shape[1]
    if not others:
        positions = prefixes.expand(B, S).unsqueeze(-1)
        return positions, torch.ones_like(positions, dtype=torch.bool)
    uniform = generator.uniform(S * others).view(B, S, others)
    available = (N - 1 - prefixes).expand(B, S)  # n
    chosen: list[Tensor] = []
    for step in range(others):
        last = available - others + step
        pick = (uniform[..., step] * (last + 1)).long().clamp(min=0)
        taken = torch.zeros_like(pick, dtype=torch.bool)
        for earlier in chosen:
            taken |= pick == earlier
        # Where fewer than `others` cells are unread the first steps have nothing to pick: -1.
        chosen.append(torch.where(last < 0, -1, torch.where(taken, last, pick)))
    offsets = torch.stack([torch.full_like(available, -1), *chosen], dim=-1)
    mask = offsets >= 0
    mask[..., 0] = True
    next_position = prefixes.expand(B, S).unsqueeze(-1)
    return torch.where(offsets >= 0, next_position + 1 + offsets, next_position), mask


def _draw_in_window(
    count: int | Literal["all"],
    order: Tensor,
    prefixes: Tensor,
    grid_height: int,
    grid_width: int,
    window: int,
    generator: KeyedGenerator,
) -> tuple[Tensor, Tensor]:
    """Targets among the unread cells of the window around the next cell, and which of them count: (B, S, L)."""
    B, S = order.shape[0], prefixes.shape[1]
    prefixes = prefixes.expand(B, S)
    next_cells = order.gather(1, prefixes)
    cells, inside = window_cells(next_cells, grid_height, grid_width, window)  # (B, S, w²)
    rank = ranks(order)
    unread = rank.gather(1, cells.flatten(1)).view_as(cells) >= prefixes.unsqueeze(-1)
    allowed = inside & unread
    # Random scores put the next cell first, then the allowed ones in random order.
    score = generator.uniform(S * window**2).view(B, S, -1).masked_fill(~allowed, -1.0)
    score = score.masked_fill(allowed & (cells == next_cells.unsqueeze(-1)), 2.0)
    size = window**2 if count == "all" else min(count, window**2)
    best, slot = score.topk(size, dim=-1)
    mask = best >= 0
    return torch.where(mask, cells.gather(-1, slot), next_cells.unsqueeze(-1)), mask
