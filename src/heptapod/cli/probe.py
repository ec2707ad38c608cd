"""``heptapod probe``."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import rich.table
import tyro
from rich.console import Console

from heptapod.cli.sampling_options import ModelFolder
from heptapod.data import DataConfig
from heptapod.distributed.device import resolve_device
from heptapod.evaluation import probe as probes
from heptapod.evaluation.layer_features import check_unlabeled, layer_features, layer_names, reading_order
from heptapod.evaluation.probe import Accuracy, best_layer, probe_layers
from heptapod.evaluation.probe_data import ProbeData, load_probe_data
from heptapod.evaluation.probe_picture import probe_picture
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.pretrained import find_pretrained
from heptapod.models import HeptapodModel
from heptapod.models.heptapod import build_model
from heptapod.tokenizers import tokenizer_hash
from heptapod.utils.arguments import parse_function
from heptapod.utils.config import from_dict
from heptapod.utils.files import check_folder, sha256, write_json
from heptapod.utils.images import save_png

logger = logging.getLogger(__name__)


TEST_SHARE = 0.2
"""Share of the images tested on, where the data has no test images of its own."""


def probe(arguments: list[str]) -> None:
    """Parses arguments and probes."""
    parse_function(probe_model, "probe", arguments)()


def probe_model(
    model: tyro.conf.Positional[ModelFolder],
    data: str,
    test_data: str | None = None,
    image_size: int = 0,
    count: int | None = None,
    test_count: int | None = None,
    layers: tuple[str, ...] = (),
    pixels: bool = True,
    random_model: bool = True,
    batch_size: int = 64,
    memory_gib: float = 8.0,
    seed: int = 0,
    device: str = "auto",
    out: str = "probe",
) -> None:
    """Measures what a model has learned about images: how well classes can be told from its hidden states.

    Every image is read without its label, the hidden states of each layer of the backbone and of the head are averaged
    over the image, and a linear classifier and the 20 nearest neighbors of labeled training images name the class of
    each test image. Beside it the same of raw pixels, and of a model of the same shape with random weights. The model
    must have been trained without labels, or without them some of the time (objective.label_dropout). Writes probe.json
    and probe.png.

    Args:
        model: Folder of a model, or of the run that trained it.
        data: Labeled images (a folder, parquet file(s), .tar shards or a built-in set), or a cache of their tokens.
        test_data: Images to test on. If left out, those that the data itself holds out, or else a random fifth.
        image_size: Pixels per side after resizing the short side and cropping the center; 0 keeps their size.
        count: Use so many training images, drawn at random; all if left out.
        test_count: The same for the test images.
        layers: Layers to probe (embedding, backbone.1, ..., backbone.norm, head.1, ..., head.norm); all if left out.
        pixels: Also probe raw pixels.
        random_model: Also probe a model of the same shape with random weights.
        batch_size: Images the model reads at a time.
        memory_gib: Refuse more than this many GiB of images, or of features.
        seed: Which images are drawn, those held out to choose the regularization, and the random weights.
        device: auto, cpu, cuda, ...
        out: Folder to write.
    """
    for name, value in (("count", count), ("test_count", test_count), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: {value} given, must be at least 1")
    if seed < 0:
        raise ValueError(f"seed: {seed} given, must be at least 0")
    check_folder(Path(out))
    place = resolve_device(device)
    folder = find_pretrained(Path(model))
    heptapod = Heptapod.from_pretrained(folder, place)
    check_unlabeled(heptapod.model.num_classes, heptapod.label_dropout)
    wanted = _chosen(layer_names(heptapod.model), layers)
    config = from_dict(
        DataConfig,
        {"path": data, "image_size": image_size, "validation_path": test_data, "validation_fraction": TEST_SHARE}
        | {"memory_gib": memory_gib},
        "probe",
    )
    started = time.perf_counter()
    found = load_probe_data(heptapod, config, (count, test_count), seed, pixels)
    _check_memory(found, heptapod.model.config.width * len(wanted), memory_gib)

    def probed(module: HeptapodModel, whose: str) -> dict[str, Accuracy]:
        order, parts = heptapod.token_order, (("training", found.train), ("test", found.test))
        train, test = (
            layer_features(module, part.head(len(part)), order, wanted, batch_size, f"{what} images, {whose}")
            for what, part in parts
        )
        return probe_layers(train, found.train.labels, test, found.test.labels, seed, f"probing {whose}")

    results = {"layers": probed(heptapod.model, "the model")}
    if random_model:
        trained = heptapod.model
        fresh = build_model(trained.config, trained.trained_grid, trained.num_classes, seed).to(place).eval()
        results["random_model"] = probed(fresh, "random weights")
    if found.pixels is not None:
        logger.info("probing raw pixels")
        train, test = (part.float() for part in found.pixels)
        results["pixels"] = {"pixels": probes.probe(train, found.train.labels, test, found.test.labels, seed)}
    figures = {
        "model": _model_facts(heptapod, folder),
        "data": {"path": data, "test_path": test_data, **_data_facts(found)},
        "seed": seed,
        "neighbours": probes.NEIGHBORS,
        "temperature": probes.TEMPERATURE,
        "strengths": list(probes.STRENGTHS),
        **_summary(results, found),
        "seconds": time.perf_counter() - started,
    }
    write_json(Path(out) / "probe.json", figures)
    save_png(probe_picture(results), Path(out) / "probe.png")
    _print(results, figures)
    print(f"{Path(out) / 'probe.json'}, {Path(out) / 'probe.png'}")


def _chosen(names: list[str], layers: Collection[str]) -> list[str]:
    if unknown := [layer for layer in layers if layer not in names]:
        raise ValueError(f"layers: {unknown[0]} given, must be among {', '.join(names)}")
    return [name for name in names if not layers or name in layers]


def _check_memory(data: ProbeData, numbers: int, memory_gib: float) -> None:
    """Refuses features (float32) and pixels (float64, as the linear probe wants them) that are too many to hold."""
    pixel_bytes = 8 * data.pixels[0].shape[1] if data.pixels is not None else 0
    needed = (len(data.train) + len(data.test)) * max(4 * numbers, pixel_bytes)
    if needed > memory_gib * 2**30:
        raise ValueError(
            f"memory_gib: {memory_gib} given, but the features need {needed / 2**30:.1f} GiB; raise it, use fewer "
            "images (count, test_count), name fewer layers, or give --no_pixels"
        )


def _model_facts(heptapod: Heptapod, folder: Path) -> dict[str, Any]:
    return {
        "path": str(folder),
        "sha256": sha256(folder / "model.safetensors"),
        "tokenizer_sha256": tokenizer_hash(heptapod.tokenizer),
        "head": heptapod.model.config.head.kind,
        "classes": heptapod.model.num_classes,
        "label_dropout": heptapod.label_dropout,
        "token_order": heptapod.token_order,
        "read_in": reading_order(heptapod.token_order),
        "cells": heptapod.model.grid.num_cells,
        "step": heptapod.metadata.get("step"),
    }


def _data_facts(data: ProbeData) -> dict[str, Any]:
    return {
        "classes": len(data.train.class_names),
        "train_images": len(data.train),
        "test_images": len(data.test),
        "train_sha256": data.train.sha256(),
        "test_sha256": data.test.sha256(),
        "unreadable": data.unreadable,
    }


def _summary(results: dict[str, dict[str, Accuracy]], data: ProbeData) -> dict[str, Any]:
    """All accuracies, and what they say of the best layer."""
    best = best_layer(results["layers"])
    linear = results["layers"][best].linear
    figures: dict[str, Any] = {"best_layer": best, "best_linear": linear, "best_knn": results["layers"][best].knn}
    if "pixels" in results:
        figures["linear_above_pixels"] = linear - results["pixels"]["pixels"].linear
    if "random_model" in results:
        random = results["random_model"]
        figures["linear_above_random_model"] = linear - random[best_layer(random)].linear
    most_frequent = data.train.labels.mode().values
    figures["most_frequent_class"] = float((data.test.labels == most_frequent).double().mean())
    for name, layers in results.items():
        figures[name] = {layer: dataclasses.asdict(each) for layer, each in layers.items()}
    return figures


def _print(results: dict[str, dict[str, Accuracy]], figures: dict[str, Any]) -> None:
    title = f"{figures['data']['test_images']:,} test images recognized, {figures['data']['classes']} classes"
    table = rich.table.Table(title=title)
    random = results.get("random_model", {})
    table.add_column("layer")
    for column in ("linear", "k-NN", *(("random weights: linear", "k-NN") if random else ())):
        table.add_column(column, justify="right")
    show: Callable[[Accuracy], tuple[str, str]] = lambda one: (f"{one.linear:.1%}", f"{one.knn:.1%}")  # noqa: E731
    for layer, accuracy in results["layers"].items():
        table.add_row(layer, *show(accuracy), *(show(random[layer]) if random else ()))
    if "pixels" in results:
        table.add_row("raw pixels", *show(results["pixels"]["pixels"]))
    table.add_row("the most frequent class", f"{figures['most_frequent_class']:.1%}")
    Console().print(table)
    print(f"best layer, by training images held out: {figures['best_layer']}, linear {figures['best_linear']:.1%}")
