"""The Heptapod model: reads tokens one after another and predicts the distribution of every unread cell.

Shape legend: B batch, P tokens read, S prefixes per image, L targets per prefix, D width, N cells.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.configs.models import ModelConfig
from heptapod.distributions.build import build_distribution
from heptapod.distributions.cell_mlp import CellMLP
from heptapod.distributions.continuous import ContinuousDistribution
from heptapod.grid import GridSpec, tokens_at
from heptapod.models.backbone import Backbone
from heptapod.models.heads import Head, ReadStates, build_head, head_without_weights
from heptapod.models.heads.base import CellEmbedding
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import Block, Linear, init_weights
from heptapod.nn.rotary import CONDITION_CELL
from heptapod.utils.machine import check_compiler, check_fits
from heptapod.utils.random import KeyedGenerator, seeded_initialization
from heptapod.utils.weights import plain_state_dict, unwrapped


@dataclass
class ReadCache:
    """Everything kept between sampling steps: buffers of fixed size, allocated once."""

    backbone: KVCache
    head: KVCache | None
    hidden: Tensor
    """(B, 1 + N, D): h_0, h_1, … of the tokens read so far."""
    cells: Tensor
    """(B, 1 + N) int64: the cell of each token read."""


CODE_STD, POSITION_STD, HEAD_POSITION_STD = 0.5, 0.3, 0.5
"""Standard deviations at the start of a model of codes: of its embeddings of codes, and of positions in the backbone
and the head. Far smaller ones keep a model in random order at the frequencies of the codes for hundreds of steps."""


class HeptapodModel(nn.Module):
    """Causal backbone, 2D head and cell distribution over one token grid.

    Args:
        config: sizes and kinds.
        grid: the grid it is trained on and the kind of its tokens.
        num_classes: classes of the condition; 0 for an unconditional model.
        head: a custom head in place of the one that ``config.head`` names; its weights are left as they are.
    """

    def __init__(self, config: ModelConfig, grid: GridSpec, num_classes: int, head: Head | None = None) -> None:
        super().__init__()
        self.config = config
        self.grid = self.trained_grid = grid
        self.num_classes = num_classes
        codes = grid.vocabulary_size
        self.token_embedding = nn.Embedding(codes, config.width) if codes else Linear(grid.channels, config.width)
        self.cell_embedding = CellEmbedding(config.width)
        # Row num_classes is "no label": the BOS of an unconditional model, and where a label is dropped.
        self.condition_embedding = nn.Embedding(num_classes + 1, config.width)
        self.backbone = Backbone(config.width, config.depth, config.num_heads, config.rotary_base)
        self.head: Head = head or build_head(config)
        self.distribution = build_distribution(config.distribution, config.width, codes, grid.channels)
        for part in self.children():
            if part is not head and not isinstance(part, ContinuousDistribution):  # they initialize themselves
                init_weights(part, config.depth + config.head.depth)
        for module in [*self.backbone.modules(), *(self.head.modules() if head is None else ())]:
            if isinstance(module, Block):
                module.dropout = config.dropout
        if codes:
            nn.init.normal_(self.token_embedding.weight, std=CODE_STD)
            self.cell_embedding.init_weights(POSITION_STD)
            if head is None:
                self.head.cell_embedding.init_weights(HEAD_POSITION_STD)
        else:  # tokens of variance 1 begin as far apart as positions do
            nn.init.normal_(self.token_embedding.weight, std=0.1 / math.sqrt(grid.channels))

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.token_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return self.token_embedding.weight.dtype

    @property
    def head_is_configured(self) -> bool:
        """Whether ``config.head`` describes the head, so that a saved model can be loaded."""
        configured = head_without_weights(self.config)
        shapes, expected = (
            {name: tensor.shape for name, tensor in plain_state_dict(head).items()} for head in (self.head, configured)
        )
        return type(unwrapped(self.head)) is type(configured) and shapes == expected

    def on_grid(self, height: int, width: int) -> HeptapodModel:
        """The same weights, shared, reading and predicting a grid of another size; ``trained_grid`` stays as it is."""
        other = copy.copy(self)
        other.grid = dataclasses.replace(self.grid, height=height, width=width)
        return other

    def compile_blocks(self) -> None:
        """Compiles what sampling spends its time in: one program per kind of block, for all layers and lengths.

        On a GPU the compiler uses CUDA graphs. Compilation happens while the first images are sampled.

        Raises:
            ValueError: if there is no C++ compiler, which a CPU needs.
        """
        kind = self.token_embedding.weight.device.type
        check_compiler("compile", kind)
        mode = "reduce-overhead" if kind == "cuda" else None
        for part in self.modules():
            if isinstance(part, Block | CellMLP):
                part.compile(dynamic=True, mode=mode)

    # --- training: whole sequences at once ---

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor | None,
        token_order: Tensor,
        prefix_lengths: Tensor,
        targets: Tensor,
        generator: KeyedGenerator | None = None,
    ) -> Tensor:
        """The loss of every supervised cell.

        Args:
            tokens: (B, N) int64 or (B, N, C) float32, by cell.
            labels: (B,) int64 with -1 for "no label", or None for none at all.
            token_order: (B, N) int64, the permutation σ.
            prefix_lengths: (B or 1, S) int64 in 0..N-1.
            targets: (B, S, L) int64 cells unread at their prefix, the next cell first.
            generator: randomness of the distribution's loss, one stream per image.

        Returns:
            (B, S, L) float32.
        """
        features = self.features(tokens, labels, token_order, prefix_lengths, targets)
        values = tokens_at(tokens, targets.flatten(1)).unflatten(1, targets.shape[1:])
        return self.distribution.loss(features, values, generator)

    def features(
        self, tokens: Tensor, labels: Tensor | None, token_order: Tensor, prefix_lengths: Tensor, targets: Tensor
    ) -> Tensor:
        """The head's feature (B, S, L, D) for every supervised cell; arguments as for :meth:`forward`."""
        # The last token of the sequence is never part of a prefix that still has a cell to predict.
        states = self.read(tokens_at(tokens, token_order[:, :-1]), token_order[:, :-1], labels)
        features: Tensor = self.head(states, prefix_lengths, targets)
        return features

    def read(self, tokens: Tensor, cells: Tensor, labels: Tensor | None) -> ReadStates:
        """Backbone states h_0..h_P of tokens (B, P) or (B, P, C) lying on cells (B, P), in reading order."""
        x = torch.cat([self._condition(labels, tokens.shape[0]), self._embed(tokens, cells)], dim=1)
        x = F.dropout(x, self.config.dropout, self.training)
        cells = torch.cat([cells.new_full((cells.shape[0], 1), CONDITION_CELL), cells], dim=1)
        hidden = self.backbone(x, cells, self.grid.height, self.grid.width)
        return ReadStates(hidden, cells, self.grid.height, self.grid.width)

    # --- sampling: a few tokens at a time against a cache ---

    def new_cache(self, batch: int, approximate_head: bool = False) -> ReadCache:
        """Empty buffers for ``batch`` whole sequences.

        Args:
            batch: images.
            approximate_head: keep states also for a head that then predicts something else than without (global).
        """
        device, dtype = self.token_embedding.weight.device, self.token_embedding.weight.dtype
        states = 1 + self.grid.num_cells
        heads, head_width = self.config.num_heads, self.config.width // self.config.num_heads
        if device.type == "cpu":
            size = batch * states * self.config.width * (2 * self.config.depth + 1) * dtype.itemsize
            check_fits(size, f"batch_size: {batch:,} images at a time of {states:,} tokens")
        backbone = KVCache(self.config.depth, batch, heads, states, head_width, device, dtype)
        hidden = torch.zeros(batch, states, self.config.width, device=device, dtype=dtype)
        cells = torch.full((batch, states), CONDITION_CELL, device=device)
        keeps = self.head.cache_is_exact or approximate_head
        return ReadCache(backbone, self.head.new_cache(batch, states, device, dtype) if keeps else None, hidden, cells)

    def read_condition(self, cache: ReadCache, labels: Tensor | None) -> ReadStates:
        """Starts a sequence: h_0."""
        batch = cache.hidden.shape[0]
        return self._extend(cache, self._condition(labels, batch), cache.cells[:, :1])

    def read_more(self, cache: ReadCache, tokens: Tensor, cells: Tensor) -> ReadStates:
        """Reads the next tokens (B, k) or (B, k, C) on cells (B, k); returns the states of all read so far."""
        return self._extend(cache, self._embed(tokens, cells), cells)

    def predict(self, states: ReadStates, targets: Tensor, cache: ReadCache | None = None) -> Tensor:
        """Features (B, L, D) of unread cells (B, L), the next cell first, after all tokens read."""
        prefix = torch.full((1, 1), states.num_read, device=targets.device)
        features: Tensor = self.head(states, prefix, targets.unsqueeze(1), cache.head if cache else None)
        return features.squeeze(1)

    def _extend(self, cache: ReadCache, x: Tensor, cells: Tensor) -> ReadStates:
        start, end = cache.backbone.length, cache.backbone.length + x.shape[1]
        cache.hidden[:, start:end] = self.backbone(x, cells, self.grid.height, self.grid.width, cache.backbone)
        cache.cells[:, start:end] = cells
        return ReadStates(cache.hidden[:, :end], cache.cells[:, :end], self.grid.height, self.grid.width)

    def _embed(self, tokens: Tensor, cells: Tensor) -> Tensor:
        embedded: Tensor = self.token_embedding(tokens) + self.cell_embedding(cells, self.grid.height, self.grid.width)
        return embedded

    def _condition(self, labels: Tensor | None, batch: int) -> Tensor:
        """(B, 1, D)."""
        if labels is None:
            labels = torch.full((batch,), -1, device=self.condition_embedding.weight.device)
        index = torch.where(labels < 0, self.num_classes, labels)
        embedded: Tensor = self.condition_embedding(index).unsqueeze(1)
        return embedded


