"""Features of images in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.evaluation.collect import collect_features
from heptapod.evaluation.features import FeatureExtractor


def image_features(extractor: FeatureExtractor, images: Tensor, batch_size: int, title: str = "features") -> Tensor:
    """Features (M, F) float32 of images (M, 3, h, w) uint8, with a progress bar."""
    unlabeled = torch.full((len(images),), -1)
    batches = zip(images.split(batch_size), unlabeled.split(batch_size), strict=True)
    collected = collect_features(batches, extractor, len(images), title=f"{title} of {{}} images")
    assert collected is not None  # not shared: on every rank
    return collected.features
