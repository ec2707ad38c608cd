"""Diffusion and flow against mixtures whose density is known, and against their own algebra."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heptapod.distributions import CellDistribution, CellSampling, DistributionConfig, build_distribution
from heptapod.distributions.diffusion import (
    MAX_LEVEL,
    NUM_LEVELS,
    Backwards,
    cosine_signal,
    respaced_levels,
    solver_levels,
)
from heptapod.distributions.flow import FlowDistribution
from heptapod.utils.random import KeyedGenerator, Stream, seeded_initialization
from tests.distributions.mixture import CONDITIONS, FEATURES, Mixture

CELLS = 12
BATCH = 64
STEPS = 1500
DRAWS = 8192


def build(kind: str, channels: int, modulation: str = "separable", width: int = 128) -> CellDistribution:
    with seeded_initialization(0):
        config = DistributionConfig(kind, 3, width, modulation, 4)  # type: ignore[arg-type]
        return build_distribution(config, FEATURES, channels=channels)


def train(distribution: CellDistribution, truth: Mixture, steps: int, batch: int) -> CellDistribution:
    """AdamW on fresh samples, a cosine to zero; the average of the weights is returned."""
    learning_rate = 3e-3
    average = copy.deepcopy(distribution)
    optimizer = torch.optim.AdamW(distribution.parameters(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        conditions = torch.randint(CONDITIONS, (batch, CELLS), generator=generator)
        noise = KeyedGenerator(Stream.LOSS, [(0, step, i) for i in range(batch)])
        loss = distribution.loss(truth.features[conditions], truth.sample(conditions, generator), noise).mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        nn.utils.clip_grad_norm_(distribution.parameters(), 1.0)
        optimizer.step()
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), distribution.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
    return average


@pytest.mark.parametrize("channels", [2, 16])
@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_learns_a_mixture(kind: str, channels: int) -> None:
    """Every condition: samples by the default solver are at most 1.5 times as far from the truth as 2,048 true ones.

    Distance is energy distance. That of the distribution that is sampled is estimated without bias; that of a set of
    2,048 true samples to another one is 2 E|y − y'| / 2,048 more.
    """
    truth = Mixture(channels)
    distribution = train(build(kind, channels), truth, STEPS, BATCH)
    found = {}
    for condition in range(CONDITIONS):
        features = truth.features[condition].expand(4, DRAWS // 4, -1)
        with torch.inference_mode():
            drawn = distribution.sample(
                features, KeyedGenerator(Stream.SAMPLE, [(i,) for i in range(4)]), CellSampling()
            )
        floor = 2 * truth.own_distance(condition) / 2048
        found[condition] = 1 + truth.energy_distance(condition, drawn.flatten(0, 1)) / floor
    print(f"{kind}, R^{channels}: {', '.join(f'{times:.2f}' for times in found.values())} times")
    assert max(found.values()) <= 1.5
    if isinstance(distribution, FlowDistribution):
        conditions = torch.randint(CONDITIONS, (500,), generator=torch.Generator().manual_seed(2))
        x = truth.sample(conditions, torch.Generator().manual_seed(3))
        found = distribution.log_prob(truth.features[conditions], x)
        missing = float((truth.log_prob(conditions, x) - found).mean()) / channels
        print(f"flow, R^{channels}: log-density {missing:.4f} nats per dimension too low")
        assert abs(missing) <= 0.03


def randomized(distribution: CellDistribution, scale: float = 0.3) -> CellDistribution:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in distribution.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale / parameter.shape[1] ** 0.5)
        # Smooth in the noise level, as trained networks are: without the sines of high frequency.
        distribution.mlp.level[0].weight.view(-1, 2, 128)[..., :80] = 0  # type: ignore[union-attr, index, operator]
    return distribution


@pytest.mark.parametrize("modulation", ["joint", "separable"])
def test_log_prob_is_that_of_the_map(modulation: str) -> None:
    """log p(T(ε)) = log N(ε) − log|det ∂T/∂ε| where T is the flow's own fine solution, its Jacobian by autograd."""
    flow = randomized(build("flow", 3, modulation, 32))
    assert isinstance(flow, FlowDistribution)
    feature = torch.randn(1, 1, FEATURES, generator=torch.Generator().manual_seed(1))
    sampling = CellSampling(cell_solver="heun", cell_steps=60)
    condition, schedule = flow.mlp.of_features(feature.flatten(0, 1)), flow.schedule(sampling)

    def draw(noise: Tensor) -> Tensor:
        return flow._draw(noise.view(1, 1, 3), condition, schedule, sampling).flatten()

    noise = torch.tensor([0.3, -1.1, 0.7])
    with torch.no_grad():
        jacobian = torch.func.jacfwd(draw)(noise)
        x = draw(noise)
    expected = -(noise.square().sum() + 3 * math.log(2 * math.pi)) / 2 - torch.linalg.slogdet(jacobian).logabsdet
    assert abs(float(flow.log_prob(feature, x.view(1, 1, 3))) - float(expected)) < 1e-3


