"""Probes: the neighbors against brute force, the linear one against what is known of the data."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from heptapod.evaluation.probe import (
    BLOCK,
    Accuracy,
    best_layer,
    check_probe_labels,
    knn_predictions,
    linear_predictions,
    probe,
    probe_layers,
    standardized,
)
from heptapod.evaluation.probe_picture import probe_picture

pytest.importorskip("sklearn")


def blobs(count: int, seed: int, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Three classes around the corners of a triangle, in 8 dimensions of which 6 say nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    corners = torch.tensor([[0.0, 2.0], [-2.0, -1.0], [2.0, -1.0]])
    features = torch.randn(count, 8, generator=generator) * spread
    features[:, :2] += corners[labels]
    return features * torch.arange(1, 9) ** 3 + 100, labels  # scales that only standardizing can undo


def test_neighbors_are_those_of_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(60, 5, generator=generator), torch.randn(BLOCK + 30, 5, generator=generator)
    labels = torch.randint(4, (60,), generator=generator)
    found = knn_predictions(train, labels, test, neighbors=7)
    for image in [*range(20), BLOCK - 1, BLOCK, BLOCK + 29]:
        cosine = [float(torch.cosine_similarity(test[image], one, dim=0)) for one in train]
        votes = [0.0] * 4
        for index in sorted(range(60), key=lambda i: -cosine[i])[:7]:
            votes[int(labels[index])] += math.exp(cosine[index] / 0.07)
        assert int(found[image]) == votes.index(max(votes))
    with pytest.raises(ValueError, match="neighbors: 61 given, must lie between 1 and .* 60"):
        knn_predictions(train, labels, test, neighbors=61)


def test_near_neighbors_outvote_far_ones() -> None:
    train = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    labels = torch.tensor([0, 1, 1])
    assert int(knn_predictions(train, labels, torch.tensor([[2.0, 0.0]]), neighbors=3)) == 0
    assert int(knn_predictions(train, labels, torch.tensor([[0.9, 0.45]]), neighbors=3)) == 1


def test_separable_classes_are_told_apart_and_shuffled_labels_are_not() -> None:
    (train, labels), (test, test_labels) = blobs(300, 0), blobs(150, 1)
    result = probe(train, labels, test, test_labels)
    assert result.linear > 0.97
    assert result.knn > 0.93
    assert result.linear_selection > 0.95
    assert result.num_features == 8
    assert result.converged
    mixed = labels[torch.randperm(300, generator=torch.Generator().manual_seed(2))]
    chance = probe(train, mixed, test, test_labels)
    assert abs(chance.linear - 1 / 3) < 0.15
    assert abs(chance.knn - 1 / 3) < 0.15
    assert abs(chance.linear_selection - 1 / 3) < 0.2, "nor by the choice of the strength"


def test_test_images_have_no_say() -> None:
    """What is chosen, and how the training images held out are told, depends on the training images only."""
    (train, labels), (test, test_labels) = blobs(100, 0, 2.0), blobs(60, 1, 2.0)
    one, other = probe(train, labels, test, test_labels), probe(train, labels, test * 3 - 7, test_labels.flip(0))
    for name in ("strength", "linear_selection", "knn_selection"):
        assert getattr(one, name) == getattr(other, name)
    assert one.linear != other.linear


def test_a_probe_is_repeatable_and_its_seed_splits() -> None:
    (train, labels), (test, test_labels) = blobs(100, 0, 2.0), blobs(60, 1, 2.0)
    assert probe(train, labels, test, test_labels) == probe(train, labels, test, test_labels)
    others = [probe(train, labels, test, test_labels, seed) for seed in range(3)]
    assert len({result.linear_selection for result in others}) > 1
    assert len({result.knn for result in others}) == 1


def test_linear_probe_is_logistic_regression() -> None:
    """At the optimum the gradient of the penalized likelihood vanishes: checked by the classes it puts on a line."""
    x = torch.tensor([[-1.0], [1.0], [-1.0], [1.0], [1.0]])
    y = torch.tensor([0, 1, 1, 0, 1])
    grid = torch.linspace(-3, 3, 61)[:, None]
    predicted, converged = linear_predictions(x, y, grid, [1e6])[0]
    # Empirical odds: 1:1 at -1, 2:1 at 1, so the two classes are equal at -1 and class 1 is likelier to its right.
    assert converged
    assert predicted[grid[:, 0] > -0.95].eq(1).all()
    assert predicted[grid[:, 0] < -1.05].eq(0).all()


def test_standardized() -> None:
    train, _ = blobs(50, 0)
    train[:, 3] = 0.1
    one, other = standardized(train, train, train * 2)
    varying = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(one[:, varying].mean(0), torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(one[:, varying].std(0, correction=0), torch.ones(7, dtype=torch.float64))
    assert not one[:, 3].any()
    assert not other[:, 3].any(), "a feature that never varied in training says nothing"


def test_layers_and_the_best_of_them() -> None:
    (train, labels), (test, test_labels) = blobs(100, 0), blobs(60, 1)
    noise = torch.randn(160, 8, generator=torch.Generator().manual_seed(3))
    results = probe_layers(
        {"noise": noise[:100], "blobs": train}, labels, {"noise": noise[100:], "blobs": test}, test_labels
    )
    assert list(results) == ["noise", "blobs"]
    assert results["blobs"] == probe(train, labels, test, test_labels)
    assert best_layer(results) == "blobs"
    lucky = {"a": Accuracy(0.9, 0.9, 0.5, 0.5, 1.0, True, 8), "b": Accuracy(0.1, 0.1, 0.6, 0.6, 1.0, True, 8)}
    assert best_layer(lucky) == "b", "not the best on the test images"


def test_picture() -> None:
    one, other = Accuracy(0.9, 0.5, 0.9, 0.9, 1.0, True, 8), Accuracy(0.2, 0.1, 0.2, 0.2, 1.0, True, 8)
    whole = probe_picture({"layers": {"a": one, "b": other}, "random_model": {"a": other, "b": other}})
    assert whole.size == probe_picture({"layers": {"a": one, "b": other}}).size
    with_pixels = probe_picture({"layers": {"a": one, "b": other}, "pixels": {"pixels": one}})
    assert with_pixels.tobytes() != probe_picture({"layers": {"a": one, "b": other}}).tobytes()


FINE = torch.arange(30) % 2


@pytest.mark.parametrize(
    ("train", "test", "names", "message"),
    [
        (FINE, FINE, [], "needs images with labels"),
        (
            torch.where(torch.arange(30) == 7, -1, FINE),
            FINE,
            ["a", "b"],
            "of the images have no label, a probe needs the label of each",
        ),
        (FINE, FINE - 1, ["a", "b"], "of the images have no label, a probe needs the label of each"),
        (FINE * 0, FINE * 0, ["a", "b"], "all images are of the class a"),
        (FINE, FINE * 2, ["a", "b", "c"], "0 training image.s. of the class c"),
        (torch.cat([FINE, torch.tensor([2] * 4)]), FINE, ["a", "b", "c"], "4 training image.s. of the class c"),
        (FINE[:24], FINE, ["a", "b"], "24 training images, too few for the 20 nearest"),
        (FINE, FINE[:0], ["a", "b"], "no image left to test on"),
    ],
)
def test_refusals(train: Tensor, test: Tensor, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"images: .*{message}|images: {message}"):
        check_probe_labels(train, test, names, "images")


def test_what_is_not_refused() -> None:
    check_probe_labels(FINE[:25], FINE[:1], ["a", "b"])
    check_probe_labels(FINE * 2, FINE * 2, ["a", "of which there is none", "b"])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ValueError, match=r"pip install 'heptapod\[evaluation\]'"):
        linear_predictions(torch.ones(4, 1), torch.tensor([0, 1, 0, 1]), torch.ones(1, 1), [1.0])
