"""FLOPs of sampling one image with the key-value cache, step by step.

The blocks are told by their shapes (the tests compare every head with what torch counts while it samples); the drawing
of cells is counted by torch on tensors without contents.

Shape legend: D width, N cells, k tokens read by a step, c cells that its head computes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from heptapod.distributions import CellDistribution, CellSampling
from heptapod.models.heads import CrossHead, GlobalHead, Head, LocalHead, NextTokenHead
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


def sampling_flops(training_setup: TrainingSetup) -> SamplingFlops:
    """Counts the image that a recipe's sampling settings draw.

    Raises:
        ValueError: for settings that the model cannot follow.
    """
    model = meta_model(training_setup)
    config = training_setup.recipe.sampling.with_token_order(training_setup.recipe.objective.token_order)
    counts = plan_sampling(model, config).counts
    judges_all = config.token_order == "confidence"  # then every unread cell is computed in every step
    backbone = head = 0.0
    num_read = judged = 0
    for step, count in enumerate(counts):
        fresh = counts[step - 1] if step else 0
        num_read += fresh
        unread = training_setup.grid.num_cells - num_read
        computed = unread if judges_all else count
        judged += unread if judges_all else 0
        backbone += _read(model, fresh, 1 + num_read)
        head += _predict(
            model.head, fresh, 1 + num_read, computed, training_setup.grid.num_cells, config.approximate_head
        )
    drawing, judging = _cell_flops(training_setup, config, judges_all)
    distribution = drawing * training_setup.grid.num_cells + judging * judged
    return SamplingFlops(len(counts), backbone, head, distribution)


def _read(model: HeptapodModel, fresh: int, states: int) -> float:
    """The backbone's FLOPs for fresh tokens that bring the states to so many; for none, those of the condition."""
    each = _position(model.cell_embedding)
    if isinstance(model.token_embedding, nn.Linear):
        each += 2.0 * model.token_embedding.weight.numel()
    return fresh * each + sum(_self_block(block, fresh or 1, states) for block in _blocks(model.backbone.blocks))


def _predict(head: Head, fresh: int, states: int, computed: int, num_cells: int, approximate: bool) -> float:
    """The head's FLOPs for a step that computes so many cells after fresh tokens were read."""
    new, position = fresh or 1, _position(head.cell_embedding)
    match head:
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
            cells = fresh + num_cells - (states - 1)  # those read just now, and the unread ones
            return sum(_self_block(block, cells, num_cells) for block in _blocks(head.blocks)) + cells * position
        case GlobalHead():
            *others, last = _blocks(head.blocks)
            whole = sum(_self_block(block, num_cells, num_cells) for block in others)
            return whole + _cross_block(last, computed, num_cells, num_cells) + num_cells * position
    raise ValueError(f"model.head: the cost of sampling with a {type(head).__name__} is not known")


def _blocks(modules: nn.ModuleList) -> list[Block]:
    return [block for block in modules if isinstance(block, Block)]


def _self_block(block: Block, tokens: int, keys: int) -> float:
    """A block whose tokens attend to so many keys, their own among them."""
    return _cross_block(block, tokens, tokens, keys)


def _cross_block(block: Block, queries: int, fresh: int, keys: int) -> float:
    """A block of so many queries; keys and values of ``fresh`` states are made, and all of them are attended to."""
    width = block.attention.width
    matrices = sum(p.numel() for p in block.parameters() if p.ndim == 2)
    of_keys = 2 * width**2
    return 2.0 * (queries * (matrices - of_keys) + fresh * of_keys) + 4.0 * queries * keys * width


def _position(embedding: CellEmbedding) -> float:
    """FLOPs of telling one cell where it lies."""
    return 2.0 * embedding.project.weight.numel()


def _cell_flops(training_setup: TrainingSetup, sampling: CellSampling, judges: bool) -> tuple[float, float]:
    """FLOPs of drawing one cell, and of telling how certain it is (0 where nobody asks)."""
    width = training_setup.recipe.model.width
    with without_contents(), torch.no_grad():
        distribution = fake_model(training_setup).distribution
        planned = distribution.plan(sampling)
        if planned.cell_steps is None:
            return _counted(distribution, width, planned, judges)
        # Linear in the steps of the solver: one and two tell for all.
        one, two = (_counted(distribution, width, dataclasses.replace(planned, cell_steps=n), judges) for n in (1, 2))
    drawing, judging = (a + (planned.cell_steps - 1) * (b - a) for a, b in zip(one, two, strict=True))
    return drawing, judging


def _counted(distribution: CellDistribution, width: int, sampling: CellSampling, judges: bool) -> tuple[float, float]:
    cells = 4
    features, generator = torch.empty(1, cells, width), NullGenerator(1)
    schedule = distribution.schedule(sampling)  # once for all cells and images
    with FlopCounterMode(display=False) as drawing:
        distribution.sample(features, generator, sampling, schedule)
    with FlopCounterMode(display=False) as judging:
        if judges:
            distribution.uncertainty(features, generator, sampling, schedule)
    return drawing.get_total_flops() / cells, judging.get_total_flops() / cells
