"""How good generated images are: distances to a reference, precision and recall, a classifier's score."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from heptapod.configs.evaluation import Metric
from heptapod.evaluation.collect import Collected, collect_features
from heptapod.evaluation.distances import frechet_distance, kernel_distance
from heptapod.evaluation.features import FeatureExtractor
from heptapod.evaluation.manifold import manifold_metrics
from heptapod.evaluation.reference import Reference
from heptapod.evaluation.score import SPLITS, classifier_score
from heptapod.utils.checks import check_at_least

METRICS: tuple[Metric, ...] = get_args(Metric)
PRECISION_NEIGHBORS = 3
DENSITY_NEIGHBORS = 5
KERNEL_MINIMUM = 4
"""The kernel distance estimates its error from two halves of at least two features each."""

NEIGHBORS_MINIMUM = max(PRECISION_NEIGHBORS, DENSITY_NEIGHBORS) + 1
"""Every feature needs this number of others as neighbors; the four metrics share one table of distances."""


@dataclass(frozen=True)
class UnavailableMetric:
    """Why a metric is not measured."""

    reason: str
    """In words."""
    needed: int | None
    """Images or features that would be needed; None where no number of them helps."""


def metric_names(metric: Metric, extractor: FeatureExtractor) -> list[str]:
    """The names of the results of a metric; only Inception's are fid, kid and inception_score."""
    if metric == "frechet":
        return [extractor.frechet_name]
    if metric == "kernel":
        return [extractor.kernel_name]
    if metric == "score":
        return [extractor.score_name]
    return [f"{part}[{extractor.name}]" for part in metric.split("_")]


def unavailable_reason(
    metric: Metric, extractor: FeatureExtractor, reference: Reference | None, count: int
) -> UnavailableMetric | None:
    """Why a metric cannot be measured on ``count`` samples; None if it can (without a reference: as far as known).

    The Fréchet distance needs more samples than features (else its covariance is singular and its value depends on the
    number of samples more than on the model), and the same number of reference images, if it is known. The score needs
    one sample per split, the others ``KERNEL_MINIMUM`` or ``NEIGHBORS_MINIMUM`` samples and kept reference features.
    """

    def lacking(given: int, needed: int, unit: str) -> UnavailableMetric | None:
        return UnavailableMetric(f"needs {needed:,} {unit}, {given:,} given", needed) if given < needed else None

    def kept_features(needed: int) -> UnavailableMetric | None:
        kept = needed if reference is None else len(reference.features)
        return lacking(kept, needed, "features kept in the reference (moments alone do not do)")

    if metric == "score":
        if extractor.num_classes is None:
            return UnavailableMetric(f"the extractor {extractor.name} has no classes", None)
        return lacking(count, SPLITS, "samples")
    if metric == "frechet":
        needed = extractor.num_features + 1
        images = None if reference is None else reference.count
        few = None if images is None else lacking(images, needed, "images in the reference")
        return lacking(count, needed, "samples") or few
    if metric == "kernel":
        return lacking(count, KERNEL_MINIMUM, "samples") or kept_features(KERNEL_MINIMUM)
    return lacking(count, NEIGHBORS_MINIMUM, "samples") or kept_features(NEIGHBORS_MINIMUM)


def plan_metrics(
    extractor: FeatureExtractor, reference: Reference | None, count: int, requested: Sequence[Metric] | None = None
) -> tuple[list[Metric], dict[str, UnavailableMetric]]:
    """Which metrics are measured and, by the names of their results, why the others are not.

    Args:
        extractor: the network.
        reference: the reference; None before it is made, to detect early what no reference would change.
        count: samples.
        requested: metrics by name; None for all that can be measured.

    Raises:
        ValueError: if a requested metric cannot be measured, or none can, or a name is unknown.
    """
    if requested is not None:
        if unknown := [name for name in requested if name not in METRICS]:
            raise ValueError(f"metrics: {unknown[0]!r} given, must be among {', '.join(METRICS)}")
        if not requested:
            raise ValueError(f"metrics: none given, must be among {', '.join(METRICS)}")
    chosen: list[Metric] = []
    left_out: dict[str, UnavailableMetric] = {}
    for metric in METRICS:
        if requested is not None and metric not in requested:
            left_out |= {name: UnavailableMetric("not asked for", None) for name in metric_names(metric, extractor)}
            continue
        reason = unavailable_reason(metric, extractor, reference, count)
        if reason is None:
            chosen.append(metric)
        elif requested is not None:
            raise ValueError(f"metrics: {metric} {reason.reason}")
        else:
            left_out |= dict.fromkeys(metric_names(metric, extractor), reason)
    if not chosen:
        raise ValueError(f"metrics: none can be measured: {next(iter(left_out.values())).reason}")
    return chosen, left_out


