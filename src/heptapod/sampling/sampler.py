"""The sampling loop. It uses the parts of the model and never the tokenizer.

Shape legend: B batch, N cells, k cells filled in a step.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from heptapod.configs.sampling import SamplingConfig
from heptapod.grid import tokens_at, with_tokens_at
from heptapod.models.heads import ReadStates
from heptapod.models.heptapod import HeptapodModel, ReadCache
from heptapod.sampling.order import split_by_confidence
from heptapod.sampling.plan import Known, SamplingPlan, plan_sampling
from heptapod.utils.random import KeyedGenerator, Stream
from heptapod.utils.weights import non_finite_error


@dataclasses.dataclass
class SamplingStep:
    """The state before a step, and the tokens that the step samples."""

    step: int
    """Number of steps done before."""
    prefix: Tensor
    """(B, t) int64: the cells read before, in reading order."""
    tokens: Tensor
    """(B, N) int64 or (B, N, C) float32: tokens by cell before the step; 0 where unread."""
    is_read: Tensor
    """(B, N) bool: the cells of the prefix."""
    cells: Tensor
    """(B, k) int64: the cells that the step fills, in reading order; none after the last step."""
    values: Tensor
    """(B, k) int64 or (B, k, C) float32: their sampled tokens."""
    believed: Tensor | None = None
    """Shaped like ``tokens``, on request: the predicted grid. An unread cell has its most likely code or its mean
    latent, a read cell its token."""
    uncertainty: Tensor | None = None
    """(B, N), on request: entropy in nats (codes) or spread (latents) of every unread cell; 0 for read cells."""


def sample_stream(
    model: HeptapodModel,
    labels: Tensor | None,
    seeds: Sequence[int],
    config: SamplingConfig,
    known: Known | None = None,
    belief: bool | Collection[int] = False,
    use_cache: bool = True,
) -> Iterator[SamplingStep]:
    """Samples token grids step by step.

    Args:
        model: in evaluation mode.
        labels: (B,) int64, -1 for "no label"; None for an unconditional model.
        seeds: one per image. An image depends on its label, its seed and the config, not on its batch.
        config: the sampling config; an unset ``token_order`` means raster.
        known: cells whose tokens are given.
        belief: whether to predict the whole grid too, at every step or at the given steps (the last is the finished
            grid).
        use_cache: keep keys and values between steps; without, every step reads the whole prefix again.

    Yields:
        Every step, and at the end the finished grid with no cells to fill.

    Raises:
        ValueError: if the model's head or distribution does not support the config; NonFiniteError, which is one, if a
            prediction is infinite or not a number.
    """
    return run_plan(model, labels, plan_sampling(model, config, seeds, known, belief), use_cache)


def sample_tokens(
    model: HeptapodModel,
    labels: Tensor | None,
    seeds: Sequence[int],
    config: SamplingConfig,
    known: Known | None = None,
    use_cache: bool = True,
) -> Tensor:
    """Token grids (B, N) int64 or (B, N, C) float32; arguments as for :func:`sample_stream`."""
    return run_to_end(model, labels, plan_sampling(model, config, seeds, known), use_cache)


def run_to_end(model: HeptapodModel, labels: Tensor | None, plan: SamplingPlan, use_cache: bool = True) -> Tensor:
    """The finished token grids (B, N) int64 or (B, N, C) float32; arguments as for :func:`run_plan`."""
    (last,) = deque(run_plan(model, labels, plan, use_cache), maxlen=1)
    return last.tokens


@torch.inference_mode()
def run_plan(
    model: HeptapodModel, labels: Tensor | None, plan: SamplingPlan, use_cache: bool = True
) -> Iterator[SamplingStep]:
    """Samples the token grids of a plan step by step, see :func:`sample_stream`."""
    grid, config, seeds, device = model.grid, plan.config, plan.seeds, model.token_embedding.weight.device
    _check_labels(model, labels, len(seeds))
    if config.approximate_head and not use_cache:
        raise ValueError("approximate_head: given, but without a cache nothing is kept between steps")
    generator = KeyedGenerator(Stream.SAMPLE, [(seed,) for seed in seeds])
    levels = model.distribution.schedule(config)
    cache = model.new_cache(len(seeds), approximate_head=config.approximate_head) if use_cache else None
    labels = None if labels is None else labels.to(device)

    order = plan.order.to(device)
    cells, unread = order[:, : plan.num_known], order[:, plan.num_known :]
    prefix = order[:, :0]
    tokens = grid.empty_tokens(len(seeds)).to(device)
    if plan.known is not None:
        tokens = with_tokens_at(tokens, cells, tokens_at(plan.known.tokens.to(tokens), cells))
    is_read = torch.zeros(len(seeds), grid.num_cells, dtype=torch.bool, device=device)
    is_valid = torch.ones((), dtype=torch.bool, device=device)
    for step, count in enumerate(plan.counts):
        prefix, is_read = torch.cat([prefix, cells], dim=1), is_read.scatter(1, cells, True)
        states = _read(model, labels, tokens, prefix, cells, cache)
        if config.token_order == "confidence":
            features = model.predict(states, unread, cache)
            confidence_generator = KeyedGenerator(Stream.CONFIDENCE, [(seed, step) for seed in seeds])
            uncertainty = model.distribution.uncertainty(features, confidence_generator, config, levels)
            cells, places, left = split_by_confidence(unread, uncertainty, count)
            features = features.gather(1, places.unsqueeze(-1).expand(-1, -1, features.shape[-1]))
        else:
            cells, left = unread[:, :count], unread[:, count:]
            features = model.predict(states, cells, cache)
        values = model.distribution.sample(features, generator, config, levels)
        is_valid = is_valid & (values >= 0 if grid.is_discrete else values.isfinite()).all()
        # Reading the flag waits for a GPU: there only where the caller does, and at the end.
        if device.type == "cpu" or plan.predicts_grid_at(step) or step + 1 == len(plan.counts):
            _check_valid(is_valid, model, config)
        values = values.clamp(min=0) if grid.is_discrete else values
        state = SamplingStep(step, prefix, tokens, is_read, cells, values)
        if plan.predicts_grid_at(step):
            # A separate generator: a prediction of the grid changes no image.
            belief_generator = KeyedGenerator(Stream.BELIEF, [(seed, step) for seed in seeds])
            features = model.predict(states, unread, cache)
            believed, uncertainty = model.distribution.belief(features, belief_generator, config, levels)
            state.believed = with_tokens_at(tokens, unread, believed)
            state.uncertainty = uncertainty.new_zeros(order.shape).scatter(1, unread, uncertainty)
        yield state
        tokens, unread = with_tokens_at(tokens, cells, values), left
    prefix = torch.cat([prefix, cells], dim=1)
    done = SamplingStep(len(plan.counts), prefix, tokens, torch.ones_like(is_read), unread, tokens[:, :0])
    if plan.predicts_grid_at(done.step):
        done.believed, done.uncertainty = tokens, torch.zeros(order.shape, device=device)
    yield done


def _read(
    model: HeptapodModel, labels: Tensor | None, tokens: Tensor, prefix: Tensor, new: Tensor, cache: ReadCache | None
) -> ReadStates:
    """States of the prefix (B, t), whose last cells (B, k) are new to the cache; without one all is read again."""
    if cache is None:
        return model.read(tokens_at(tokens, prefix), prefix, labels)
    if cache.backbone.length == 0:
        states = model.read_condition(cache, labels)
        if new.shape[1] == 0:
            return states
    return model.read_more(cache, tokens_at(tokens, new), new)


def _check_valid(is_valid: Tensor, model: HeptapodModel, config: SamplingConfig) -> None:
    """Raises NonFiniteError, with the cause, if a prediction was not finite."""
    if not is_valid:
        also = f", with these known tokens and temperature {config.temperature:g}"
        raise non_finite_error("sampling: the model's predictions are", model, model.dtype, also)


def _check_labels(model: HeptapodModel, labels: Tensor | None, batch: int) -> None:
    """Raises ValueError for labels that are not one per seed, or that the model has no class for."""
    if batch == 0:
        raise ValueError("seeds: none given, must be one per image")
    if labels is None:
        return
    if labels.shape != (batch,):
        raise ValueError(f"labels: {tuple(labels.shape)} given for {batch} seeds, must be one per seed")
    if int(labels.min()) < -1 or int(labels.max()) >= model.num_classes:
        raise ValueError(f"labels: {labels.tolist()} given, must be between -1 (no label) and {model.num_classes - 1}")