def build_model(config: ModelConfig, grid: GridSpec, num_classes: int, seed: int) -> HeptapodModel:
    """A freshly initialized model; the same seed gives the same weights, and no global state changes."""
    check_fits(
        4 * least_parameters(config, grid, num_classes),
        f"model: width {config.width}, depth {config.depth}, head.depth {config.head.depth}, {num_classes:,} classes",
    )
    with seeded_initialization(seed):
        return HeptapodModel(config, grid, num_classes)


def least_parameters(config: ModelConfig, grid: GridSpec, num_classes: int) -> int:
    """A lower bound of the number of parameters, without building anything."""
    width, mlp_width = config.width, config.distribution.mlp_width
    block = 4 * width**2 + 3 * width * 8 * math.ceil(width / 3)
    one = {"global": 1, "cross": 1, "group": 1, "next_token": 1}
    heads = {**one, "local": 2}.get(config.head.kind, 0)  # a custom one: not known
    mlp = (config.distribution.mlp_depth * 5 * mlp_width + config.width) * mlp_width
    ends = (2 * grid.vocabulary_size + grid.channels + num_classes) * width
    return (config.depth + heads * config.head.depth) * block + mlp + ends


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Number of parameters of every direct child, and their total."""
    parts = {name: sum(p.numel() for p in child.parameters()) for name, child in model.named_children()}
    return {**parts, "total": sum(p.numel() for p in model.parameters())}