def test_hutchinson_estimates_the_same_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = randomized(build("flow", 40, width=32), 0.6)
    x = torch.randn(4, 16, 40, generator=torch.Generator().manual_seed(2))
    features = torch.randn(4, 16, FEATURES, generator=torch.Generator().manual_seed(3))
    with pytest.raises(ValueError, match="likelihood of 40 channels is an estimate"):
        flow.log_prob(features, x)

    def estimate(rows: slice) -> Tensor:
        return flow.log_prob(features[rows], x[rows], KeyedGenerator(Stream.EVALUATION, [(i,) for i in range(4)[rows]]))

    found = estimate(slice(0, 4))
    assert torch.allclose(found[2:], estimate(slice(2, 4)), atol=1e-3), "whatever the batch"
    monkeypatch.setattr("heptapod.distributions.flow.EXACT_CHANNELS", 40)
    exact = flow.log_prob(features, x)
    assert not torch.equal(found, exact)
    assert float((found - exact).mean().abs()) < 3 * float((found - exact).std()) / 8  # 64 independent cells


def test_the_bound_is_the_divergence_of_two_normals() -> None:
    """Against the posterior q(x_s | x_t, x) of a Gaussian chain, conditioned by the general formula."""
    signal, before = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    clean, noise = torch.tensor([0.7, -1.2]), torch.tensor([0.4, 1.5])
    step = Backwards(signal, before, torch.device("cpu"))
    noisy = step.root_signal * clean + step.root_noise * noise
    # x_s = √0.5 x + √0.5 e, x_t = √α x_s + √(1−α) e': given x, a pair of normals.
    alpha = signal / before
    gain = alpha.sqrt() * (1 - before) / (alpha * (1 - before) + 1 - alpha)
    mean = before.sqrt() * clean + gain * (noisy - signal.sqrt() * clean)
    variance = (1 - before) - gain * alpha.sqrt() * (1 - before)
    true = torch.distributions.Normal(mean, variance.sqrt().expand(2))
    assert torch.allclose(step.mean(noisy, noise), mean.float(), atol=1e-6), "the true noise gives the true mean"
    guess, interpolation = torch.tensor([0.1, 1.0]), torch.tensor([-0.5, 0.8])
    share = (interpolation.double() + 1) / 2
    spread = (share * (1 - alpha).log() + (1 - share) * variance.log()).div(2).exp()
    expected = torch.distributions.kl_divergence(true, torch.distributions.Normal(step.mean(noisy, guess), spread))
    assert torch.allclose(step.bound(clean, noisy, guess, interpolation).double(), expected.double(), atol=1e-5)
    last = Backwards(signal, torch.ones_like(signal), torch.device("cpu"))
    assert (last.bound(clean, noisy, guess, interpolation) == 0).all()


