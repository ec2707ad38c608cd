"""The proof that next-2D prediction learns what it says: likelihood and marginals against enumeration."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.evaluation.zero_shot import zero_shot
from heptapod.grid import GridSpec
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.objective import draw_token_order
from heptapod.training.config import TrainConfig
from heptapod.utils.random import KeyedGenerator, Stream
from tests.invariants.fit import fit
from tests.invariants.ising import Ising, N

BATCH = 128
DENSITY = {"cross": ("all", 4), "global": (4, "all")}
STEPS = {"cross": 650, "global": 650}


def train(kind: str, truth: Ising) -> HeptapodModel:
    model = build_model(ModelConfig(width=64, depth=2, num_heads=2, head=HeadConfig(kind, 2)), GridSpec(4, 4, 2), 2, 0)
    objective = ObjectiveConfig("random", *DENSITY[kind], label_dropout=0.0)
    config = TrainConfig(steps=STEPS[kind], batch_size=BATCH, learning_rate=5e-3, ema_decay=0.99)
    generator = torch.Generator().manual_seed(1)
    return fit(model, objective, config, lambda count: truth.sample(count, generator)[::2])


def marginal_kl(model: HeptapodModel, truth: Ising, per_length: int) -> float:
    """Mean KL (true marginal || prediction) over random prefixes of every length and all their unread cells."""
    total, count = 0.0, 0
    for t in range(N):
        labels, _, states = truth.sample(per_length, torch.Generator().manual_seed(100 + t))
        keys = [(7, t, i) for i in range(per_length)]
        order = draw_token_order("random", N, KeyedGenerator(Stream.EVALUATION, keys))
        with torch.no_grad():
            read = model.read(states.gather(1, order[:, :t]), order[:, :t], labels)
            features = model.predict(read, order[:, t:])
            predicted = model.distribution.logits(features).log_softmax(-1).double()
        for row in range(per_length):
            exact = truth.marginals(int(labels[row]), states[row], order[row, :t])[order[row, t:]]
            p = torch.stack([1 - exact, exact], -1).clamp(min=1e-12)
            total += float((p * (p.log() - predicted[row])).sum())
            count += N - t
    return total / count


def check_normalized(log_ratio: Tensor) -> None:
    """Σ_x p_model(x) = 1: over states drawn from the truth the mean of p_model / p is that sum."""
    ratio = log_ratio.exp()
    error = float(ratio.std()) / len(ratio) ** 0.5
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1) <= 3 * error


def check_zero_shot(model: HeptapodModel, truth: Ising, numbers: Tensor) -> float:
    """The posterior of the two classes is the exact one: the mean KL (exact || model), in nats."""
    exact = truth.log_p[:, numbers].T.log_softmax(1)
    found = zero_shot(model, truth.states[numbers], token_order="random", batch_size=512).log_softmax(1)
    agree = (found.argmax(1) == exact.argmax(1)) | ((exact[:, 0] - exact[:, 1]).abs() < 0.5)  # a toss-up may differ
    print(f"zero-shot: {float(agree.double().mean()):.4f} agree with the exact posterior's answer")
    assert agree.double().mean() >= 0.95
    return float((exact.exp() * (exact - found)).sum(1).mean())


@pytest.mark.parametrize("kind", ["cross", "global"])
def test_learns_the_exact_distribution(kind: str) -> None:
    truth = Ising()
    model = train(kind, truth)
    labels, numbers, states = truth.sample(4096, torch.Generator().manual_seed(2))
    nll = negative_log_likelihood(model, states, labels, "random", batch_size=512).double() * N
    log_ratio = -nll - truth.log_p[labels, numbers]
    excess = -float(log_ratio.mean())  # KL(p || model), of low variance
    entropy = truth.entropy()
    kl = marginal_kl(model, truth, per_length=24)
    check_normalized(log_ratio)
    posterior_kl = check_zero_shot(model, truth, numbers[:512])
    print(f"{kind}: posterior KL {posterior_kl:.5f}, mean of p_model / p {float(log_ratio.exp().mean()):.5f}")
    print(f"{kind}: entropy {entropy:.4f} nats, model {entropy + excess:.4f}, marginal KL {kl:.5f}")
    assert excess > -0.02, "a model cannot be better than the truth"
    assert excess / entropy <= 0.02
    assert kl <= 0.02
    assert posterior_kl <= 0.04


def test_enumeration_agrees_with_itself() -> None:
    truth = Ising()
    assert torch.allclose(truth.p.sum(1), torch.ones(2, dtype=torch.float64))
    labels, _, states = truth.sample(20_000, torch.Generator().manual_seed(3))
    for c in range(2):
        exact = truth.marginals(c, states[0], torch.tensor([], dtype=torch.long))
        assert torch.allclose(states[labels == c].double().mean(0), exact, atol=0.03)
