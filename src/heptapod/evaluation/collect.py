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

ROWS_AT_A_TIME = 4096
"""Features that are counted into the statistics at a time, however the images come: a fixed number, so that not even
the last bit depends on the batches, and a large one, as each time a whole covariance is added."""

See = Callable[[Tensor, Tensor], None]
"""Is shown images (B, 3, h, w) uint8 and their labels (B,)."""


@dataclass
class Collected:
    """What one pass over images gives."""

    statistics: FeatureStatistics
    """Of all features."""
    features: Tensor
    """(M', F) float32 on the CPU: those that were to be kept, in order."""
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
    batches: Iterable[tuple[Tensor, Tensor]],
    extractor: FeatureExtractor,
    total: int,
    kept: np.ndarray | None = None,
    with_logits: bool = False,
    progress: bool = True,
    title: str = "features",
) -> Collected:
    """Runs the extractor once over every image.

    Args:
        batches: images (B, 3, h, w) uint8, all of one size, and labels (B,) int64.
        extractor: the network.
        total: images expected, for the progress bar.
        kept: (``total``,) bool, whose features to keep; None keeps all.
        with_logits: also take the extractor's logits.
        progress: show a progress bar.
        title: its title.

    Raises:
        ValueError: if there are no images, their sizes differ, or they are not uint8 RGB.
    """
    found = _extracted(batches, extractor, with_logits)
    with Progress(f"{title} of {total:,} images", total, shown=progress) as bar:
        return _collected(found, extractor, kept, bar, None)


def collect_shared(
    batches: Iterable[tuple[Tensor, Tensor]],
    extractor: FeatureExtractor,
    total: int,
    kept: np.ndarray | None = None,
    with_logits: bool = False,
    title: str = "features of {} images",
    see: See | None = None,
) -> Collected | None:
    """What :func:`collect_features` gives, of batches that several processes share; with one process equal to it.

    Args:
        batches: the batches of this process (:func:`~heptapod.distributed.collectives.blocks_of_rank`); an empty
            batch where nothing could be read.
        extractor: the network.
        total: images expected of all processes.
        kept: (``total``,) bool, whose features to keep; None keeps all.
        with_logits: also take the extractor's logits.
        title: of the progress bar.
        see: in the first process, is shown the images and labels of every batch, in order.

    Returns:
        In the first process, what was found in the images of all; None in the others.

    Raises:
        ValueError: as of :func:`collect_features`.
    """
    found = gather_blocks(_extracted(batches, extractor, with_logits))
    with Progress(title.format(f"{total:,}"), total) as bar:
        if process_group.is_main_process():
            return _collected(found, extractor, kept, bar, see)
        for _ in found:
            pass
        return None


def _extracted(
    batches: Iterable[tuple[Tensor, Tensor]], extractor: FeatureExtractor, with_logits: bool
) -> Iterator[dict[str, Tensor]]:
    """Batches with what the extractor makes of them, on the CPU."""
    for images, labels in batches:
        found = {"images": images.cpu(), "labels": labels.cpu().long()}
        if len(images):
            _check_images(images, None)
            features, logits = (
                extractor.extract_with_logits(images) if with_logits else (extractor.extract(images), None)
            )
            found["features"] = features.float().cpu()
            if logits is not None:
                found["logits"] = logits.float().cpu()
        yield found


def _collected(
    batches: Iterable[Mapping[str, Tensor]],
    extractor: FeatureExtractor,
    kept: np.ndarray | None,
    bar: Progress,
    see: See | None,
) -> Collected:
    """Puts together what was extracted of batches, in their order."""
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
        found = batch["features"]
        if not found.isfinite().all():
            raise ValueError(f"{extractor.name}: the features of images {seen} and on are not all finite numbers")
        waiting += found.split(1)
        waiting = _count(statistics, waiting, ROWS_AT_A_TIME)
        chosen = None if kept is None else torch.from_numpy(kept[seen : seen + len(found)])
        features.append(found if chosen is None else found[chosen])
        if "logits" in batch:
            logits.append(batch["logits"])
        labels.append(batch["labels"])
        if see is not None:
            see(images, batch["labels"])
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
    """Counts in blocks of fixed size while at least ``least`` rows wait; returns those that still wait."""
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
    own = images.shape[2], images.shape[3]
    if size is not None and own != size:
        raise ValueError(f"images: {own[0]}×{own[1]} pixels after others of {size[0]}×{size[1]}; one size is needed")
    return own
