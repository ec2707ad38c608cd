"""Zero-shot classification: Bayes' rule turns a generative model p(x | c) into a classifier p(c | x).

Shape legend: M images, K classes, N cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.configs.grid import TokenOrder
from heptapod.likelihood import check_likelihood, negative_log_likelihood
from heptapod.models.heptapod import HeptapodModel
from heptapod.utils.logging import Progress

CONFIDENCE_BINS = 10


def zero_shot(
    model: HeptapodModel,
    tokens: Tensor,
    classes: Sequence[int] | None = None,
    token_order: TokenOrder = "raster",
    orders: int = 1,
    batch_size: int = 128,
    numbers: Tensor | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Tensor:
    """The log-likelihood log p(x | c) of every image under every class, in nats per image.

    The class with the highest is the answer, and the softmax over the classes is the posterior under a uniform prior
    (see :func:`score_answers`). All classes share the random orders of an image and the noise of a flow's estimated
    likelihood. With several orders p is the mean over them, as in
    :func:`~heptapod.likelihood.negative_log_likelihood`.

    The cost is K likelihoods per image and order.

    Args:
        model: a model with classes and a likelihood.
        tokens: (M, N) int64 or (M, N, C) float32.
        classes: the K class indices to choose among; all if left out.
        token_order: the order in which the chain rule reads, one the model was trained on.
        orders: random orders per image.
        batch_size: sequences (an image under a class) at a time; the result does not depend on it except for rounding.
        numbers: (M,) image numbers; 0, 1, … if left out.
        seed: keys the random orders and the noise.
        progress: show a progress bar.

    Returns:
        (M, K) float64 on the CPU, columns as in ``classes``.

    Raises:
        ValueError: for a model without classes or likelihood, or classes that are out of range or given twice.
    """
    check_likelihood(model, token_order, orders, batch_size)
    chosen = torch.tensor(_checked(model, classes))
    K, N = len(chosen), tokens.shape[1]
    numbers = torch.arange(len(tokens)) if numbers is None else numbers
    parts = []
    with Progress(f"{len(tokens):,} images under {K:,} classes", len(tokens), shown=progress) as bar:
        for rows in torch.arange(len(tokens)).split(max(1, batch_size // K)):
            repeated = rows.repeat_interleave(K)
            nats = negative_log_likelihood(
                model, tokens[repeated], chosen.repeat(len(rows)), token_order, batch_size, numbers[repeated], orders,
                seed,
            )  # fmt: skip
            parts.append(-nats.double().view(-1, K) * N)
            bar.advance(len(rows))
    return torch.cat(parts)


def _checked(model: HeptapodModel, classes: Sequence[int] | None) -> list[int]:
    if model.num_classes == 0:
        raise ValueError("classes: this model was trained without classes, so there is nothing to choose among")
    chosen = list(range(model.num_classes)) if classes is None else list(classes)
    if len(chosen) < 1 or len(set(chosen)) < len(chosen) or not all(0 <= c < model.num_classes for c in chosen):
        raise ValueError(f"classes: {chosen} given, must be different numbers between 0 and {model.num_classes - 1}")
    return chosen


@dataclass(frozen=True)
class ZeroShotScores:
    """How well images are classified."""

    confusion: Tensor
    """(K, K) int64: number of images of each class (row) by predicted class (column)."""
    negative_log_posterior: float
    """Mean −log p(c | x) of the true class, in nats; log K for a guess."""
    calibration_error: float
    """Expected calibration error: the mean gap of confidence and accuracy over 10 equal bins of confidence."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return int(self.confusion.diagonal().sum()) / int(self.confusion.sum())

    @property
    def chance(self) -> float:
        """Accuracy of a guess: 1 / K."""
        return 1 / len(self.confusion)

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy over independent images."""
        return float((self.accuracy * (1 - self.accuracy) / int(self.confusion.sum())) ** 0.5)

    @property
    def class_accuracy(self) -> list[float | None]:
        """Share of right answers of each class; None for a class without images."""
        totals = self.confusion.sum(1).tolist()
        right = self.confusion.diagonal().tolist()
        return [r / total if total else None for r, total in zip(right, totals, strict=True)]


def score_answers(log_likelihoods: Tensor, truth: Tensor) -> ZeroShotScores:
    """Scores the classification by likelihood against the true classes, under a uniform prior.

    Args:
        log_likelihoods: (M, K) nats per image, from :func:`zero_shot`.
        truth: (M,) int64, the column of the true class of each.

    Raises:
        ValueError: if there are no images, or a true class has no column.
    """
    M, K = log_likelihoods.shape
    if truth.shape != (M,) or M == 0 or not 0 <= int(truth.min()) <= int(truth.max()) < K:
        raise ValueError(f"truth: {tuple(truth.shape)} given, must be {M} columns between 0 and {K - 1}, at least one")
    log_posterior = log_likelihoods.double().log_softmax(1)
    confidence, answers = log_posterior.exp().max(1)
    confusion = torch.bincount(truth * K + answers, minlength=K * K).view(K, K)
    bins = (confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
    gaps = torch.zeros(CONFIDENCE_BINS, dtype=torch.float64).index_add(
        0, bins, confidence - (answers == truth).double()
    )
    return ZeroShotScores(
        confusion,
        negative_log_posterior=float(-log_posterior.gather(1, truth.unsqueeze(1)).mean()),
        calibration_error=float(gaps.abs().sum() / M),
    )
