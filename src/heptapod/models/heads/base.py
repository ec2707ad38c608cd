"""What every 2D prediction head has in common.

Shape legend: B batch, P tokens read, S prefixes per image, L targets per prefix, D width, N cells.
A tensor of prefix lengths is (B, S), or (1, S) where all images of the batch share them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from heptapod.configs.models import HEADS, Density, HeadConfig, ModelConfig
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import Linear
from heptapod.nn.rotary import Rotary, rotary_2d
from heptapod.utils.registry import further_settings


@dataclass
class ReadStates:
    """What the backbone has made of the condition and the tokens read so far."""

    hidden: Tensor
    """(B, 1 + P, D): h_0, …, h_P; h_t depends on the condition and the first t tokens only."""
    cells: Tensor
    """(B, 1 + P) int64: ``CONDITION_CELL``, then the cell of each token in reading order."""
    grid_height: int
    """Rows of the grid."""
    grid_width: int
    """Columns of the grid."""

    @property
    def num_read(self) -> int:
        """P, the tokens read."""
        return self.hidden.shape[1] - 1

    def at(self, prefix_lengths: Tensor) -> Tensor:
        """h_t for the given prefix lengths (B or 1, S): (B, S, D)."""
        if prefix_lengths.shape[0] == 1:
            return self.hidden[:, prefix_lengths[0]]
        index = prefix_lengths.unsqueeze(-1).expand(-1, -1, self.hidden.shape[-1])
        return self.hidden.gather(1, index)

    def rank(self) -> Tensor:
        """(B, N) int64: i where a cell was read as the i-th token, N + 1 where it was not read."""
        N = self.grid_height * self.grid_width
        order = torch.arange(1, self.num_read + 1, device=self.cells.device).expand(self.cells.shape[0], -1)
        rank = torch.full((self.cells.shape[0], N), N + 1, device=self.cells.device, dtype=torch.long)
        return rank.scatter(1, self.cells[:, 1:], order)


class CellEmbedding(nn.Module):
    """Embeds a cell by sines and cosines of its row and column, so that any grid size has one."""

    def __init__(self, width: int, num_frequencies: int = 16, base: float = 100.0) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.base = base
        self.project = Linear(4 * num_frequencies, width, bias=False)

    def forward(self, cells: Tensor, grid_height: int, grid_width: int) -> Tensor:
        """(B, T) int64 cells -> (B, T, D)."""
        cos, sin = rotary_2d(cells, grid_height, grid_width, 4 * self.num_frequencies, self.base)
        half = 2 * self.num_frequencies
        waves = torch.cat([cos[..., half:], sin[..., half:]], dim=-1).squeeze(2)
        out: Tensor = self.project(waves.to(self.project.weight.dtype))
        return out

    def init_weights(self, std: float) -> None:
        """Random weights that give embeddings of this standard deviation."""
        nn.init.normal_(self.project.weight, std=std / math.sqrt(2 * self.num_frequencies))  # cos² + sin² = 1


class Head(nn.Module, ABC):
    """A 2D prediction head.

    A head never knows the loss and never sees a token: it sees hidden states and cells. Prediction from prefix t
    may use h_0..h_t and the cells of the read tokens, nothing else (causality).

    Args:
        width: model width D.
        depth: number of blocks.
        num_heads: attention heads.
        rotary_base: see :func:`heptapod.nn.rotary.rotary_2d`.
    """

    predicts_grid: bool = True
    """Whether any unread cell can be predicted; False where only the next one can."""
    window: int | None = None
    """Side of the window around the next cell outside of which nothing can be predicted; None for no limit."""

    density: Density = ("all", 3)
    """Default of objective.prefixes_per_image and objective.targets_per_prefix."""
    separate_targets: bool = False
    """Whether a target costs the same whatever the other targets of its prefix, so that far cells can be supervised
    apart from the next ones (objective.far_cells)."""
    sees_targets: bool = False
    """Whether a prediction depends on the cells that are asked for together with it."""

    cache_is_exact: bool = True
    """Whether sampling with the head's cache predicts what sampling without it does."""

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float) -> None:
        super().__init__()
        self.depth = depth
        self.num_heads = num_heads
        self.head_width = width // num_heads
        self.rotary_base = rotary_base
        self.cell_embedding = CellEmbedding(width)

    @classmethod
    def from_config(cls, config: ModelConfig) -> Self:
        """Builds the head from a model's configuration; further settings of its config class are keyword arguments."""
        further = further_settings(config.head, HeadConfig)
        return cls(config.width, config.head.depth, config.num_heads, config.rotary_base, **further)

    @abstractmethod
    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """One feature per target cell.

        Args:
            states: the backbone's states.
            prefix_lengths: (B or 1, S) int64, each in 0..P.
            targets: (B, S, L) int64 cells, unread at their prefix; ``targets[..., 0]`` is the next cell σ(t+1).
            cache: while sampling, the head's keys and values of earlier states; it is brought up to date, and
                ``prefix_lengths`` must then be the single prefix of all tokens read.

        Returns:
            (B, S, L, D).
        """

    @property
    def reaches_grid(self) -> bool:
        """Whether every unread cell can be predicted."""
        return self.predicts_grid and self.window is None

    def new_cache(self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype) -> KVCache | None:
        """An empty cache for ``capacity`` states; None for a head that keeps nothing between steps."""
        return KVCache(self.depth, batch, self.num_heads, capacity, self.head_width, device, dtype)

    def rotary(self, cells: Tensor, states: ReadStates) -> Rotary:
        """Angles of (B, T) cells for this head's attention."""
        return rotary_2d(cells, states.grid_height, states.grid_width, self.head_width, self.rotary_base)

    def position(self, cells: Tensor, states: ReadStates) -> Tensor:
        """(B, T) cells -> (B, T, D): embeddings of their positions."""
        embedded: Tensor = self.cell_embedding(cells, states.grid_height, states.grid_width)
        return embedded

    def memory(self, states: ReadStates, cache: KVCache | None) -> tuple[Tensor, Rotary]:
        """Hidden states (B, T, D) that a cross-attention block has to turn into keys and values, and their angles.

        All of them, or those that the cache does not hold yet.
        """
        start = 0 if cache is None else cache.length
        return states.hidden[:, start:], self.rotary(states.cells[:, start:], states)


H = TypeVar("H", bound=Head)


def register_head(kind: str, config: type[HeadConfig] | None = None) -> Callable[[type[H]], type[H]]:
    """Class decorator: makes a head available as ``model.head.kind``.

    Args:
        kind: its name in recipes and saved models.
        config: a subclass of :class:`HeadConfig` with ``kind: str = <kind>`` and further settings.

    Raises:
        ValueError: if another head is registered under that name.
    """

    def register(head: type[H]) -> type[H]:
        HEADS.register(kind, head, config)
        return head

    return register


def prefix_mask(prefix_lengths: Tensor, num_states: int, queries_per_prefix: int) -> Tensor:
    """(B or 1, 1, S·L, num_states): query of prefix t sees h_0..h_t."""
    index = torch.arange(num_states, device=prefix_lengths.device)
    mask = index <= prefix_lengths.repeat_interleave(queries_per_prefix, dim=1).unsqueeze(-1)
    return mask.unsqueeze(1)
