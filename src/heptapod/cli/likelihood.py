"""``heptapod likelihood``."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image
from torch import Tensor

from heptapod.cli.distributed_command import run_distributed, warn_if_ranks_idle
from heptapod.cli.sampling_options import ModelFolder
from heptapod.data import ImageSet
from heptapod.data.selection import Split, split_images
from heptapod.distributed import process_group
from heptapod.distributed.collectives import blocks_of_rank, broadcast_tensors, gather_blocks
from heptapod.distributed.device import resolve_device
from heptapod.evaluation.zero_shot import judge, zero_shot
from heptapod.grid import TokenOrder
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.pretrained import find_pretrained
from heptapod.likelihood import (
    bits_per_dimension,
    check_likelihood,
    dimensions,
    log_scale,
    negative_log_likelihood,
    tokens_of_images,
    trained_order,
)
from heptapod.utils.files import check_folder, sha256, write_json
from heptapod.utils.images import confusion_picture, image_grid, save_png
from heptapod.utils.logging import Progress

SHOWN = 12
"""Images in each row of the picture."""


def likelihood(arguments: list[str]) -> None:
    """Parses arguments and measures."""
    run_distributed(measure, "likelihood", arguments)


def measure(
    model: tyro.conf.Positional[ModelFolder],
    data: str,
    split: Split = "held_out",
    image_size: int = 0,
    count: int | None = None,
    classes: tuple[str, ...] = (),
    labels: bool = True,
    zero_shot: bool = False,
    token_order: TokenOrder | None = None,
    orders: int = 1,
    batch_size: int = 128,
    memory_gib: float = 8.0,
    seed: int = 0,
    device: str = "auto",
    out: str = "likelihood",
) -> None:
    """Measures how likely images are to a trained model, and whether it can tell their classes.

    Likelihood: −log p of an image's tokens by the chain rule, in nats per token: exact for codes, numerical for a flow;
    a diffusion model has none. Bits per dimension are told where the tokenizer loses nothing of these images.
    Zero-shot classification: the class under which an image is most likely, by a model never trained to classify.
    Writes likelihood.json, likelihood.png (the most and the least likely images) and, for zero-shot, confusion.png.
    Several processes (torchrun) share the work; each reads all images.

    Args:
        model: Folder of a model, or of a run (its best weights are taken).
        data: Images: a folder, parquet file(s), .tar shards or a built-in set.
        split: held_out: the set's own held-out images, or, where it has none, the 2% that training holds out unless
            told otherwise. train: the others. all: both (for a set that is held out as a whole).
        image_size: Pixels per side after resizing the short side and cropping the center; 0 keeps their size.
        count: Use so many images, drawn at random; all if left out.
        classes: Only images of these classes of the model, by name or index; zero-shot chooses among them only, which
            is cheaper than among all.
        labels: Give the model each image's class, found by its name in the data; --no_labels gives none.
        zero_shot: Also classify every image, at the cost of one likelihood per class.
        token_order: Read in this order (raster, random; mixed draws one per image); as in training if left out.
        orders: Average p over so many random orders per image, at so many times the cost.
        batch_size: Sequences at a time; results do not depend on it but for rounding.
        memory_gib: Refuse more than this many GiB of decoded images.
        seed: Which images are drawn, and the random orders.
        device: auto, cpu, cuda, ...
        out: Folder to write.
    """
    if count is not None and count < 1:
        raise ValueError(f"count: {count} given, must be at least 1")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed: {seed} given, must be between 0 and 2^63 - 1")
    check_folder(Path(out))
    heptapod = Heptapod.from_pretrained(model, resolve_device(device))
    order = trained_order(token_order, heptapod.token_order)
    check_likelihood(heptapod.model, order, orders, batch_size)
    chosen = _chosen_classes(heptapod, classes, zero_shot)
    only = [heptapod.class_names[c] for c in chosen] if classes else None
    images = split_images("likelihood", data, split, image_size, only, count, seed, memory_gib)
    pixels = _of_the_models_size(heptapod, images)
    labels = labels and bool(heptapod.class_names)
    known = _labels_by_name(heptapod, images) if labels or zero_shot or classes else None
    if not labels and heptapod.class_names and heptapod.label_dropout == 0:
        warnings.warn("labels: none given, but the model was never trained without a label", stacklevel=2)

    warn_if_ranks_idle(len(images), batch_size)
    started = time.perf_counter()
    how = (order, orders, batch_size, seed)
    tokens, nats = _likelihood(heptapod, pixels, known if labels else None, how)
    log_p = _log_likelihoods(heptapod, tokens, chosen, how) if zero_shot else None
    if not process_group.is_main_process():
        return
    folder = find_pretrained(Path(model))
    figures: dict[str, Any] = {
        "model": {"path": str(folder), "sha256": sha256(folder / "model.safetensors")},
        "data": {
            "path": data, "split": split, "sha256": images.sha256(), "count": len(images),
            "unreadable": images.unreadable,
        },
        "token_order": order,
        "orders": orders,
        "seed": seed,
        "labels": labels,
        "exact": heptapod.model.grid.is_discrete,
        **_likelihood_figures(heptapod, pixels, tokens, nats, known, batch_size),
    }  # fmt: skip
    pictures = {"likelihood.png": _extremes(pixels, nats)}
    if log_p is not None and known is not None:
        figures["zero_shot"], pictures["confusion.png"] = _zero_shot(heptapod, log_p, known, chosen)
    figures["processes"] = process_group.world_size()
    figures["seconds"] = time.perf_counter() - started
    write_json(Path(out) / "likelihood.json", figures)
    for name, picture in pictures.items():
        save_png(picture, Path(out) / name)
    print(json.dumps(_short(figures), indent=2))
    print(", ".join(str(Path(out) / name) for name in ("likelihood.json", *pictures)))


def _chosen_classes(heptapod: Heptapod, classes: Sequence[str], zero_shot: bool) -> list[int]:
    """Indices of the classes asked for, or of all."""
    if not heptapod.class_names and (zero_shot or classes):
        setting = "zero_shot" if zero_shot else "classes"
        raise ValueError(f"{setting}: given, but this model was trained without classes")
    chosen = heptapod.label_indices(classes) if classes else list(range(len(heptapod.class_names)))
    if repeated := [heptapod.class_names[c] for c in dict.fromkeys(chosen) if chosen.count(c) > 1]:
        raise ValueError(f"classes: {repeated[0]} given more than once")
    if zero_shot and len(chosen) < 2:
        raise ValueError(f"classes: {', '.join(classes) or 'one'} given, zero-shot needs at least 2 to choose among")
    return chosen


def _of_the_models_size(heptapod: Heptapod, images: ImageSet) -> Tensor:
    """The pixels, in memory; refuses another size than the model's."""
    grid, factor = heptapod.model.grid, heptapod.tokenizer.factor
    height, width = grid.height * factor, grid.width * factor
    if images.size != (height, width):
        fix = f"give --image_size {height}" if height == width else "resize them first"
        raise ValueError(
            f"data: images of {images.size[0]}×{images.size[1]} pixels (height×width), the model's are "
            f"{height}×{width}; {fix}"
        )
    return images.in_memory()


