from __future__ import annotations

import pytest
import torch

from heptapod.distributions import Categorical, CellSampling
from heptapod.utils.random import KeyedGenerator, Stream


class Fixed(Categorical):
    """Given logits instead of learned ones."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__(1, len(logits))
        with torch.no_grad():
            self.logits.weight.copy_(torch.tensor(logits).unsqueeze(1))
            self.logits.bias.zero_()


def frequencies(sampling: CellSampling, count: int = 20_000) -> torch.Tensor:
    distribution = Fixed([0.0, 1.0, 2.0, -1.0])
    generator = KeyedGenerator(Stream.SAMPLE, [(0,)])
    drawn = distribution.sample(torch.ones(1, count, 1), generator, sampling)
    return torch.bincount(drawn.flatten(), minlength=4) / count


LOGITS = torch.tensor([0.0, 1.0, 2.0, -1.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature(temperature: float) -> None:
    assert torch.allclose(frequencies(CellSampling(temperature)), (LOGITS / temperature).softmax(0), atol=0.012)


def test_zero_temperature_takes_the_most_likely() -> None:
    assert frequencies(CellSampling(0.0)).tolist() == [0, 0, 1, 0]


def test_top_k() -> None:
    expected = torch.tensor([-torch.inf, 1.0, 2.0, -torch.inf]).softmax(0)
    assert torch.allclose(frequencies(CellSampling(top_k=2)), expected, atol=0.012)
    assert torch.allclose(frequencies(CellSampling(top_k=99)), LOGITS.softmax(0), atol=0.012)


def test_top_p_keeps_the_smallest_set_that_suffices() -> None:
    p = LOGITS.softmax(0)  # 0.087, 0.237, 0.644, 0.032
    assert frequencies(CellSampling(top_p=0.5)).tolist() == [0, 0, 1, 0]
    two = torch.tensor([0, p[1], p[2], 0]) / (p[1] + p[2])
    assert torch.allclose(frequencies(CellSampling(top_p=0.7)), two, atol=0.012)
    assert frequencies(CellSampling(top_p=0.95))[3] == 0
    assert torch.allclose(frequencies(CellSampling(top_p=1.0)), p, atol=0.012)


def test_log_prob_and_belief() -> None:
    distribution = Fixed(LOGITS.tolist())
    features = torch.ones(1, 4, 1)
    log_p = distribution.log_prob(features, torch.arange(4).unsqueeze(0))
    assert torch.allclose(log_p[0], LOGITS.log_softmax(0), atol=1e-6)
    value, entropy = distribution.belief(features, KeyedGenerator(Stream.BELIEF, [(0, 0)]), CellSampling())
    assert (value == 2).all()
    assert torch.allclose(entropy, torch.distributions.Categorical(logits=LOGITS).entropy().expand(1, 4), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature: -0.1 given"),
        ({"temperature": float("nan")}, "temperature: nan given"),
        ({"top_k": 0}, "top_k: 0 given"),
        ({"top_p": 0.0}, "top_p: 0.0 given"),
        ({"top_p": 1.1}, "top_p: 1.1 given"),
    ],
)
def test_refusals(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CellSampling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("half", ["autocast", "weights"])
def test_half_precision_rounds_no_logits(half: str) -> None:
    """The product is added up in float32 and stays so: a loss of near-equal codes has no steps of 2^-8."""
    generator = torch.Generator().manual_seed(0)
    distribution = Categorical(64, 32)
    with torch.no_grad():
        distribution.logits.weight.normal_(generator=generator)
    features = torch.randn(2, 3, 5, 64, generator=generator, requires_grad=True)
    if half == "weights":
        distribution.to(torch.bfloat16)
    weight, bias = (p.detach().float() for p in (distribution.logits.weight, distribution.logits.bias))
    exact = torch.nn.functional.linear(features, weight, bias)
    with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
        logits = distribution.float32_logits(features)
        rounded = distribution.logits(features).float()
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact, atol=1e-5, rtol=1e-5)
    assert (rounded - exact).abs().max() > 1e-2, "as it was"
    targets = torch.randint(32, (2, 3, 5), generator=generator)
    (expected,) = torch.autograd.grad(
        torch.nn.functional.cross_entropy(exact.flatten(0, 2), targets.flatten()), features
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
        loss = distribution.loss(features, targets).mean()
    loss.backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, expected, atol=2e-3, rtol=2e-2)
    assert distribution.logits.weight.grad is not None
    assert distribution.logits.weight.grad.dtype == distribution.logits.weight.dtype
