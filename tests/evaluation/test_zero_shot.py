"""Zero-shot classification against Bayes' rule on the enumerated joint distribution of an untrained model."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heptapod.distributions import flow
from heptapod.evaluation.zero_shot import score_answers, zero_shot
from heptapod.grid import GridSpec
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeptapodModel
from tests.conftest import GRID, HEADS
from tests.test_likelihood import SMALL, every_grid

Make = Callable[..., HeptapodModel]


def step_by_step(model: HeptapodModel, x: Tensor, label: int) -> Tensor:
    """p(x | c) in raster order from the model's own conditionals, without the objective or the evaluation."""
    labels, cells = torch.full((len(x),), label), torch.arange(x.shape[1]).expand(len(x), -1)
    p = torch.ones(len(x), dtype=torch.float64)
    for t in range(x.shape[1]):
        states = model.read(x[:, :t], cells[:, :t], labels)
        conditional = model.distribution.logits(model.predict(states, cells[:, t : t + 1])).squeeze(1).softmax(-1)
        p *= conditional.gather(1, x[:, t : t + 1]).squeeze(1).double()
    return p


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_posterior_is_bayes_rule(make_model: Make, head: str) -> None:
    model, x = make_model(head, SMALL), every_grid()
    joint = torch.stack([step_by_step(model, x, c) for c in range(3)], 1) / 3  # p(x, c), all 81 · 3
    assert float(joint.sum()) == pytest.approx(1, abs=1e-5)
    exact = joint / joint.sum(1, keepdim=True)
    log_p = zero_shot(model, x)
    assert torch.allclose(log_p.exp() / 3, joint, rtol=1e-4)
    assert torch.allclose(log_p.softmax(1), exact, atol=1e-5)
    assert exact.std(0).min() > 0.01, "classes differ, so that something was tested"
    two = zero_shot(model, x, [2, 0])
    assert torch.allclose(two, log_p[:, [2, 0]], atol=1e-5)


@pytest.mark.parametrize(("order", "orders"), [("raster", 1), ("random", 1), ("random", 3), ("mixed", 2)])
def test_is_the_likelihood_under_every_class(make_model: Make, order: str, orders: int) -> None:
    """With the orders of each image number, whatever the batch."""
    model = make_model("cross")
    x = torch.randint(7, (5, GRID.num_cells), generator=torch.Generator().manual_seed(0))
    numbers = torch.tensor([4, 0, 7, 1, 2])
    for batch_size in (1, 4, 15):
        found = zero_shot(model, x, None, order, orders, batch_size, numbers, seed=3)  # type: ignore[arg-type]
        for c in range(3):
            nats = negative_log_likelihood(
                model, x, torch.full((5,), c), order, numbers=numbers, orders=orders, seed=3  # type: ignore[arg-type]
            )  # fmt: skip
            assert torch.allclose(found[:, c], -nats.double() * GRID.num_cells, atol=1e-3)


def test_estimated_likelihoods_share_their_noise(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes whose conditions are equal are equally likely, also where a flow's divergence is an estimate."""
    monkeypatch.setattr(flow, "EXACT_CHANNELS", 2)
    monkeypatch.setattr(flow, "PROBES", 1)
    monkeypatch.setattr(flow, "LIKELIHOOD_STEPS", 4)
    model = make_model("cross", GridSpec(2, 2, channels=3))
    x = torch.randn(4, 4, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.condition_embedding.weight[2] = model.condition_embedding.weight[0]
    log_p = zero_shot(model, x, token_order="random", batch_size=5)
    assert torch.allclose(log_p[:, 0], log_p[:, 2], atol=1e-4)
    assert (log_p[:, 0] - log_p[:, 1]).abs().min() > 1e-3
    other = zero_shot(model, x, token_order="random", seed=1)
    assert (log_p[:, 0] - other[:, 0]).abs().min() > 1e-3, "the noise matters"


def test_classes_that_cannot_be_chosen_among(make_model: Make) -> None:
    x = torch.zeros(1, GRID.num_cells, dtype=torch.long)
    for classes in ([], [0, 0], [3], [-1]):
        with pytest.raises(ValueError, match=r"classes: .* given, must be different numbers between 0 and 2"):
            zero_shot(make_model("cross"), x, classes)
    with pytest.raises(ValueError, match="trained without classes"):
        zero_shot(make_model("cross", num_classes=0), x)
    vectors = make_model("cross", GridSpec(4, 5, channels=3), distribution="diffusion")
    with pytest.raises(ValueError, match="DiffusionDistribution has no likelihood"):
        zero_shot(vectors, torch.zeros(1, 20, 3))


def test_judgment() -> None:
    """Four images of two classes with posteriors 0.93, 0.6, 0.7 and 0.85 for their answers; the last one is wrong."""
    p = torch.tensor([[0.93, 0.07], [0.6, 0.4], [0.3, 0.7], [0.85, 0.15]], dtype=torch.float64)
    found = score_answers(p.log() - 1000, torch.tensor([0, 0, 1, 1]))
    assert found.confusion.tolist() == [[2, 0], [1, 1]]
    assert (found.accuracy, found.chance, found.class_accuracy) == (0.75, 0.5, [1.0, 0.5])
    assert found.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert found.negative_log_posterior == pytest.approx(-math.log(0.93 * 0.6 * 0.7 * 0.15) / 4)
    assert found.calibration_error == pytest.approx((0.07 + 0.4 + 0.3 + 0.85) / 4)


def test_calibration_is_a_gap_of_means_within_a_bin() -> None:
    """Ten images answered with 0.75, of which seven or eight are right: nearly calibrated."""
    log_p = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log().repeat(10, 1)
    for right, gap in ((7, 0.05), (8, 0.05), (10, 0.25)):
        found = score_answers(log_p, (torch.arange(10) >= right).long())
        assert found.calibration_error == pytest.approx(gap)
        assert found.accuracy == right / 10
    certain = score_answers(torch.tensor([[0.0, -1e4]]), torch.tensor([0]))
    assert (certain.calibration_error, certain.negative_log_posterior, certain.class_accuracy) == (0, 0, [1.0, None])
    with pytest.raises(ValueError, match="truth"):
        score_answers(log_p, torch.full((10,), 2))