def _labels_by_name(heptapod: Heptapod, images: ImageSet) -> Tensor:
    """The model's class (M,) of every image, by the name of its class in the data."""
    if missing := int((images.labels < 0).sum()):
        raise ValueError(f"data: {missing} of {len(images)} images have no class; give --no_labels and no --zero_shot")
    index = {name: number for number, name in enumerate(heptapod.class_names)}
    present = [images.class_names[label] for label in images.labels.unique().tolist()]
    if unknown := [name for name in present if name not in index]:
        raise ValueError(
            f"data: {len(unknown)} of {len(present)} classes are none of the model's ({_some(unknown)}; the model has "
            f"{_some(heptapod.class_names)}): name them alike, choose with --classes, or give --no_labels and no "
            "--zero_shot"
        )
    return torch.tensor([index[images.class_names[label]] for label in images.labels.tolist()])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


How = tuple[TokenOrder, int, int, int]
"""Token order, random orders per image, batch size and seed."""


def _likelihood(heptapod: Heptapod, pixels: Tensor, labels: Tensor | None, how: How) -> tuple[Tensor, Tensor]:
    """Tokens of the images in all processes; nats per token (M,) in the first one."""
    order, orders, batch_size, seed = how

    def measure(rows: Tensor) -> dict[str, Tensor]:
        tokens = tokens_of_images(heptapod.tokenizer, heptapod.model.grid, pixels[rows], batch_size)
        own = None if labels is None else labels[rows]
        nats = negative_log_likelihood(heptapod.model, tokens, own, order, batch_size, rows, orders, seed)
        return {"tokens": tokens, "nats": nats + log_scale(heptapod.tokenizer)}

    found = _by_blocks(len(pixels), batch_size, f"likelihood of {len(pixels):,} images", measure)
    tokens = broadcast_tensors({"tokens": found["tokens"]} if process_group.is_main_process() else None)["tokens"]
    return tokens, found.get("nats", torch.empty(0))


