"""``heptapod likelihood``."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field

from heptapod.cli.sampling_options import ModelFolder
from heptapod.configs.data import Split
from heptapod.configs.grid import TokenOrder
from heptapod.configs.sampling import Precision
from heptapod.utils.checks import BatchSize, Count, Gibibytes, Seed, Side, check_at_least


def likelihood(arguments: list[str]) -> None:
    """Parses arguments and measures."""
    from heptapod.cli.distributed_command import run_distributed

    run_distributed(measure, "likelihood", arguments)


def measure(
    model: tyro.conf.Positional[ModelFolder],
    data: str,
    split: Split = "held_out",
    image_size: Side = 0,
    count: Count | None = None,
    classes: tuple[str, ...] = (),
    labels: bool = True,
    zero_shot: bool = False,
    token_order: TokenOrder | None = None,
    orders: Annotated[int, Field(ge=1, le=1000)] = 1,
    batch_size: BatchSize = 128,
    memory_gib: Gibibytes = 8.0,
    seed: Seed = 0,
    device: str = "auto",
    precision: Precision = "float32",
    out: str = "likelihood",
) -> None:
    """Measures how likely images are under a trained model, and whether it recognizes their classes.

    Likelihood: −log p of an image's tokens by the chain rule, in nats per token: exact for codes, numerical for a flow;
    a diffusion model has none. Bits per dimension are reported if the tokenizer is lossless on these images.
    Zero-shot classification: the class under which an image is most likely, by a model never trained to classify.
    Writes likelihood.json, likelihood.png (the most and the least likely images) and, for zero-shot, confusion.png.
    Several processes (torchrun) share the work; each reads all images.

    Args:
        model: Folder of a model, or of a run (its best weights are used).
        data: Images: a folder, parquet file(s), .tar shards or a built-in set.
        split: held_out: the set's own held-out images (its split validation, else test), or, where it has none, the 2%
            that training holds out by default. train: the others. all: both (for a set that is held out as a whole).
            validation, test: this split.
        image_size: Pixels per side after resizing the short side and cropping the center; 0 keeps their size.
        count: Number of images, chosen at random; all if left out.
        classes: Only images of these classes of the model, by name, or by index where no name is a number; zero-shot
            chooses among them only, which is cheaper than among all.
        labels: Condition on each image's class, matched by its name in the data; --no-labels conditions on none.
        zero_shot: Also classify every image, at the cost of one likelihood per class.
        token_order: Read in this order (raster, random; mixed draws one of them per image); as in training if left out.
        orders: Number of random orders per image to average p over; the cost grows with it.
        batch_size: Sequences at a time; results do not depend on it except for rounding.
        memory_gib: Largest size of the decoded images, in GiB.
        seed: Keys the choice of images and the random orders.
        device: auto, cpu, cuda, ...
        precision: Precision of the model: float32, bfloat16, float16, or auto (the fastest).
        out: Folder to write.
    """
    from heptapod.cli.distributed_command import warn_if_ranks_idle
    from heptapod.data.selection import split_images
    from heptapod.distributed import process_group
    from heptapod.distributed.device import resolve_device
    from heptapod.evaluation.likelihood_report import (
        LikelihoodConfig,
        labels_by_name,
        measure_likelihood,
        pixels_of_model_size,
        selected_classes,
    )
    from heptapod.inference.pipeline import Heptapod
    from heptapod.inference.precision import dtype_name
    from heptapod.inference.pretrained import find_pretrained
    from heptapod.likelihood import check_likelihood, trained_order
    from heptapod.training.folder import chosen_on
    from heptapod.utils.files import check_folder, sha256, write_json
    from heptapod.utils.images import save_png
    from heptapod.utils.random import image_seeds

    check_at_least(1, count=count)
    image_seeds(seed, 1)
    check_folder(Path(out))
    heptapod = Heptapod.from_pretrained(model, resolve_device(device), precision)
    config = LikelihoodConfig(trained_order(token_order, heptapod.token_order), orders, batch_size, seed)
    check_likelihood(heptapod.model, config.token_order, orders, batch_size)
    candidates = selected_classes(heptapod, classes, zero_shot)
    only = [heptapod.class_names[c] for c in candidates] if classes else None
    images = split_images("likelihood", data, split, image_size, only, count, seed, memory_gib)
    pixels = pixels_of_model_size(heptapod, images)
    labels = labels and bool(heptapod.class_names)
    indices = labels_by_name(heptapod, images) if labels or zero_shot or classes else None
    if not labels and heptapod.class_names and heptapod.label_dropout == 0:
        warnings.warn("labels: none given, but the model was never trained without a label", stacklevel=2)

    warn_if_ranks_idle(len(images), batch_size)
    started = time.perf_counter()
    folder = find_pretrained(Path(model))
    chosen = chosen_on(folder, data if split == "held_out" else "", images.sha256())
    report = measure_likelihood(heptapod, pixels, indices, config, labels, candidates if zero_shot else None)
    if report is None:
        return
    figures: dict[str, Any] = {
        "model": {"path": str(folder), "sha256": sha256(folder / "model.safetensors"), "chosen_on": chosen},
        "data": {
            "path": data, "split": split, "sha256": images.sha256(), "count": len(images),
            "unreadable": images.unreadable,
        },
        "precision": dtype_name(heptapod.model.dtype),
        "token_order": config.token_order,
        "orders": orders,
        "seed": seed,
        "labels": labels,
        "exact": heptapod.model.grid.is_discrete,
        **report.figures,
        "processes": process_group.world_size(),
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    write_json(Path(out) / "likelihood.json", figures)
    for name, picture in report.pictures.items():
        save_png(picture, Path(out) / name)
    print(json.dumps(_short(figures), indent=2))
    print(", ".join(str(Path(out) / name) for name in ("likelihood.json", *report.pictures)))


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures that fit a screen."""
    left_out = ("model", "data", "nats_per_token_of_class")
    shown = {name: value for name, value in figures.items() if name not in left_out}
    if "zero_shot" in shown:
        wide = ("confusion", "classes", "accuracy_of_class")
        shown["zero_shot"] = {name: value for name, value in shown["zero_shot"].items() if name not in wide}
    return shown
