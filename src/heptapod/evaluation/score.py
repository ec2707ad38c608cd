"""The inception score, and the same of any other classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.utils.random import Stream, numpy_generator

SPLITS = 10


@dataclass(frozen=True)
class ClassifierScore:
    """A score and its spread."""

    mean: float
    """Mean over the splits; 1 if the classifier cannot distinguish the images, at most the number of its classes."""
    std: float
    """Standard deviation over the splits (divided by their number), as published with the score."""


def classifier_score(logits: Tensor, splits: int = SPLITS, seed: int = 0) -> ClassifierScore:
    """exp(E KL(p(y|x) ‖ p(y))) over splits of the images: high where each image is clear and all differ.

    With the logits of Inception-v3 it is the inception score (arXiv 1606.03498). It compares with no real image, and
    rises with the number of images per split. Computed in float64.

    Args:
        logits: (M, K), finite.
        splits: parts whose sizes differ by at most one.
        seed: keys the order in which images are dealt to the splits (images are often sorted by class).

    Raises:
        ValueError: if there are fewer images than splits, or the logits are not finite.
    """
    if logits.ndim != 2 or not logits.isfinite().all():
        raise ValueError(f"finite logits of the shape (M, K) expected, {tuple(logits.shape)} given")
    if not 1 <= splits <= len(logits):
        raise ValueError(f"splits: {splits} given, must lie between 1 and the number of images, {len(logits)}")
    order = torch.from_numpy(numpy_generator(Stream.EVALUATION, seed, 0, 1).permutation(len(logits)))
    log_p = logits.detach().double()[order.to(logits.device)].log_softmax(1)
    scores = torch.stack([_score(part) for part in log_p.tensor_split(splits)])
    return ClassifierScore(float(scores.mean()), float(scores.std(correction=0)))


def _score(log_p: Tensor) -> Tensor:
    """Exp of the mean divergence of log-probabilities (M, K) from their mean."""
    p = log_p.exp()
    mean = p.mean(0)
    divergence = (p * log_p).sum(1).mean() - torch.special.xlogy(mean, mean).sum()
    score: Tensor = divergence.exp()
    return score