def test_levels_of_sampling() -> None:
    assert respaced_levels(1) == [MAX_LEVEL]
    for steps in (2, 4, 50, 100, MAX_LEVEL + 1):
        levels = respaced_levels(steps)
        assert len(set(levels)) == steps
        assert (levels[0], levels[-1]) == (MAX_LEVEL, 0)
        assert levels == sorted(levels, reverse=True)
    for steps in (1, 2, 8, 12, 100, MAX_LEVEL + 1):
        levels = solver_levels(CellSampling(cell_solver="multistep", cell_steps=steps))
        assert len(levels) == steps
        assert all(MAX_LEVEL >= a > b >= 0 for a, b in zip(levels, levels[1:], strict=False))
    signal = cosine_signal(NUM_LEVELS)
    assert (np.diff(signal) < 0).all()
    assert 0.99 < signal[0] < 1
    assert signal[MAX_LEVEL] > 1e-4


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_loss(kind: str) -> None:
    """Keyed noise, several levels per cell, any shape of cells; the first loss is that of knowing nothing."""
    distribution = build(kind, 3)
    features = torch.randn(2, 5, 4, FEATURES, generator=torch.Generator().manual_seed(0))
    targets = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(1))

    def loss(*keys: int) -> Tensor:
        return distribution.loss(features, targets, KeyedGenerator(Stream.LOSS, [(key,) for key in keys]))

    together = loss(1, 2)
    assert together.shape == (2, 5, 4)
    assert together.dtype == torch.float32
    assert torch.equal(together, loss(1, 2))
    assert torch.allclose(
        together[1:], distribution.loss(features[1:], targets[1:], KeyedGenerator(Stream.LOSS, [(2,)]))
    )
    assert not torch.equal(together, loss(1, 3))
    # Knowing nothing: E|ε − x|² = 2 for a flow, E|ε|² = 1 and a little for the variance in diffusion.
    assert (1.4 if kind == "flow" else 0.8) < float(together.detach().median()) < (2.6 if kind == "flow" else 1.6)
    with pytest.raises(ValueError, match="draws noise"):
        distribution.loss(features, targets)
    with pytest.raises(ValueError, match="continuous tokens of 3 channels"):
        distribution.loss(features, targets[..., :2], KeyedGenerator(Stream.LOSS, [(1,), (2,)]))
    with pytest.raises(ValueError, match="continuous tokens of 3 channels"):
        distribution.loss(features, targets.long(), KeyedGenerator(Stream.LOSS, [(1,), (2,)]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(loss(1, 2), together, rtol=0.05, atol=0.02)


def test_plans_and_refusals() -> None:
    flow, diffusion = build("flow", 2), build("diffusion", 2)
    for distribution in (flow, diffusion):
        default, fast = distribution.plan(CellSampling()), distribution.plan(CellSampling(preset="fast"))
        assert default.cell_steps is not None
        assert fast.cell_steps is not None
        assert fast.cell_steps < default.cell_steps
        assert distribution.plan(CellSampling(cell_steps=3)).cell_steps == 3
        for wrong in (CellSampling(top_k=3), CellSampling(top_p=0.5)):
            with pytest.raises(ValueError, match="this model samples continuous tokens, not codes"):
                distribution.plan(wrong)
    with pytest.raises(ValueError, match="ddim given, but a FlowDistribution is drawn by multistep, euler or heun"):
        flow.plan(CellSampling(cell_solver="ddim"))
    with pytest.raises(ValueError, match="cell_steps: 5000 given, must be at most"):
        diffusion.plan(CellSampling(cell_steps=5000))
    with pytest.raises(ValueError, match="cell_steps: 0 given, must be at least 1"):
        CellSampling(cell_steps=0)
    with pytest.raises(ValueError, match="DiffusionDistribution has no likelihood"):
        diffusion.log_prob(torch.zeros(1, FEATURES), torch.zeros(1, 2))
    codes = build_distribution(DistributionConfig(), FEATURES, vocabulary_size=5)
    for sampling in (CellSampling(cell_steps=3), CellSampling(cell_solver="heun"), CellSampling(preset="fast")):
        with pytest.raises(ValueError, match="this model samples codes"):
            codes.plan(sampling)


def test_the_energy_distance_of_mixtures() -> None:
    """In closed form as by samples; unbiased, and it sees a spread that is 5% too small."""
    truth, size = Mixture(3), 2000
    errors = []
    for condition in range(CONDITIONS):
        conditions = torch.full((size,), condition)
        true = [truth.sample(conditions, torch.Generator().manual_seed(i)) for i in range(4)]
        floor = 2 * truth.own_distance(condition) / size
        found = [truth.energy_distance(condition, x) for x in true]
        errors += [distance / floor for distance in found]
        apart = torch.cdist(true[0], true[1]).mean()
        assert abs(truth.own_distance(condition) / float(apart) - 1) < 0.03
        by_samples = 2 * apart - torch.pdist(true[0]).mean() - torch.pdist(true[1]).mean()
        assert abs(found[0] + found[1] - float(by_samples)) < 2 * floor, "both estimate 0"
        mean = true[0].mean(0)
        narrow = [truth.energy_distance(condition, mean + share * (true[0] - mean)) for share in (0.95, 0.9)]
        assert narrow[1] > found[0] + floor
        assert narrow[1] > narrow[0]
    assert abs(float(np.mean(errors))) < 0.5


def test_kinds_must_go_together() -> None:
    with pytest.raises(ValueError, match="categorical given, but the tokenizer's tokens are continuous with 8"):
        build_distribution(DistributionConfig(), FEATURES, channels=8)
    with pytest.raises(ValueError, match="flow given, but the tokenizer's tokens are 256 codes: use categorical"):
        build_distribution(DistributionConfig("flow", 2, 16), FEATURES, vocabulary_size=256)
    for name in ("mlp_depth", "mlp_width"):
        with pytest.raises(ValueError, match=f"{name}: -1 given"):
            DistributionConfig("flow", **{name: -1})
    with pytest.raises(ValueError, match="modulation: joint given, but a categorical distribution has no MLP"):
        DistributionConfig(modulation="joint")