def _log_likelihoods(heptapod: Heptapod, tokens: Tensor, classes: list[int], how: How) -> Tensor:
    """Log p (M, K) of every image under every class, in the first process."""
    order, orders, batch_size, seed = how

    def measure(rows: Tensor) -> dict[str, Tensor]:
        return {"log_p": zero_shot(heptapod.model, tokens[rows], classes, order, orders, batch_size, rows, seed)}

    title = f"{len(tokens):,} images under {len(classes):,} classes"
    found = _by_blocks(len(tokens), max(1, batch_size // len(classes)), title, measure)
    return found.get("log_p", torch.empty(0))


def _by_blocks(count: int, size: int, title: str, measure: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What is measured of rows 0..count-1, ``size`` at a time, by all processes; in the first one only."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    blocks = blocks_of_rank(torch.arange(count).split(size))
    with Progress(title, count) as bar:
        for found in gather_blocks(map(measure, blocks)):
            for name, values in found.items():
                parts[name].append(values)
            bar.advance(len(next(iter(found.values()))))
    return {name: torch.cat(values) for name, values in parts.items()}


def _likelihood_figures(
    heptapod: Heptapod, pixels: Tensor, tokens: Tensor, nats: Tensor, known: Tensor | None, batch_size: int
) -> dict[str, Any]:
    """What is said of nats per token (M,): over all images, of every class, and in bits."""
    nats = nats.double()
    figures: dict[str, Any] = {"nats_per_token": _summary(nats)}
    if known is not None:
        figures["nats_per_token_of_class"] = {
            heptapod.class_names[c]: _summary(nats[known == c]) for c in known.unique().tolist()
        }
    figures["tokens_per_image"] = tokens.shape[1]
    figures["bits_per_image"] = float(nats.mean()) * tokens.shape[1] / math.log(2)
    try:
        bits = bits_per_dimension(heptapod.tokenizer, heptapod.model.grid, pixels, tokens, nats, batch_size)
        figures |= {"bits_per_dimension": float(bits.mean()), "dimensions_per_image": dimensions(pixels)}
    except ValueError as reason:
        figures |= {"bits_per_dimension": None, "bits_per_dimension_note": str(reason)}
    return figures


def _summary(values: Tensor) -> dict[str, float | int | None]:
    count = len(values)
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std()) / math.sqrt(count) if count > 1 else None,
        "min": float(values.min()),
        "max": float(values.max()),
        "count": count,
    }


def _zero_shot(
    heptapod: Heptapod, log_p: Tensor, known: Tensor, chosen: list[int]
) -> tuple[dict[str, Any], Image.Image]:
    """Figures and the confusion matrix of choosing among classes by log p (M, K)."""
    truth = torch.tensor([chosen.index(c) for c in known.tolist()])
    found = judge(log_p, truth)
    names = [heptapod.class_names[c] for c in chosen]
    figures = {
        "accuracy": found.accuracy,
        "standard_error": found.standard_error,
        "chance": found.chance,
        "negative_log_posterior": found.negative_log_posterior,
        "calibration_error": found.calibration_error,
        "classes": names,
        "accuracy_of_class": dict(zip(names, found.class_accuracy, strict=True)),
        "confusion": found.confusion.tolist(),
    }
    return figures, confusion_picture(found.confusion, names)


def _extremes(pixels: Tensor, nats: Tensor) -> Image.Image:
    """A row of the most likely images and one of the least likely."""
    order = nats.argsort(stable=True)
    count = min(SHOWN, len(order))
    rows = pixels[torch.cat([order[:count], order.flip(0)[:count]])]
    return image_grid(rows, count, ["most likely", "least likely"])


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    """What is worth a screen."""
    left_out = ("model", "data", "nats_per_token_of_class")
    shown = {name: value for name, value in figures.items() if name not in left_out}
    if "zero_shot" in shown:
        wide = ("confusion", "classes", "accuracy_of_class")
        shown["zero_shot"] = {name: value for name, value in shown["zero_shot"].items() if name not in wide}
    return shown
