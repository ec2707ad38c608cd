"""``heptapod probe``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
import torch
import tyro
from rich.console import Console
from torch import Tensor

from heptapod import parallel
from heptapod.config import from_dict
from heptapod.data import DataConfig, ImageSet, TokenSet, encode_images
from heptapod.data.cache import is_cache, load_tokens, read_description
from heptapod.data.images import decode, split_rows
from heptapod.data.sources import Source, open_source
from heptapod.evaluation import probe as probes
from heptapod.evaluation.layer_features import check_unlabelled, layer_features, layer_names, reading_order
from heptapod.evaluation.probe import Accuracy, best_layer, check_probe_labels, probe_layers
from heptapod.evaluation.probe_picture import probe_picture
from heptapod.files import sha256, write_json
from heptapod.model_folder import find_pretrained
from heptapod.models import HeptapodModel
from heptapod.models.heptapod import build_model
from heptapod.pictures import save_png
from heptapod.pipeline import Heptapod
from heptapod.progress import say
from heptapod.random import Stream, numpy_generator
from heptapod.recipe import resolve_device
from heptapod.tokenizers import tokenizer_hash

TEST_SHARE = 0.2
"""Share of the images tested on, where the data has no test images of its own."""


def probe(arguments: list[str]) -> None:
    """Parses arguments and probes."""
    tyro.cli(probe_model, prog="heptapod probe", args=arguments, use_underscores=True)


@dataclass
class _Data:
    """Training and test images, as tokens and as pixels."""

    train: TokenSet
    test: TokenSet
    pixels: tuple[Tensor, Tensor] | None
    """(M, 3·h·w) and (T, 3·h·w) uint8; None where there are only tokens, or they are not wanted."""
    unreadable: list[str]


def probe_model(
    model: tyro.conf.Positional[str],
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
    """Measures what a model has learnt about images: how well classes can be told from its hidden states.

    Every image is read without its label, the hidden states of each layer of the backbone and of the head are averaged
    over the image, and a linear classifier and the 20 nearest neighbours of labelled training images name the class of
    each test image. Beside it the same of raw pixels, and of the model as it was before training. The model must have
    been trained without labels, or without them some of the time (objective.label_dropout). Writes probe.json and
    probe.png.

    Args:
        model: Folder of a model, or of the run that trained it.
        data: Labelled images (a folder, parquet file(s) or a built-in set), or a cache of their tokens.
        test_data: Images to test on. If left out, those that the data itself holds out, or else a random fifth.
        image_size: Pixels per side after resizing the short side and cropping the centre; 0 keeps their size.
        count: Use so many training images, drawn at random; all if left out.
        test_count: The same for the test images.
        layers: Layers to probe (embedding, backbone.1, ..., backbone.norm, head.1, ..., head.norm); all if left out.
        pixels: Also probe raw pixels.
        random_model: Also probe a model of the same shape with random weights.
        batch_size: Images the model reads at a time.
        memory_gib: Refuse more than this many GiB of images, or of features.
        seed: Which images are drawn, those held out to choose the regularisation, and the random weights.
        device: auto, cpu, cuda, ...
        out: Folder to write.
    """
    for name, value in (("count", count), ("test_count", test_count), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: {value} given, must be at least 1")
    if seed < 0:
        raise ValueError(f"seed: {seed} given, must be at least 0")
    parallel.refuse_several("probe")
    place = resolve_device(device)
    folder = find_pretrained(Path(model))
    heptapod = Heptapod.from_pretrained(folder, place)
    check_unlabelled(heptapod.model.num_classes, heptapod.label_dropout)
    names = layer_names(heptapod.model)
    if unknown := [layer for layer in layers if layer not in names]:
        raise ValueError(f"layers: {unknown[0]} given, must be among {', '.join(names)}")
    wanted = [name for name in names if not layers or name in layers]

    started = time.perf_counter()
    config = from_dict(
        DataConfig,
        {
            "path": data, "image_size": image_size, "validation_path": test_data, "validation_fraction": TEST_SHARE,
            "memory_gib": memory_gib,
        },
        "probe",
    )  # fmt: skip
    load = _from_cache if is_cache(Path(data)) else _from_images
    found = load(heptapod, config, (count, test_count), seed, pixels)
    _check_memory(found, heptapod.model.config.width * len(wanted), memory_gib)

    def probed(module: HeptapodModel, whose: str) -> dict[str, Accuracy]:
        train, test = (
            layer_features(
                module, part.head(len(part)), heptapod.token_order, wanted, batch_size, f"{what} images, {whose}"
            )
            for what, part in (("training", found.train), ("test", found.test))
        )
        return probe_layers(train, found.train.labels, test, found.test.labels, seed, f"probing {whose}")

    results = {"layers": probed(heptapod.model, "the model")}
    if random_model:
        trained = heptapod.model
        fresh = build_model(trained.config, trained.trained_grid, trained.num_classes, seed).to(place).eval()
        results["random_model"] = probed(fresh, "random weights")
    if found.pixels is not None:
        say("probing raw pixels")
        train, test = (part.float() for part in found.pixels)
        results["pixels"] = {"pixels": probes.probe(train, found.train.labels, test, found.test.labels, seed)}
    figures = {
        "model": _facts(heptapod, folder),
        "data": {
            "path": data,
            "test_path": test_data,
            "classes": len(found.train.class_names),
            "train_images": len(found.train),
            "test_images": len(found.test),
            "train_sha256": found.train.sha256(),
            "test_sha256": found.test.sha256(),
            "unreadable": found.unreadable,
        },
        "seed": seed,
        "neighbours": probes.NEIGHBOURS,
        "temperature": probes.TEMPERATURE,
        "strengths": list(probes.STRENGTHS),
        **_summary(results, found),
        "seconds": time.perf_counter() - started,
    }
    write_json(Path(out) / "probe.json", figures)
    save_png(probe_picture(results), Path(out) / "probe.png")
    _print(results, figures)
    print(f"{Path(out) / 'probe.json'}, {Path(out) / 'probe.png'}")


def _from_images(
    heptapod: Heptapod, config: DataConfig, counts: tuple[int | None, int | None], seed: int, pixels: bool
) -> _Data:
    source = open_source(config.path, "data")
    test_source = source if config.validation_path is None else open_source(config.validation_path, "test_data")
    if test_source.class_names != source.class_names:
        raise ValueError(f"test_data: {config.validation_path} has other classes than {config.path}")
    if config.image_size:
        _check_grid(heptapod, config.image_size, config.image_size)
    train_rows, test_rows = split_rows(source.is_held_out(), config)
    if test_source is not source:
        test_rows = np.arange(len(test_source.names))
    parts = [(source, _drawn(train_rows, counts[0], seed, 3)), (test_source, _drawn(test_rows, counts[1], seed, 4))]
    train_labels, test_labels = (torch.tensor(origin.labels)[torch.from_numpy(rows)] for origin, rows in parts)
    check_probe_labels(train_labels, test_labels, source.class_names)
    train, test = (_decoded(heptapod, origin, config, rows) for origin, rows in parts)
    check_probe_labels(train.labels, test.labels, source.class_names)  # some may be unreadable
    if pixels and (train.is_slow or test.is_slow):
        raise ValueError("pixels: the images do not fit into memory_gib together; give --no_pixels, or raise it")
    raw = _raw_pixels(train.in_memory(), test.in_memory()) if pixels else None
    train_tokens, test_tokens = (encode_images(heptapod.tokenizer, part) for part in (train, test))
    return _Data(train_tokens, test_tokens, raw, [*train.unreadable, *test.unreadable])


def _decoded(heptapod: Heptapod, source: Source, config: DataConfig, rows: np.ndarray) -> ImageSet:
    images = decode(source, config, rows)
    for line in images.unreadable[:5]:
        say(f"data: left out, {line}")
    _check_grid(heptapod, *images.size)
    return images


def _from_cache(
    heptapod: Heptapod, config: DataConfig, counts: tuple[int | None, int | None], seed: int, pixels: bool
) -> _Data:
    for setting, path in (("data", config.path), ("test_data", config.validation_path)):
        if path is not None and is_cache(Path(path)):
            made_with, own = read_description(Path(path)).tokenizer_sha256, tokenizer_hash(heptapod.tokenizer)
            if made_with != own:
                raise ValueError(
                    f"{setting}: {path} was made with a tokenizer of hash {made_with[:16]}…, the model's has the hash "
                    f"{own[:16]}…; its tokens mean something else"
                )
    train, test = load_tokens(config)
    factor = heptapod.tokenizer.factor
    _check_grid(heptapod, train.grid.height * factor, train.grid.width * factor)
    assert test.rows is not None
    test = test.subset(test.rows.argsort().numpy())  # in the order of their source, as images are read
    train = train.subset(_drawn(np.arange(len(train)), counts[0], seed, 3))
    test = test.subset(_drawn(np.arange(len(test)), counts[1], seed, 4))
    check_probe_labels(train.labels, test.labels, train.class_names)
    if pixels:
        say("raw pixels are left out: a cache holds tokens only")
    return _Data(train, test, None, [])


def _drawn(rows: np.ndarray, count: int | None, seed: int, key: int) -> np.ndarray:
    """All rows, or so many of them at random, ascending."""
    drawn: np.ndarray = np.sort(rows[numpy_generator(Stream.EVALUATION, seed, key).permutation(len(rows))[:count]])
    return drawn


def _check_grid(heptapod: Heptapod, height: int, width: int) -> None:
    grid, factor = heptapod.model.grid, heptapod.tokenizer.factor
    needed = (grid.height * factor, grid.width * factor)
    if (height, width) != needed:
        raise ValueError(
            f"data: images of {height}×{width} pixels, the model was trained on {needed[0]}×{needed[1]}"
            + (f"; set image_size to {needed[0]}" if needed[0] == needed[1] else "")
        )


def _check_memory(data: _Data, numbers: int, memory_gib: float) -> None:
    """Refuses features (float32) and pixels (float64, as the linear probe wants them) that are too many to hold."""
    pixel_bytes = 8 * data.pixels[0].shape[1] if data.pixels is not None else 0
    needed = (len(data.train) + len(data.test)) * max(4 * numbers, pixel_bytes)
    if needed > memory_gib * 2**30:
        raise ValueError(
            f"memory_gib: {memory_gib} given, but the features need {needed / 2**30:.1f} GiB; raise it, use fewer "
            "images (count, test_count), name fewer layers, or give --no_pixels"
        )


def _raw_pixels(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (M, h·w or 3·h·w): one channel of images without colour."""
    is_grey = all(bool((images == images[:, :1]).all()) for images in (train, test))
    first, second = (images[:, :1] if is_grey else images for images in (train, test))
    return first.flatten(1), second.flatten(1)


def _facts(heptapod: Heptapod, folder: Path) -> dict[str, Any]:
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


def _summary(results: dict[str, dict[str, Accuracy]], data: _Data) -> dict[str, Any]:
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
    title = f"{figures['data']['test_images']:,} test images recognised, {figures['data']['classes']} classes"
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
