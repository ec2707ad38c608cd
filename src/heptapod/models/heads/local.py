"""LocalHead: predicts the unread cells of a window centered on the next cell. The paper's cheaper head."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from heptapod.configs.models import HeadConfig, ModelConfig
from heptapod.models.heads.base import Head, ReadStates, prefix_mask, register_head
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import CrossBlock, RMSNorm, SelfBlock
from heptapod.utils.registry import further_settings

DEFAULT_WINDOW = 5
"""Window of a local head where none is set."""


def window_cells(next_cells: Tensor, grid_height: int, grid_width: int, window: int) -> tuple[Tensor, Tensor]:
    """Cells of the window x window square around each given cell.

    Args:
        next_cells: (...) int64.
        grid_height: rows of the grid.
        grid_width: columns of the grid.
        window: odd side of the square.

    Returns:
        cells (..., window²) int64 and a mask of the same shape, False where the square leaves the grid (the cell
        number there is that of the nearest cell inside).
    """
    half = window // 2
    offset = torch.arange(-half, half + 1, device=next_cells.device)
    rows = (next_cells // grid_width).unsqueeze(-1) + offset.repeat_interleave(window)
    columns = (next_cells % grid_width).unsqueeze(-1) + offset.repeat(window)
    inside = (rows >= 0) & (rows < grid_height) & (columns >= 0) & (columns < grid_width)
    return rows.clamp(0, grid_height - 1) * grid_width + columns.clamp(0, grid_width - 1), inside


@register_head("local")
class LocalHead(Head):
    """Each block: the window's unread cells cross-attend to h_0..h_t, then attend to each other.

    Args:
        width: model width D.
        depth: number of blocks.
        num_heads: attention heads.
        rotary_base: see :func:`heptapod.nn.rotary.rotary_2d`.
        window: odd side of the window around the next cell.
    """

    window = DEFAULT_WINDOW

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float, window: int) -> None:
        super().__init__(width, depth, num_heads, rotary_base)
        self.window = window
        self.cross_blocks = nn.ModuleList(CrossBlock(width, num_heads) for _ in range(depth))
        self.self_blocks = nn.ModuleList(SelfBlock(width, num_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """See :meth:`Head.from_config`."""
        window = config.head.window or DEFAULT_WINDOW
        further = further_settings(config.head, HeadConfig)
        return cls(config.width, config.head.depth, config.num_heads, config.rotary_base, window, **further)

    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """See :meth:`Head.forward`; every target must be in the window around its ``targets[..., 0]``."""
        assert self.window is not None
        B, S, _ = targets.shape
        Q = self.window**2
        next_cells = targets[..., 0]
        cells, inside = window_cells(next_cells, states.grid_height, states.grid_width, self.window)
        rank = states.rank().gather(1, cells.flatten(1)).view_as(cells)
        visible = inside & (rank > prefix_lengths.unsqueeze(-1))  # (B, S, Q): unread at its prefix

        position = self.position(cells.flatten(1), states).unflatten(1, (S, Q))
        x = states.at(prefix_lengths).unsqueeze(2) + position
        memory, memory_rotary = self.memory(states, cache)
        prefix = None if cache is not None else prefix_mask(prefix_lengths, states.hidden.shape[1], Q)
        rotary_flat = self.rotary(cells.flatten(1), states)  # queries as (B, S·Q)
        rotary_window = self.rotary(cells.flatten(0, 1), states)  # queries as (B·S, Q)
        mask = visible.flatten(0, 1)[:, None, None, :]
        for layer, (cross, within) in enumerate(zip(self.cross_blocks, self.self_blocks, strict=True)):
            layer_cache = cache and cache.layer(layer)
            x = cross(x.flatten(1, 2), rotary_flat, memory, memory_rotary, prefix, layer_cache).unflatten(1, (S, Q))
            x = within(x.flatten(0, 1), rotary_window, mask).unflatten(0, (B, S))
        if cache is not None:
            cache.advance(memory.shape[1])

        half = self.window // 2
        W = states.grid_width
        down = targets // W - (next_cells // W).unsqueeze(-1) + half
        right = targets % W - (next_cells % W).unsqueeze(-1) + half
        slots = (down * self.window + right).unsqueeze(-1).expand(-1, -1, -1, x.shape[-1])
        out: Tensor = self.norm(x.gather(2, slots))
        return out
