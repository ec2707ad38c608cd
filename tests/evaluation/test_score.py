from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from heptapod.evaluation.score import classifier_score


def logits(num: int, classes: int = 7) -> Tensor:
    return torch.randn(num, classes, generator=torch.Generator().manual_seed(0)) * 2


class Identity(nn.Module):
    """Logits as they are, in place of Inception."""

    num_features = 7

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :7].float() / 40


def test_equals_torchmetrics() -> None:
    module = pytest.importorskip("torchmetrics.image.inception")
    images = torch.randint(0, 256, (300, 3, 2, 2), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    metric = module.InceptionScore(feature=Identity(), splits=1)
    metric.update(images)
    ours = classifier_score(Identity()(images), splits=1)
    assert ours.mean == pytest.approx(float(metric.compute()[0]), rel=1e-5)
    assert ours.mean > 1.2
    assert ours.std == 0


def test_known_scores() -> None:
    sure = torch.eye(4).repeat(10, 1) * 1000
    assert classifier_score(sure, splits=1).mean == pytest.approx(4)
    assert classifier_score(logits(1).repeat(20, 1)).mean == pytest.approx(1)
    half = torch.tensor([[0.0, 0, -1000], [0, -1000, -1000]])
    mean_p = [0.75, 0.25]
    divergence = (math.log(0.5 / 0.75) + math.log(0.5 / 0.25)) / 4 + math.log(1 / mean_p[0]) / 2
    assert classifier_score(half, splits=1).mean == pytest.approx(math.exp(divergence))


def test_splits() -> None:
    """Mean and spread over parts of any order; sorting images by class, as a folder does, changes nothing much."""
    x = logits(103)
    scores = classifier_score(x, splits=5, seed=1)
    assert scores == classifier_score(x, splits=5, seed=1)
    assert scores != classifier_score(x, splits=5, seed=2)
    single = classifier_score(x, splits=103)  # one image per split: no divergence
    assert (single.mean, single.std) == pytest.approx((1, 0), abs=1e-12)
    sure = torch.eye(5).repeat_interleave(40, 0) * 1000
    assert classifier_score(sure).mean > 4


def test_errors() -> None:
    with pytest.raises(ValueError, match="splits: 10 given, must lie between 1 and the number of images, 9"):
        classifier_score(logits(9))
    with pytest.raises(ValueError, match="finite logits"):
        classifier_score(torch.full((20, 3), float("inf")))
    with pytest.raises(ValueError, match="finite logits"):
        classifier_score(torch.zeros(20))
