"""The masked baseline: a bidirectional Transformer that is run again in full at every step (the shape of MAR).

Shape legend: B batch, N cells, k cells filled in a step, D width.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from heptapod.configs.models import ModelConfig
from heptapod.distributions import CellSampling
from heptapod.distributions.categorical import Categorical
from heptapod.grid import GridSpec, tokens_at, with_tokens_at
from heptapod.models.heads.base import CellEmbedding
from heptapod.nn.layers import RMSNorm, SelfBlock, init_weights
from heptapod.nn.rotary import CONDITION_CELL, rotary_2d
from heptapod.sampling.order import fill_order
from heptapod.utils.random import KeyedGenerator, Stream


class MaskedBaseline(nn.Module):
    """A bidirectional Transformer over the condition and all N cells, with as many blocks as backbone and head.

    A read cell carries its token, an unread one a mask token. What a cell becomes depends on all others, so nothing can
    be kept from one step to the next. MAR's 64 buffer tokens are left out, in the baseline's favor; that the half of
    MAR's blocks that make its encoder pass over unread cells is not copied, which costs the baseline up to a third.

    Args:
        config: sizes, those of the model it is compared with.
        grid: the grid and its codes.
        num_classes: classes of the condition.
    """

    def __init__(self, config: ModelConfig, grid: GridSpec, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        self.num_classes = num_classes
        depth = config.depth + config.head.depth
        self.token_embedding = nn.Embedding(grid.vocabulary_size, config.width)
        self.cell_embedding = CellEmbedding(config.width)
        self.condition_embedding = nn.Embedding(num_classes + 1, config.width)
        self.mask_token = nn.Parameter(torch.zeros(config.width))
        self.blocks = nn.ModuleList(SelfBlock(config.width, config.num_heads) for _ in range(depth))
        self.norm = RMSNorm(config.width)
        self.distribution = Categorical(config.width, grid.vocabulary_size)
        init_weights(self, depth)

    def on_grid(self, height: int, width: int) -> MaskedBaseline:
        """The same weights, shared, on a grid of another size."""
        other = copy.copy(self)
        other.grid = dataclasses.replace(self.grid, height=height, width=width)
        return other

    def forward(self, tokens: Tensor, is_read: Tensor, cells: Tensor) -> Tensor:
        """Features (B, k, D) of some cells (B, k), from tokens (B, N) that count where ``is_read`` (B, N)."""
        height, width = self.grid.height, self.grid.width
        everywhere = torch.arange(self.grid.num_cells, device=tokens.device).unsqueeze(0)
        x = torch.where(is_read.unsqueeze(-1), self.token_embedding(tokens), self.mask_token)
        x = x + self.cell_embedding(everywhere, height, width)
        condition = self.condition_embedding.weight[-1].expand(len(tokens), 1, -1)  # "no label"
        x = torch.cat([condition, x], dim=1)
        places = torch.cat([torch.full_like(everywhere[:, :1], CONDITION_CELL), everywhere], dim=1)
        head_width = self.config.width // self.config.num_heads
        rotary = rotary_2d(places, height, width, head_width, self.config.rotary_base)
        for block in self.blocks:
            x = block(x, rotary)
        out: Tensor = self.norm(tokens_at(x[:, 1:], cells))
        return out


@torch.inference_mode()
def sample_masked(
    model: MaskedBaseline, seeds: Sequence[int], counts: Sequence[int], only: Collection[int] | None = None
) -> Tensor:
    """Fills the grid in a random order, running the whole model again at every step.

    Args:
        model: in evaluation mode.
        seeds: one per image.
        counts: cells that each step fills.
        only: run these steps (from 0) only; the cells of the others keep code 0 and count as read after them.

    Returns:
        (B, N) int64.
    """
    grid, device = model.grid, model.mask_token.device
    order = fill_order("random", seeds, grid.height, grid.width).to(device)
    generator = KeyedGenerator(Stream.SAMPLE, [(seed,) for seed in seeds])
    tokens = grid.empty_tokens(len(seeds)).to(device)
    is_read = torch.zeros_like(tokens, dtype=torch.bool)
    done = 0
    for step, count in enumerate(counts):
        cells = order[:, done : done + count]
        if only is None or step in only:
            values = model.distribution.sample(model(tokens, is_read, cells), generator, CellSampling())
            tokens = with_tokens_at(tokens, cells, values)
        is_read = is_read.scatter(1, cells, True)
        done += count
    return tokens
