"""What must hold for every head and order (method.md)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.grid import GridSpec
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeptapodModel
from heptapod.objective import Supervision, draw_supervision, draw_token_order, next_cell_supervision, objective_loss
from heptapod.sampling import SamplingConfig, sample_stream
from heptapod.utils.random import KeyedGenerator, Stream
from tests.conftest import GRID, HEADS, ORDERS

N = GRID.num_cells
Make = Callable[..., HeptapodModel]
every_head = pytest.mark.parametrize("head", HEADS)
every_order = pytest.mark.parametrize("order_kind", ORDERS)


def order_of(kind: str, batch: int = 2) -> Tensor:
    return draw_token_order(kind, N, KeyedGenerator(Stream.EVALUATION, [(i,) for i in range(batch)]))  # type: ignore[arg-type]


def tokens_of(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randint(GRID.vocabulary_size, (batch, N), generator=torch.Generator().manual_seed(seed))


def targets_of(model: HeptapodModel, order: Tensor, t: int) -> Tensor:
    """Everything the head can predict after t tokens, the next cell first: (B, L)."""
    if not model.head.predicts_grid:
        return order[:, t : t + 1]
    if model.head.window is None:
        return order[:, t:]
    reach = model.head.window // 2
    rows = []
    for cells in order[:, t:].tolist():
        first = cells[0]
        near = [
            cell
            for cell in cells
            if abs(cell // GRID.width - first // GRID.width) <= reach
            and abs(cell % GRID.width - first % GRID.width) <= reach
        ]
        rows.append(near)
    size = min(map(len, rows))
    return torch.tensor([row[:size] for row in rows])


def logits(model: HeptapodModel, tokens: Tensor, order: Tensor, prefixes: Tensor, targets: Tensor) -> Tensor:
    """Logits from states of the whole sequence, as in training."""
    states = model.read(tokens.gather(1, order[:, :-1]), order[:, :-1], torch.tensor([0, 2])[: len(tokens)])
    out: Tensor = model.distribution.logits(model.head(states, prefixes, targets))
    return out


@every_head
@every_order
@torch.no_grad()
def test_causality(make_model: Make, head: str, order_kind: str) -> None:
    """Changing token σ(t+1) or any later one changes no prediction made from prefix t."""
    model, order, tokens = make_model(head), order_of(order_kind), tokens_of()
    for t in (0, 1, N // 2, N - 2):
        targets = targets_of(model, order, t).unsqueeze(1)
        prefixes = torch.tensor([[t]])
        before = logits(model, tokens, order, prefixes, targets)
        for changed in (t, N - 1):
            other = tokens.clone()
            cells = order[:, changed : changed + 1]
            other.scatter_(1, cells, (tokens.gather(1, cells) + 1) % GRID.vocabulary_size)
            assert torch.equal(before, logits(model, other, order, prefixes, targets))
        if t:  # and it can fail: the last read token matters
            other = tokens.clone()
            cells = order[:, t - 1 : t]
            other.scatter_(1, cells, (tokens.gather(1, cells) + 1) % GRID.vocabulary_size)
            assert not torch.allclose(before, logits(model, other, order, prefixes, targets), atol=1e-3)


@every_head
@every_order
@torch.no_grad()
def test_independence_of_the_future(make_model: Make, head: str, order_kind: str) -> None:
    """The same read cells in the same order give the same predictions, whatever order follows."""
    model, order, tokens = make_model(head), order_of(order_kind), tokens_of()
    t = N // 2
    targets = targets_of(model, order, t)
    next_cell, rest = order[:, t : t + 1], order[:, t + 1 :]
    other = torch.cat([order[:, :t], next_cell, rest.flip(1)], dim=1)
    prefixes = torch.tensor([[t]])
    expected = logits(model, tokens, order, prefixes, targets.unsqueeze(1))
    assert torch.equal(expected, logits(model, tokens, other, prefixes, targets.unsqueeze(1)))
    # And reading nothing beyond the prefix is the same too.
    states = model.read(tokens.gather(1, order[:, :t]), order[:, :t], torch.tensor([0, 2]))
    alone = model.distribution.logits(model.predict(states, targets))
    assert torch.allclose(expected.squeeze(1), alone, atol=1e-4)


@every_head
@every_order
@torch.no_grad()
def test_cached_decoding_equals_uncached(make_model: Make, head: str, order_kind: str) -> None:
    """To 1e-4 on logits, over chunks of every size, known prefixes included."""
    model, order, tokens = make_model(head), order_of(order_kind), tokens_of()
    labels = torch.tensor([0, 2])
    for chunks in ([1] * (N - 1), [3, 1, 5, 2, 4], [N - 1]):
        cache = model.new_cache(2)
        states = model.read_condition(cache, labels)
        t = 0
        for chunk in [0, *chunks]:
            cells = order[:, t : t + chunk]
            if chunk:
                states = model.read_more(cache, tokens.gather(1, cells), cells)
            t += chunk
            targets = targets_of(model, order, t)
            cached = model.distribution.logits(model.predict(states, targets, cache))
            plain = model.predict(model.read(tokens.gather(1, order[:, :t]), order[:, :t], labels), targets)
            assert (cached - model.distribution.logits(plain)).abs().max() <= 1e-4


@every_head
@every_order
@torch.no_grad()
def test_all_prefixes_at_once_equal_single_ones(make_model: Make, head: str, order_kind: str) -> None:
    """S = all, L = all equals the mean over single prefixes computed one by one."""
    model, tokens = make_model(head), tokens_of()
    density = 1 if head == "next_token" else "all"
    config = ObjectiveConfig(order_kind, "all", density)  # type: ignore[arg-type]
    keys = [(0, 0, i) for i in range(2)]
    whole = draw_supervision(config, GRID.height, GRID.width, keys, model.head.window)
    together = objective_loss(model, tokens, None, whole)
    single = []
    for t in range(N):
        index = torch.tensor([t])
        part = Supervision(whole.token_order, index.unsqueeze(0), whole.targets[:, index], whole.weights[:, index] * N)
        single.append(objective_loss(model, tokens, None, part))
    assert torch.allclose(together, torch.stack(single).mean(0), atol=1e-5)


@every_head
@torch.no_grad()
def test_chain_rule_sums_to_one(make_model: Make, head: str) -> None:
    """Σ_x p(x) = 1 over all images of a 2×3 grid with 3 codes, in any order."""
    grid = GridSpec(2, 3, 3)
    model = make_model(head, grid=grid)
    images = torch.tensor(list(itertools.product(range(3), repeat=6)))
    generator = KeyedGenerator(Stream.EVALUATION, [(5,)])
    for order in (torch.arange(6).unsqueeze(0), generator.permutation(6)):
        order = order.expand(len(images), -1)
        nll = objective_loss(model, images, torch.ones(len(images), dtype=torch.long), next_cell_supervision(order))
        assert abs(float((-nll.double() * 6).exp().sum()) - 1) <= 1e-4
    assert torch.allclose(
        negative_log_likelihood(model, images, torch.ones(len(images), dtype=torch.long)), -model_log(model, images)
    )


def model_log(model: HeptapodModel, images: Tensor) -> Tensor:
    """log p(x) / N computed prefix by prefix, without the objective."""
    labels = torch.ones(len(images), dtype=torch.long)
    total = torch.zeros(len(images))
    for t in range(6):
        cells = torch.arange(6).expand(len(images), -1)
        states = model.read(images[:, :t], cells[:, :t], labels)
        features = model.predict(states, cells[:, t : t + 1])
        total += model.distribution.log_prob(features, images[:, t : t + 1]).squeeze(1)
    return total / 6


@every_head
@pytest.mark.parametrize("order_kind", ["raster", "random"])
def test_an_image_does_not_depend_on_its_batch(make_model: Make, head: str, order_kind: str) -> None:
    """The same seed and label give the same tokens, alone and among others, with and without a cache."""
    model = make_model(head)
    config = SamplingConfig(token_order=order_kind, steps=None, temperature=0.9, top_p=0.95)  # type: ignore[arg-type]
    labels, seeds = torch.tensor([0, 1, 2, 1]), [11, 12, 13, 14]
    *_, together = sample_stream(model, labels, seeds, config)
    for i in range(4):
        *_, alone = sample_stream(model, labels[i : i + 1], seeds[i : i + 1], config, use_cache=i % 2 == 0)
        assert torch.equal(alone.tokens[0], together.tokens[i])
    *_, reversed_ = sample_stream(model, labels.flip(0), seeds[::-1], config)
    assert torch.equal(reversed_.tokens.flip(0), together.tokens)
    assert len({tuple(row) for row in together.tokens.tolist()}) == 4
