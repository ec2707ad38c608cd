"""One pass over images: features, their moments, logits, labels and a hash of the pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heptapod.distributed import process_group
from heptapod.distributed.collectives import gather_blocks
from heptapod.evaluation.distances import FeatureStatistics
from heptapod.evaluation.features import FeatureExtractor
from heptapod.utils.logging import Progress

Batches = Iterable[tuple[Tensor, Tensor]]
"""Images (B, 3, h, w) uint8 and labels (B,) int64."""

ROWS_AT_A_TIME = 4096
"""Features added to the statistics at a time, whatever the batches: fixed, so that the last bit does not depend on the
batches, and large, as each addition updates the whole covariance."""

Observer = Callable[[Tensor, Tensor], None]
"""Receives images (B, 3, h, w) uint8 and their labels (B,)."""


@dataclass
class Collected:
    """The results of one pass over images."""

    statistics: FeatureStatistics
    """Of all features."""
    features: Tensor
    """(M', F) float32 on the CPU: the kept ones, in order."""
    logits: Tensor | None
    """(M, K) float32 on the CPU."""
    labels: Tensor
    """(M,) int64, -1 where there is none."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    sha256: str
    """Hash of the pixels (as (M, 3, h, w)) and labels; equals that of an ImageSet of the same images."""

    def __len__(self) -> int:
        return self.statistics.count


def collect_features(
    batches: Batches,
    extractor: FeatureExtractor,
    total: int,
    *,
    kept: np.ndarray | None = None,
    with_logits: bool = False,
    progress: bool = True,
    title: str = "features of {} images",
    shared: bool = False,
    observer: Observer | None = None,
) -> Collected | None:
    """Runs the extractor once over every image.

    Args:
        batches: images (B, 3, h, w) uint8, all of one size, and labels (B,) int64; an empty batch is skipped.
        extractor: the network.
        total: expected number of images, of all ranks if shared.
        kept: (``total``,) bool, the images whose features are kept; None keeps all.
        with_logits: also collect the extractor's logits.
        progress: show a progress bar.
        title: its title, with {} for the number of images.
        shared: ``batches`` are those of this rank (:func:`~heptapod.distributed.collectives.blocks_of_rank`); the
            result is that of one process.
        observer: receives the images and labels of every batch in order; if shared, on rank 0.

    Returns:
        The features of all images; if shared, on rank 0, and None on the others.

    Raises:
        ValueError: if there are no images, their sizes differ, or they are not uint8 RGB.
    """
    extracted: Iterator[Mapping[str, Tensor]] = _extracted(batches, extractor, with_logits)
    extracted = gather_blocks(extracted) if shared else extracted
    with Progress(title.format(f"{total:,}"), total, shown=progress) as bar:
        if not shared or process_group.is_main_process():
            return _collected(extracted, extractor, kept, bar, observer)
        for _ in extracted:
            pass
        return None


def _extracted(batches: Batches, extractor: FeatureExtractor, with_logits: bool) -> Iterator[dict[str, Tensor]]:
    """Batches with their features and logits, on the CPU."""
    for images, labels in batches:
        extracted = {"images": images.cpu(), "labels": labels.cpu().long()}
        if len(images):
            _check_images(images, None)
            features, logits = (
                extractor.extract_with_logits(images) if with_logits else (extractor.extract(images), None)
            )
            extracted["features"] = features.float().cpu()
            if logits is not None:
                extracted["logits"] = logits.float().cpu()
        yield extracted


def _collected(
    batches: Iterable[Mapping[str, Tensor]],
    extractor: FeatureExtractor,
    kept: np.ndarray | None,
    bar: Progress,
    observer: Observer | None,
) -> Collected:
    """Joins extracted batches, in their order."""
    statistics = FeatureStatistics(extractor.num_features)
    features, logits, labels, waiting = [], [], [], []
    digest = hashlib.sha256()
    size: tuple[int, int] | None = None
    seen = brightest = 0
    for batch in batches:
        images = batch["images"]
        if not len(images):
            continue
        size = _check_images(images, size)
        digest.update(images.contiguous().numpy().data)
        brightest = max(brightest, int(images.max()))
        new = batch["features"]
        if not new.isfinite().all():
            raise ValueError(f"{extractor.name}: the features of images {seen} and on are not all finite numbers")
        waiting += new.split(1)
        waiting = _count(statistics, waiting, ROWS_AT_A_TIME)
        chosen = None if kept is None else torch.from_numpy(kept[seen : seen + len(new)])
        features.append(new if chosen is None else new[chosen])
        if "logits" in batch:
            logits.append(batch["logits"])
        labels.append(batch["labels"])
        if observer is not None:
            observer(images, batch["labels"])
        seen += len(images)
        bar.advance(len(images))
    if size is None:
        raise ValueError("images: none given, at least 1 is needed")
    if brightest == 1:
        raise ValueError("images: pixels from 0 to 255 expected, all given are 0 or 1; were they scaled to 1?")
    _count(statistics, waiting, 1)
    all_labels = torch.cat(labels)
    digest.update(all_labels.numpy().data)
    return Collected(
        statistics,
        torch.cat(features),
        torch.cat(logits) if logits else None,
        all_labels,
        size,
        digest.hexdigest(),
    )


def _count(statistics: FeatureStatistics, waiting: list[Tensor], least: int) -> list[Tensor]:
    """Adds blocks of fixed size while at least ``least`` rows are waiting; returns the remaining rows."""
    while len(waiting) >= least:
        statistics.add(torch.cat(waiting[:ROWS_AT_A_TIME]))
        waiting = waiting[ROWS_AT_A_TIME:]
    return waiting


def _check_images(images: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
    if images.dtype != torch.uint8:
        shown = f" from {float(images.min()):g} to {float(images.max()):g}" if images.numel() else ""
        raise ValueError(
            f"images: uint8 from 0 to 255 expected, {images.dtype}{shown} given (heptapod.tokenizers.base.to_uint8 "
            "takes floats from -1 to 1)"
        )
    if images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise ValueError(f"images: (B, 3, h, w) expected, {tuple(images.shape)} given")
    current = images.shape[2], images.shape[3]
    if size is not None and current != size:
        raise ValueError(
            f"images: {current[0]}×{current[1]} pixels after others of {size[0]}×{size[1]}; one size is needed"
        )
    return current
