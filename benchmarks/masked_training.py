"""A training step with the architecture of MAR (2406.11838), a baseline for the time of a step.

An encoder reads the cells that are kept, a decoder the whole grid. It computes what MAR computes; nobody trains it.

Shape legend: B batch, N cells, K kept cells, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from heptapod.configs.models import ModelConfig
from heptapod.distributions.build import build_distribution
from heptapod.grid import GridSpec, tokens_at
from heptapod.models.heads.base import CellEmbedding
from heptapod.nn.layers import LayerNorm, Linear, SelfBlock, init_weights
from heptapod.nn.rotary import CONDITION_CELL, rotary_2d
from heptapod.utils.random import KeyedGenerator, Stream

BUFFER = 64
"""Tokens that carry the class, in encoder and decoder."""


def masking_ratio(generator: torch.Generator) -> float:
    """A share of masked cells as MAR draws it: normal, mean 1, standard deviation 0.25, truncated to 0.7 … 1."""
    while True:
        ratio = 1 + 0.25 * float(torch.randn((), generator=generator))
        if 0.7 <= ratio <= 1:
            return ratio


class MaskedTraining(nn.Module):
    """Encoder and decoder with as many blocks as backbone and head of ``config``, and its cell distribution."""

    def __init__(self, config: ModelConfig, grid: GridSpec, num_classes: int) -> None:
        super().__init__()
        self.config, self.grid = config, grid
        codes, width = grid.vocabulary_size, config.width
        self.token_embedding = nn.Embedding(codes, width) if codes else Linear(grid.channels, width)
        self.condition_embedding = nn.Embedding(num_classes + 1, width)
        self.cell_embedding, self.decoder_cell_embedding = CellEmbedding(width), CellEmbedding(width)
        self.buffer = nn.Parameter(torch.zeros(2, BUFFER, width))
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.encoder = nn.ModuleList(SelfBlock(width, config.num_heads) for _ in range(config.depth))
        self.decoder = nn.ModuleList(SelfBlock(width, config.num_heads) for _ in range(config.head.depth))
        self.encoder_norm, self.decoder_norm = LayerNorm(width), LayerNorm(width)
        self.to_decoder = Linear(width, width)
        init_weights(self, config.depth + config.head.depth)
        self.distribution = build_distribution(config.distribution, width, codes, grid.channels)

    def forward(self, tokens: Tensor, labels: Tensor, order: Tensor, masked: int, generator: KeyedGenerator) -> Tensor:
        """The loss (B,) of tokens (B, N) or (B, N, C): the first ``masked`` cells of an order (B, N) are predicted."""
        hidden, kept = order[:, :masked], order[:, masked:]
        condition = self.condition_embedding(labels).unsqueeze(1)
        x = self.token_embedding(tokens_at(tokens, kept)) + self._positions(self.cell_embedding, kept)
        x = torch.cat([condition + self.buffer[0], x], dim=1)
        x = self.to_decoder(self.encoder_norm(self._through(self.encoder, x, kept)))
        cells = torch.cat([kept, hidden], dim=1)
        grid = torch.cat([x[:, BUFFER:], self.mask_token.expand(len(tokens), masked, -1)], dim=1)
        grid = grid + self._positions(self.decoder_cell_embedding, cells)
        x = torch.cat([x[:, :BUFFER] + self.buffer[1], grid], dim=1)
        x = self.decoder_norm(self._through(self.decoder, x, cells))[:, -masked:]
        losses: Tensor = self.distribution.loss(x, tokens_at(tokens, hidden), generator)
        return losses.flatten(1).mean(1)

    def _positions(self, embedding: CellEmbedding, cells: Tensor) -> Tensor:
        positions: Tensor = embedding(cells, self.grid.height, self.grid.width)
        return positions

    def _through(self, blocks: nn.ModuleList, x: Tensor, cells: Tensor) -> Tensor:
        """Blocks over the buffer and cells (B, K)."""
        places = torch.cat([cells.new_full((len(cells), BUFFER), CONDITION_CELL), cells], dim=1)
        head_width = self.config.width // self.config.num_heads
        rotary = rotary_2d(places, self.grid.height, self.grid.width, head_width, self.config.rotary_base)
        for block in blocks:
            x = block(x, rotary)
        return x


def masked_step(config: ModelConfig, grid: GridSpec, num_classes: int, batch: int) -> Callable[[], float]:
    """A function that makes a training step on random tokens, in bfloat16 on a CPU, and returns its seconds."""
    model = MaskedTraining(config, grid, num_classes)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    generator = torch.Generator().manual_seed(0)
    ratios = [masking_ratio(generator) for _ in range(1000)]
    masked = round(sum(ratios) / len(ratios) * grid.num_cells)  # its mean, so that a few steps measure the average
    labels, keys = torch.zeros(batch, dtype=torch.long), [(image,) for image in range(batch)]

    def step() -> float:
        started = time.perf_counter()
        shape = (batch, *grid.token_shape)
        codes = torch.randint(max(grid.vocabulary_size, 1), shape, generator=generator)
        tokens = codes if grid.is_discrete else torch.randn(shape, generator=generator)
        order = torch.stack([torch.randperm(grid.num_cells, generator=generator) for _ in range(batch)])
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(tokens, labels, order, masked, KeyedGenerator(Stream.LOSS, keys))
        loss.mean().backward()
        optimizer.step()
        return time.perf_counter() - started

    return step
