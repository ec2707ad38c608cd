"""Probes: how well a linear classifier and the nearest neighbors predict classes from features."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.utils.logging import Progress
from heptapod.utils.random import Stream, numpy_generator

NEIGHBORS = 20
TEMPERATURE = 0.07
"""Of the neighbors' votes (1805.01978)."""
STRENGTHS = tuple(10.0**power for power in range(-4, 4))
"""Inverse strengths C of the linear probe's regularization that are tried, strongest regularization first."""
SELECTION = 5
"""One in this number of training images is held out to choose among them."""
MAX_ITERATIONS = 1000
BLOCK = 1024
"""Images compared with all training images at a time."""


@dataclass(frozen=True)
class Accuracy:
    """Share of images recognized, by each probe."""

    linear: float
    """On the test images, by the linear probe of all training features."""
    knn: float
    """On the test images, by the nearest training images."""
    linear_selection: float
    """Of the training images that were held out to choose the strength, by the probe of the others."""
    knn_selection: float
    """Of the same images, by the nearest of the others."""
    strength: float
    """The chosen C: the largest ``linear_selection``, the strongest regularization among equals."""
    converged: bool
    """Whether the last fit came to rest within its iterations."""
    num_features: int
    """D."""


def best_layer(results: Mapping[str, Accuracy]) -> str:
    """The layer with the highest ``linear_selection``, the first among equals: test images have no say in it."""
    return max(results, key=lambda name: results[name].linear_selection)


def check_probe_labels(train: Tensor, test: Tensor, class_names: list[str], setting: str = "data") -> None:
    """Checks that labels can be probed, and that scikit-learn is installed.

    Args:
        train: (M,) int64 labels of the training images, -1 for none.
        test: (T,) int64 of the test images.
        class_names: of the data; empty for data without labels.
        setting: the argument that gave the data, for messages.

    Raises:
        ValueError: if labels are missing, there is one class only, a class has too few training images, there are too
            few training images for the neighbors, or scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise ValueError("probes need scikit-learn: pip install 'heptapod[evaluation]'")
    missing = int((train < 0).sum()) + int((test < 0).sum())
    if class_names and 0 < missing < len(train) + len(test):
        raise ValueError(f"{setting}: {missing:,} of the images have no label, a probe needs the label of each")
    if not class_names or missing:
        raise ValueError(f"{setting}: a probe needs images with labels (a folder per class, or a column of labels)")
    if not len(test):
        raise ValueError(f"{setting}: no image left to test on")
    classes = torch.cat([train, test]).unique()
    if len(classes) < 2:
        raise ValueError(f"{setting}: all images are of the class {class_names[int(classes[0])]}; a probe needs two")
    counts = torch.bincount(train, minlength=len(class_names))[classes]
    fewest = int(counts.argmin())
    if counts[fewest] < SELECTION:
        raise ValueError(
            f"{setting}: {int(counts[fewest])} training image(s) of the class {class_names[int(classes[fewest])]}; a "
            f"probe needs at least {SELECTION} of each"
        )
    if len(train) - -(-len(train) // SELECTION) < NEIGHBORS:
        raise ValueError(
            f"{setting}: {len(train)} training images, too few for the {NEIGHBORS} nearest among four fifths of them; "
            f"at least {NEIGHBORS * SELECTION // (SELECTION - 1)} are needed"
        )


def probe_layers(
    train: Mapping[str, Tensor],
    train_labels: Tensor,
    test: Mapping[str, Tensor],
    test_labels: Tensor,
    seed: int = 0,
    title: str | None = None,
) -> dict[str, Accuracy]:
    """:func:`probe` of every layer.

    Args:
        train: (M, D) features of each layer.
        train_labels: (M,) int64.
        test: (T, D) features of the same layers.
        test_labels: (T,) int64.
        seed: which training images are held out for selection.
        title: title of the progress bar; None shows none.
    """
    results = {}
    with Progress(title or "", len(train), "layers", shown=bool(title)) as bar:
        for name, features in train.items():
            results[name] = probe(features, train_labels, test[name], test_labels, seed)
            bar.advance(1)
    return results


def probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, seed: int = 0) -> Accuracy:
    """Classifies features: multinomial logistic regression, and the nearest neighbors by cosine.

    Both see features brought to mean 0 and variance 1 over the training images. The strength of the regularization is
    chosen on a fifth of the training images, of every class alike.

    Args:
        train: (M, D) float.
        train_labels: (M,) int64 in 0..K-1.
        test: (T, D) float.
        test_labels: (T,) int64.
        seed: which training images are held out for selection.

    Raises:
        ValueError: if scikit-learn is not installed.
    """
    x, x_test = standardized(train, train, test)
    kept, held_out = _split(train_labels, seed)
    x_kept, x_held_out = standardized(train[kept], train[kept], train[held_out])
    selection = [
        _share(predicted, train_labels[held_out])
        for predicted, _ in linear_predictions(x_kept, train_labels[kept], x_held_out, STRENGTHS)
    ]
    strength = STRENGTHS[int(np.argmax(selection))]
    predicted, converged = linear_predictions(x, train_labels, x_test, [strength])[0]
    knn_selection = knn_predictions(x_kept, train_labels[kept], x_held_out)
    return Accuracy(
        linear=_share(predicted, test_labels),
        knn=_share(knn_predictions(x, train_labels, x_test), test_labels),
        linear_selection=max(selection),
        knn_selection=_share(knn_selection, train_labels[held_out]),
        strength=strength,
        converged=converged,
        num_features=train.shape[1],
    )


def standardized(reference: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
    """Features (…, D) in float64, by the mean and standard deviation of a reference (M, D); constants become 0."""
    reference = reference.double()
    mean, deviation = reference.mean(0), reference.std(0, correction=0)
    # A feature that is constant except for rounding must not be scaled up to noise.
    is_constant = deviation <= 1e-9 * reference.abs().amax(0)
    scale = torch.where(is_constant, 0.0, 1 / deviation.where(~is_constant, torch.ones_like(deviation)))
    return tuple((x.double() - mean) * scale for x in features)


def linear_predictions(
    train: Tensor, labels: Tensor, test: Tensor, strengths: tuple[float, ...] | list[float]
) -> list[tuple[Tensor, bool]]:
    """Classes (T,) by logistic regression for each inverse strength C, each fit beginning where the one before ended.

    L-BFGS (scikit-learn) in float64; deterministic.

    Returns:
        For each strength the classes, and whether the fit came to rest.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise ValueError("the linear probe needs scikit-learn: pip install 'heptapod[evaluation]'") from None
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    results = []
    for strength in strengths:
        model.C = strength
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the result reports whether it converged
            model.fit(train.double().numpy(), labels.numpy())
        predicted = torch.from_numpy(np.asarray(model.predict(test.double().numpy()), dtype=np.int64))
        results.append((predicted, int(model.n_iter_.max()) < MAX_ITERATIONS))
    return results