def evaluate_images(
    images: Tensor | Iterable[Tensor] | Iterable[tuple[Tensor, Tensor]],
    reference: Reference,
    extractor: FeatureExtractor,
    count: int | None = None,
    metrics: Sequence[Metric] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, Any]:
    """Measures generated images against a reference in one pass, in memory.

    Args:
        images: (M, 3, h, w) uint8, or batches of them, each alone or with its labels (B,).
        reference: made with the same extractor.
        extractor: the network.
        count: number of images in the batches, if known: metrics that need more then fail before the batches are
            made.
        metrics: the metrics to measure; None for all that the numbers of images allow.
        batch_size: images at a time, where they are given at once; results do not depend on it.
        seed: keys the blocks of the kernel distance and the splits of the score.
        progress: show a progress bar.

    Returns:
        JSON-safe: ``metrics`` by name, ``left_out``, and the settings of the measurement.

    Raises:
        ValueError: if the reference is of another extractor, the images are not uint8 RGB of one size, or they are
            too few for a requested metric.
    """
    reference.check(extractor)
    check_at_least(1, batch_size=batch_size)
    total = len(images) if isinstance(images, Tensor) else count
    if total is not None:
        plan_metrics(extractor, reference, total, metrics)
    wants_logits = extractor.num_classes is not None and (metrics is None or "score" in metrics)
    collected = collect_features(
        _with_labels(images, batch_size),
        extractor,
        total or 0,
        with_logits=wants_logits,
        progress=progress,
        title="samples: features of {} images",
    )
    assert collected is not None  # not shared: on every rank
    return measure(collected, reference, extractor, metrics, seed)


def measure(
    collected: Collected,
    reference: Reference,
    extractor: FeatureExtractor,
    metrics: Sequence[Metric] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The metrics of collected features; arguments and results as of :func:`evaluate_images`."""
    chosen, left_out = plan_metrics(extractor, reference, len(collected), metrics)
    results: dict[str, Any] = {}
    if "frechet" in chosen:
        results[extractor.frechet_name] = frechet_distance(collected.statistics, reference.statistics)
    device = extractor.device if extractor.device.type == "cuda" else torch.device("cpu")  # others lack float64
    real, generated = reference.features.to(device), collected.features.to(device)
    if "kernel" in chosen:
        kernel = kernel_distance(real, generated, seed=seed)
        results[extractor.kernel_name] = {"mean": kernel.mean, "standard_error": kernel.standard_error}
    if "score" in chosen:
        assert collected.logits is not None
        score = classifier_score(collected.logits, seed=seed)
        results[extractor.score_name] = {"mean": score.mean, "std": score.std, "splits": SPLITS}
    if "precision_recall" in chosen or "density_coverage" in chosen:
        neighbors = manifold_metrics(real, generated, PRECISION_NEIGHBORS, DENSITY_NEIGHBORS)
        for metric in ("precision_recall", "density_coverage"):
            if metric in chosen:
                names = metric_names(metric, extractor)
                results |= {name: getattr(neighbors, name.partition("[")[0]) for name in names}
    return {
        "metrics": results,
        "left_out": {name: {"reason": each.reason, "needed": each.needed} for name, each in left_out.items()},
        "samples": {"count": len(collected), "image_size": list(collected.image_size), "sha256": collected.sha256},
        "evaluator": extractor.description(),
        "reference": reference.record(),
        "neighbours": {"precision_recall": PRECISION_NEIGHBORS, "density_coverage": DENSITY_NEIGHBORS},
        "evaluation_seed": seed,
    }


def _with_labels(
    images: Tensor | Iterable[Tensor] | Iterable[tuple[Tensor, Tensor]], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches with labels, -1 where none are given."""
    for batch in images.split(batch_size) if isinstance(images, Tensor) else images:
        if isinstance(batch, Tensor):
            yield batch, torch.full((len(batch),), -1)
        else:
            yield batch
