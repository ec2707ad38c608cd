"""FLOPs of sampling one image with the key-value cache, step by step.

Blocks are computed from their shapes (the tests compare every head with torch's count during sampling); sampling a cell
is counted by torch on fake tensors.

Shape legend: D width, N cells, k tokens that a step reads, c cells that its head computes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from heptapod.distributions import CellDistribution, CellSampling
from heptapod.models.heads import CrossHead, GlobalHead, GroupHead, LocalHead, NextTokenHead, ReadStates
from heptapod.models.heads.base import CellEmbedding
from heptapod.models.heptapod import HeptapodModel
from heptapod.nn.layers import Block
from heptapod.sampling import plan_sampling
from heptapod.tools.planning.fake import NullGenerator, fake_model, meta_model, without_contents
from heptapod.tools.planning.training_setup import TrainingSetup


@dataclass(frozen=True)
class SamplingFlops:
    """FLOPs of one sampled image."""

    steps: int
    backbone: float
    head: float
    distribution: float

    @property
    def total(self) -> float:
        """Of all parts."""
        return self.backbone + self.head + self.distribution


def sampling_flops(setup: TrainingSetup) -> SamplingFlops:
    """FLOPs of one image with a recipe's sampling config.

    Raises:
        ValueError: for a config that the model does not support.
    """
    model = meta_model(setup)
    config = setup.recipe.sampling.with_token_order(setup.recipe.objective.token_order)
    counts = plan_sampling(model, config).counts
    ranks_all = config.token_order == "confidence"  # computes every unread cell in every step
    backbone = head = 0.0
    num_read = ranked = 0
    for step, count in enumerate(counts):
        fresh = counts[step - 1] if step else 0
        num_read += fresh
        unread = setup.grid.num_cells - num_read
        computed = unread if ranks_all else count
        ranked += unread if ranks_all else 0
        backbone += _read(model, fresh, 1 + num_read)
        head += _predict(model, fresh, 1 + num_read, computed, setup.grid.num_cells, config.approximate_head)
    sampling, ranking = _cell_flops(setup, config, ranks_all)
    distribution = sampling * setup.grid.num_cells + ranking * ranked
    return SamplingFlops(len(counts), backbone, head, distribution)


def _read(model: HeptapodModel, fresh: int, states: int) -> float:
    """FLOPs of the backbone for fresh tokens, with ``states`` states afterwards; without any, for the condition."""
    each = _position(model.cell_embedding)
    if isinstance(model.token_embedding, nn.Linear):
        each += 2.0 * model.token_embedding.weight.numel()
    return fresh * each + sum(_self_block(block, fresh or 1, states) for block in _blocks(model.backbone.blocks))


def _predict(model: HeptapodModel, fresh: int, states: int, computed: int, num_cells: int, approximate: bool) -> float:
    """FLOPs of the head for a step that computes ``computed`` cells after fresh tokens were read."""
    head, new, position = model.head, fresh or 1, _position(model.head.cell_embedding)
    match head:
        case GroupHead():  # a CrossHead, too
            keys = states + computed  # those of the computed cells are computed again in every step
            blocks = sum(_cross_block(block, computed, new + computed, keys) for block in _blocks(head.blocks))
            return blocks + computed * position
        case CrossHead():
            blocks = sum(_cross_block(block, computed, new, states) for block in _blocks(head.blocks))
            return blocks + computed * position
        case NextTokenHead():
            return sum(_self_block(block, new, states) for block in _blocks(head.blocks)) + new * position
        case LocalHead():
            window = head.window**2 if head.window else 0
            crossed = sum(_cross_block(block, window, new, states) for block in _blocks(head.cross_blocks))
            own = sum(_self_block(block, window, window) for block in _blocks(head.self_blocks))
            return crossed + own + window * position
        case GlobalHead() if approximate:
            cells = fresh + num_cells - (states - 1)  # the cells just read and the unread ones
            return sum(_self_block(block, cells, num_cells) for block in _blocks(head.blocks)) + cells * position
        case GlobalHead():
            *others, last = _blocks(head.blocks)
            whole = sum(_self_block(block, num_cells, num_cells) for block in others)
            return whole + _cross_block(last, computed, num_cells, num_cells) + num_cells * position
        case _:
            return _counted_head(model, states, computed)


def _counted_head(model: HeptapodModel, states: int, computed: int) -> float:
    """The FLOPs of a custom head for a step, counted by torch on the meta device, without the head's cache."""
    grid, device = model.grid, torch.device("meta")
    hidden = torch.empty(1, states, model.config.width, device=device)
    read = ReadStates(hidden, torch.zeros(1, states, dtype=torch.long, device=device), grid.height, grid.width)
    targets = torch.zeros(1, computed, dtype=torch.long, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.predict(read, targets)
    return float(counter.get_total_flops())


def _blocks(modules: nn.ModuleList) -> list[Block]:
    return [block for block in modules if isinstance(block, Block)]


def _self_block(block: Block, tokens: int, keys: int) -> float:
    """A block whose tokens attend to ``keys`` keys, which include their own."""
    return _cross_block(block, tokens, tokens, keys)


def _cross_block(block: Block, queries: int, fresh: int, keys: int) -> float:
    """A block of ``queries`` queries that attend to ``keys`` keys; keys and values of ``fresh`` states are computed."""
    width = block.attention.width
    matrices = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    key_weights = 2 * width**2
    return 2.0 * (queries * (matrices - key_weights) + fresh * key_weights) + 4.0 * queries * keys * width


def _position(embedding: CellEmbedding) -> float:
    """FLOPs of the position embedding of one cell."""
    return 2.0 * embedding.project.weight.numel()


def _cell_flops(setup: TrainingSetup, config: CellSampling, ranks: bool) -> tuple[float, float]:
    """FLOPs of sampling one cell, and of its uncertainty (0 if it is not needed)."""
    width = setup.recipe.model.width
    with without_contents(), torch.no_grad():
        distribution = fake_model(setup).distribution
        planned = distribution.plan(config)
        if planned.cell_steps is None:
            return _counted(distribution, width, planned, ranks)
        # Linear in the steps of the solver: one and two suffice.
        one, two = (_counted(distribution, width, dataclasses.replace(planned, cell_steps=n), ranks) for n in (1, 2))
    sampling, ranking = (a + (planned.cell_steps - 1) * (b - a) for a, b in zip(one, two, strict=True))
    return sampling, ranking


def _counted(distribution: CellDistribution, width: int, config: CellSampling, ranks: bool) -> tuple[float, float]:
    cells = 4
    features, generator = torch.empty(1, cells, width), NullGenerator(1)
    schedule = distribution.schedule(config)  # shared by all cells and images
    with FlopCounterMode(display=False) as sampling:
        distribution.sample(features, generator, config, schedule)
    with FlopCounterMode(display=False) as ranking:
        if ranks:
            distribution.uncertainty(features, generator, config, schedule)
    return sampling.get_total_flops() / cells, ranking.get_total_flops() / cells
