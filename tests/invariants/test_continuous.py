"""What must hold for models of vectors, for every head: what holds for codes, to float32 rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.likelihood import negative_log_likelihood, next_cell_loss
from heptapod.models import HeptapodModel
from heptapod.objective import Supervision, draw_supervision, draw_token_order, objective_loss
from heptapod.sampling import Known, SamplingConfig, sample_stream, sample_tokens
from heptapod.utils.random import KeyedGenerator, Stream
from tests.conftest import HEADS, VECTORS
from tests.invariants.test_model import order_of, targets_of

N = VECTORS.num_cells
Make = Callable[..., HeptapodModel]
every_head = pytest.mark.parametrize("head", HEADS)
every_distribution = pytest.mark.parametrize("distribution", ["diffusion", "flow"])


def tokens_of(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, N, VECTORS.channels, generator=torch.Generator().manual_seed(seed))


@every_head
@pytest.mark.parametrize("order_kind", ["raster", "random"])
@torch.no_grad()
def test_causality(make_model: Make, head: str, order_kind: str) -> None:
    """Changing token σ(t+1) or any later one changes no feature from prefix t, and so no loss and no sample."""
    model, order, tokens = make_model(head, VECTORS), order_of(order_kind), tokens_of()
    for t in (1, N // 2, N - 2):
        targets, prefixes = targets_of(model, order, t).unsqueeze(1), torch.tensor([[t]])
        before = model.features(tokens, None, order, prefixes, targets)
        for changed in (t, N - 1):
            other = tokens.clone()
            other[torch.arange(2), order[:, changed]] += 1
            assert torch.equal(before, model.features(other, None, order, prefixes, targets))
        other = tokens.clone()
        other[torch.arange(2), order[:, t - 1]] += 1
        assert not torch.allclose(before, model.features(other, None, order, prefixes, targets), atol=1e-3)


@every_head
@every_distribution
@pytest.mark.parametrize("steps", [4, N])
def test_sampling(make_model: Make, head: str, distribution: str, steps: int) -> None:
    """With and without cache, alone and among others, with known cells: the same image."""
    if head in ("next_token", "local") and steps < N:
        return
    model = make_model(head, VECTORS, distribution=distribution)
    config = SamplingConfig(token_order="random", steps=steps, temperature=0.9, cell_steps=5)
    labels, seeds = torch.tensor([0, 1, 2]), [5, 6, 7]
    together = sample_tokens(model, labels, seeds, config)
    assert together.dtype == torch.float32
    assert together.shape == (3, N, 3)
    assert (together.flatten(1).std(1) > 0.1).all()
    scale = max(1.0, float(together.std()))  # what an untrained diffusion makes of noise is large
    uncached = sample_tokens(model, labels, seeds, config, use_cache=False)
    assert (together - uncached).abs().max() <= 1e-4 * scale
    alone = sample_tokens(model, labels[1:2], seeds[1:2], config)
    assert (alone[0] - together[1]).abs().max() <= 1e-4 * scale
    with torch.autocast("cpu", torch.bfloat16):
        under = model.distribution.sample(torch.zeros(1, 2, 32), KeyedGenerator(Stream.SAMPLE, [(0,)]), config)
    plain = model.distribution.sample(torch.zeros(1, 2, 32), KeyedGenerator(Stream.SAMPLE, [(0,)]), config)
    assert torch.equal(under, plain), "float32 whatever autocast says"


@pytest.mark.parametrize("head", ["global", "cross"])
def test_known_cells_are_kept_and_matter(make_model: Make, head: str) -> None:
    model = make_model(head, VECTORS)
    mask = torch.zeros(N, dtype=torch.bool)
    mask[[0, 3, 7, 12]] = True
    given = tokens_of(2)
    config = SamplingConfig(token_order="random", steps=6, cell_steps=4)
    out = sample_tokens(model, None, [1, 2], config, Known(given, mask))
    assert torch.equal(out[:, mask], given[:, mask]), "bit for bit"
    other = given.clone()
    other[:, ~mask] = torch.nan
    assert torch.equal(out, sample_tokens(model, None, [1, 2], config, Known(other, mask))), "only known cells are read"
    changed = sample_tokens(model, None, [1, 2], config, Known(given + mask.unsqueeze(-1), mask))
    assert not torch.allclose(out[:, ~mask], changed[:, ~mask], atol=1e-2)
    for wrong, message in (
        (given.long(), "torch.int64 given, but this model reads"),
        (given[..., :2], r"\(2, 20, 2\) of torch.float32 given, but this model reads \(2, 20, 3\)"),
        (torch.full_like(given, torch.nan), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            sample_tokens(model, None, [1, 2], config, Known(wrong, mask))


@every_distribution
@pytest.mark.parametrize("head", ["global", "cross"])
def test_belief(make_model: Make, head: str, distribution: str) -> None:
    """Mean and spread of every unread cell at the steps asked for; looking changes nothing."""
    model = make_model(head, VECTORS, distribution=distribution)
    config = SamplingConfig(token_order="random", steps=5, cell_steps=4)
    trace = list(sample_stream(model, torch.tensor([0, 1]), [1, 2], config, belief=[0, 3, 5]))
    assert [state.believed is not None for state in trace] == [True, False, False, True, False, True]
    for state in (trace[0], trace[3], trace[5]):
        assert state.believed is not None
        assert state.uncertainty is not None
        assert torch.equal(state.believed[state.is_read], state.tokens[state.is_read])
        assert (state.uncertainty[state.is_read] == 0).all()
        assert (state.uncertainty[~state.is_read] > 0).all()
    assert torch.equal(trace[-1].tokens, sample_tokens(model, torch.tensor([0, 1]), [1, 2], config))


class SameNoise(KeyedGenerator):
    """One vector of noise and one set of levels per image, whatever is asked for."""

    def normal(self, num: int) -> Tensor:
        noise = torch.randn(len(self), 4 * VECTORS.channels, generator=torch.Generator().manual_seed(0))
        return noise.repeat(1, num // noise.shape[1])

    def uniform(self, num: int) -> Tensor:
        return torch.linspace(0.1, 0.9, num).expand(len(self), -1)


@every_distribution
@pytest.mark.parametrize("head", ["cross", "global"])
@torch.no_grad()
def test_all_prefixes_at_once_equal_single_ones(make_model: Make, head: str, distribution: str) -> None:
    """S = all, L = all equals the mean over single prefixes computed one by one, with the same noise for every cell."""
    model, tokens = make_model(head, VECTORS, distribution=distribution), tokens_of()
    noise = SameNoise(Stream.LOSS, [(i,) for i in range(2)])
    whole = draw_supervision(ObjectiveConfig("random", "all", "all"), 4, 5, [(0, 0, i) for i in range(2)])
    together = objective_loss(model, tokens, None, whole, noise)
    single = []
    for t in range(N):
        index = torch.tensor([t])
        part = Supervision(whole.token_order, index.unsqueeze(0), whole.targets[:, index], whole.weights[:, index] * N)
        single.append(objective_loss(model, tokens, None, part, noise))
    assert torch.allclose(together, torch.stack(single).mean(0), rtol=1e-4)


@torch.no_grad()
def test_the_likelihood_of_a_flow_is_a_density(make_model: Make) -> None:
    """The chain rule over cells, each a one-dimensional density that integrates to one."""
    from heptapod.grid import GridSpec

    model = make_model("cross", GridSpec(1, 2, channels=1))
    axis = torch.linspace(-6, 6, 31)
    images = torch.cartesian_prod(axis, axis).unsqueeze(-1)  # (31², 2, 1)
    nll = negative_log_likelihood(model, images, None, "random", numbers=torch.zeros(len(images)).long())
    mass = float((-2 * nll.double()).exp().sum() * (axis[1] - axis[0]) ** 2)
    assert abs(mass - 1) < 0.02


@torch.no_grad()
def test_held_out_loss_does_not_depend_on_the_batch(make_model: Make) -> None:
    model, tokens = make_model("cross", VECTORS), tokens_of(5)
    together = next_cell_loss(model, tokens, None, "random")
    assert torch.allclose(together, next_cell_loss(model, tokens, None, "random", batch_size=2), atol=1e-5)
    order = draw_token_order("random", N, KeyedGenerator(Stream.EVALUATION, [(0, i) for i in range(5)]))
    assert order.shape == (5, N)
