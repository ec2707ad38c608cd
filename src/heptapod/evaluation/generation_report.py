"""Evaluates the samples of a model, or samples in files, against a reference; all ranks share the work."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heptapod.configs.data import SplitName
from heptapod.configs.evaluation import Metric
from heptapod.distributed import process_group
from heptapod.evaluation.collect import Observer, collect_features
from heptapod.evaluation.features import FeatureExtractor
from heptapod.evaluation.generation import measure, plan_metrics
from heptapod.evaluation.reference import open_reference
from heptapod.evaluation.samples import ModelSamples
from heptapod.evaluation.streams import ImageStream, npz_writer

SHOWN = 64
"""Images kept for the picture."""


@dataclass(frozen=True)
class GenerationReport:
    """The results of an evaluation."""

    figures: dict[str, Any]
    """JSON-safe: metrics, the metrics left out, samples, evaluator, reference and how the samples were made."""
    first_images: Tensor
    """(M, 3, h, w) uint8: the first samples."""


def evaluate_samples(
    samples: ModelSamples | ImageStream,
    reference: str,
    extractor: FeatureExtractor,
    *,
    image_size: int | None = None,
    batch_size: int = 64,
    metrics: Sequence[Metric] | None = None,
    seed: int = 0,
    npz: Path | None = None,
    split: SplitName | None = None,
) -> GenerationReport | None:
    """Generates or reads samples once and measures them; everything that can fail early fails before sampling.

    Args:
        samples: a model's samples, or images in files.
        reference: a reference file, or images to make one from, see :func:`open_reference`.
        extractor: the network.
        image_size: side of the reference's images, if it is made now; the model's if left out, 0 keeps them.
        batch_size: images at a time.
        metrics: the metrics to measure; None for all that the number of samples allows.
        seed: keys the blocks of the kernel distance and the splits of the score.
        npz: also write the samples of a model to this file.
        split: the split of the reference's images, if it is made now and they have several; None for train.

    Returns:
        The report on rank 0; None on the others.

    Raises:
        ValueError: as :func:`plan_metrics` and :func:`open_reference` do.
    """
    total, model_samples = samples.count, samples if isinstance(samples, ModelSamples) else None
    plan_metrics(extractor, None, total, metrics)
    if image_size is None:
        is_square = model_samples is not None and len(set(model_samples.image_size)) == 1
        image_size = model_samples.image_size[0] if model_samples is not None and is_square else 0
    against = open_reference(reference, extractor, image_size, batch_size, shared=True, split=split)
    planned, _ = plan_metrics(extractor, against, total, metrics)
    if isinstance(samples, ModelSamples):
        labels = samples.indices_like(against.class_names, against.class_counts)
        title, batches = "sampling {} images", samples.batches(labels, shared=True)
    else:
        title, batches = "samples: features of {} images", samples.batches(batch_size, shared=True)
    first_images: list[Tensor] = []
    with _observer(npz, model_samples, first_images) as observer:
        collected = collect_features(
            batches, extractor, total, with_logits="score" in planned, title=title, shared=True, observer=observer
        )
    if collected is None:
        return None
    figures = measure(collected, against, extractor, metrics, seed)
    _warn_of_sizes(figures)
    if isinstance(samples, ModelSamples):
        figures["samples"]["source"], figures["generation"] = None, samples.record()
    else:
        figures["samples"]["source"], figures["generation"] = samples.record, samples.made
    return GenerationReport(figures, torch.cat(first_images)[:SHOWN])


@contextlib.contextmanager
def _observer(npz: Path | None, samples: ModelSamples | None, first_images: list[Tensor]) -> Iterator[Observer]:
    """Keeps the first samples and, for a model and an npz file, writes all of them to it."""
    with contextlib.ExitStack() as stack:
        write: Observer | None = None
        if npz is not None and samples is not None and process_group.is_main_process():
            write = stack.enter_context(npz_writer(npz, samples.count, samples.image_size, samples.record()))

        def observe(images: Tensor, labels: Tensor) -> None:
            if sum(map(len, first_images)) < SHOWN:
                first_images.append(images[:SHOWN].clone())
            if write is not None:
                write(images, labels)

        yield observe


def _warn_of_sizes(figures: dict[str, Any]) -> None:
    size, other = figures["samples"]["image_size"], figures["reference"]["image_size"]
    if other is not None and size != other:
        warnings.warn(
            f"reference: its images are {other[0]}×{other[1]} pixels, the samples {size[0]}×{size[1]}; the difference "
            "in sharpness counts in every metric",
            stacklevel=3,
        )