def knn_predictions(train: Tensor, labels: Tensor, test: Tensor, neighbors: int = NEIGHBORS) -> Tensor:
    """Classes (T,) by the votes exp(cosine / 0.07) of the nearest training images (1805.01978); exact.

    Args:
        train: (M, D) float.
        labels: (M,) int64.
        test: (T, D) float.
        neighbors: how many vote.

    Raises:
        ValueError: if there are fewer training images than neighbors.
    """
    if not 1 <= neighbors <= len(train):
        raise ValueError(
            f"neighbors: {neighbors} given, must lie between 1 and the number of training images, {len(train)}"
        )
    train = F.normalize(train, dim=1)
    classes = int(labels.max()) + 1
    predicted = []
    for part in F.normalize(test, dim=1).split(BLOCK):
        similarity, index = (part @ train.T).topk(neighbors, dim=1)  # (block, k)
        votes = torch.zeros(len(part), classes, dtype=similarity.dtype)
        votes.scatter_add_(1, labels[index], (similarity / TEMPERATURE).exp())
        predicted.append(votes.argmax(1))
    return torch.cat(predicted)


def _split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Numbers of the training images that are kept and that are held out, a fifth of every class."""
    order = torch.from_numpy(numpy_generator(Stream.EVALUATION, seed, 2).permutation(len(labels)))
    by_class = order[labels[order].argsort(stable=True)]
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    is_held_out[by_class[::SELECTION]] = True
    return (~is_held_out).nonzero().squeeze(1), is_held_out.nonzero().squeeze(1)


def _share(predicted: Tensor, labels: Tensor) -> float:
    return float((predicted == labels).double().mean())
