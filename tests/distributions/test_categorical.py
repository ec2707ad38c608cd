from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heptapod.distributions import Categorical, CellSampling, cross_entropy
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


@pytest.mark.parametrize("precision", ["float64", "float32", "autocast", "weights"])
def test_the_cross_entropy_in_chunks_is_that_of_all_logits(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    """The same values and gradients, with at most four rows of logits at once (the last chunk has one)."""
    generator = torch.Generator().manual_seed(0)
    distribution = Categorical(16, 24).double()
    with torch.no_grad():
        distribution.logits.weight.normal_(generator=generator)
        distribution.logits.bias.normal_(generator=generator)
    features = torch.randn(3, 7, 16, generator=generator, dtype=torch.float64)
    targets = torch.randint(24, (3, 7), generator=generator)
    slopes = torch.rand(3, 7, generator=generator)
    kind = {"float64": torch.float64, "weights": torch.bfloat16}.get(precision, torch.float32)
    results = []
    for at_once in (4 * 24 + 1, cross_entropy.LOGITS_AT_ONCE):
        monkeypatch.setattr(cross_entropy, "LOGITS_AT_ONCE", at_once)
        copied = copy.deepcopy(distribution).to(kind)
        inputs = (features.to(kind).requires_grad_(), copied.logits.weight, copied.logits.bias)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            nats = copied.loss(inputs[0], targets)
        assert nats.shape == targets.shape
        assert nats.dtype == torch.float32
        results.append((nats.detach(), *torch.autograd.grad(nats, inputs, slopes)))
    bound = {"float64": 1e-6, "float32": 1e-5}.get(precision, 2e-2)
    for got, expected in zip(*results, strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=bound, atol=bound)
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-6)


def test_many_logits_never_exist_at_once() -> None:
    """4,096 cells of 16,384 codes: 256 MiB of logits in float32, of which chunks hold 64 MiB."""
    distribution = Categorical(32, 16_384)
    features = torch.zeros(4_096, 32, requires_grad=True)
    largest: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            largest.extend(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
            return out

    with FakeTensorMode(allow_non_fake_inputs=True), Sizes():
        distribution.loss(features, torch.zeros(4_096, dtype=torch.int64)).sum().backward()
    assert max(largest) == cross_entropy.LOGITS_AT_ONCE
