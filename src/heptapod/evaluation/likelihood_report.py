"""The likelihood of images under a model and its zero-shot classification: the work of all ranks, figures, pictures.

Shape legend: M images, K classes, N cells.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from heptapod.configs.grid import TokenOrder
from heptapod.data import ImageSet
from heptapod.distributed import process_group
from heptapod.distributed.collectives import blocks_of_rank, broadcast_tensors, gather_blocks
from heptapod.evaluation.zero_shot import score_answers, zero_shot
from heptapod.inference.pipeline import Heptapod
from heptapod.likelihood import bits_per_dimension, dimensions, log_scale, negative_log_likelihood
from heptapod.tokenizers.encode import encode_pixels
from heptapod.utils.images import confusion_picture, image_grid
from heptapod.utils.logging import Progress

SHOWN = 12
"""Images in each row of the picture."""


@dataclass(frozen=True)
class LikelihoodConfig:
    """How likelihoods are measured."""

    token_order: TokenOrder
    """The order in which the chain rule reads."""
    orders: int
    """Random orders per image."""
    batch_size: int
    """Sequences at a time; the result does not depend on it except for rounding."""
    seed: int
    """Keys the random orders and the noise."""


@dataclass(frozen=True)
class LikelihoodReport:
    """The measured likelihoods."""

    figures: dict[str, Any]
    """JSON-safe: nats, bits and, if requested, zero-shot classification."""
    pictures: dict[str, Image.Image]
    """likelihood.png and, for zero-shot classification, confusion.png."""


def measure_likelihood(
    heptapod: Heptapod,
    pixels: Tensor,
    labels: Tensor | None,
    config: LikelihoodConfig,
    condition: bool = True,
    candidates: Sequence[int] | None = None,
) -> LikelihoodReport | None:
    """Measures the likelihood of images and, if there are candidates, classifies them; all ranks share the work.

    Args:
        heptapod: a model with a likelihood.
        pixels: (M, 3, h, w) uint8 of the model's size.
        labels: (M,) int64, the model's class of every image; None if it is not known.
        config: order, batch size and seed.
        condition: condition the likelihood on the label.
        candidates: the K classes to choose among; None does not classify.

    Returns:
        The report on rank 0; None on the others.
    """
    tokens, nats = _likelihood(heptapod, pixels, labels if condition else None, config)
    log_p = None if candidates is None else _log_likelihoods(heptapod, tokens, candidates, config)
    if not process_group.is_main_process():
        return None
    figures = _likelihood_figures(heptapod, pixels, tokens, nats, labels, config.batch_size)
    pictures = {"likelihood.png": _extremes(pixels, nats)}
    if log_p is not None and candidates is not None and labels is not None:
        figures["zero_shot"], pictures["confusion.png"] = _zero_shot(heptapod, log_p, labels, candidates)
    return LikelihoodReport(figures, pictures)


def selected_classes(heptapod: Heptapod, classes: Sequence[str], zero_shot: bool) -> list[int]:
    """Indices of the given classes, or of all.

    Raises:
        ValueError: for a model without classes, or too few or repeated classes.
    """
    if not heptapod.class_names and (zero_shot or classes):
        setting = "zero_shot" if zero_shot else "classes"
        raise ValueError(f"{setting}: given, but this model was trained without classes")
    selected = heptapod.label_indices(classes) if classes else list(range(len(heptapod.class_names)))
    if repeated := [heptapod.class_names[c] for c in dict.fromkeys(selected) if selected.count(c) > 1]:
        raise ValueError(f"classes: {repeated[0]} given more than once")
    if zero_shot and len(selected) < 2:
        raise ValueError(f"classes: {', '.join(classes) or 'one'} given, zero-shot needs at least 2 to choose among")
    return selected


def pixels_of_model_size(heptapod: Heptapod, images: ImageSet) -> Tensor:
    """The pixels (M, 3, h, w) uint8, in memory.

    Raises:
        ValueError: for another size than the model's.
    """
    height, width = heptapod.image_size
    if images.size != (height, width):
        fix = f"give --image_size {height}" if height == width else "resize them first"
        raise ValueError(
            f"data: images of {images.size[0]}×{images.size[1]} pixels (height×width), the model's are "
            f"{height}×{width}; {fix}"
        )
    return images.in_memory()


def labels_by_name(heptapod: Heptapod, images: ImageSet) -> Tensor:
    """The model's class (M,) of every image, by the name of its class in the data.

    Raises:
        ValueError: for images without a class, or of a class that the model does not have.
    """
    if missing := int((images.labels < 0).sum()):
        raise ValueError(f"data: {missing} of {len(images)} images have no class; give --no_labels and no --zero_shot")
    index = {name: number for number, name in enumerate(heptapod.class_names)}
    present = [images.class_names[label] for label in images.labels.unique().tolist()]
    if unknown := [name for name in present if name not in index]:
        raise ValueError(
            f"data: {len(unknown)} of {len(present)} classes are none of the model's ({_first_names(unknown)}; the "
            f"model has {_first_names(heptapod.class_names)}): name them alike, choose with --classes, or give "
            "--no_labels and no --zero_shot"
        )
    return torch.tensor([index[images.class_names[label]] for label in images.labels.tolist()])


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _likelihood(
    heptapod: Heptapod, pixels: Tensor, labels: Tensor | None, config: LikelihoodConfig
) -> tuple[Tensor, Tensor]:
    """Tokens of the images on all ranks; nats per token (M,) on rank 0."""

    def measure(rows: Tensor) -> dict[str, Tensor]:
        tokens = encode_pixels(heptapod.tokenizer, pixels[rows], config.batch_size)
        nats = negative_log_likelihood(
            heptapod.model, tokens, None if labels is None else labels[rows], config.token_order, config.batch_size,
            rows, config.orders, config.seed,
        )  # fmt: skip
        return {"tokens": tokens, "nats": nats + log_scale(heptapod.tokenizer)}

    results = _by_blocks(len(pixels), config.batch_size, f"likelihood of {len(pixels):,} images", measure)
    tokens = broadcast_tensors({"tokens": results["tokens"]} if process_group.is_main_process() else None)["tokens"]
    return tokens, results.get("nats", torch.empty(0))


def _log_likelihoods(heptapod: Heptapod, tokens: Tensor, classes: Sequence[int], config: LikelihoodConfig) -> Tensor:
    """Log p (M, K) of every image under every class, on rank 0."""

    def measure(rows: Tensor) -> dict[str, Tensor]:
        log_p = zero_shot(
            heptapod.model, tokens[rows], classes, config.token_order, config.orders, config.batch_size, rows,
            config.seed,
        )  # fmt: skip
        return {"log_p": log_p}

    title = f"{len(tokens):,} images under {len(classes):,} classes"
    results = _by_blocks(len(tokens), max(1, config.batch_size // len(classes)), title, measure)
    return results.get("log_p", torch.empty(0))


def _by_blocks(count: int, size: int, title: str, measure: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Results of rows 0..count-1, measured ``size`` rows at a time by all ranks; empty except on rank 0."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    blocks = blocks_of_rank(torch.arange(count).split(size))
    with Progress(title, count) as bar:
        for results in gather_blocks(map(measure, blocks)):
            for name, values in results.items():
                parts[name].append(values)
            bar.advance(len(next(iter(results.values()))))
    return {name: torch.cat(values) for name, values in parts.items()}


def _likelihood_figures(
    heptapod: Heptapod, pixels: Tensor, tokens: Tensor, nats: Tensor, labels: Tensor | None, batch_size: int
) -> dict[str, Any]:
    """Summaries of nats per token (M,): over all images, per class, and in bits."""
    nats = nats.double()
    figures: dict[str, Any] = {"nats_per_token": _summary(nats)}
    if labels is not None:
        figures["nats_per_token_of_class"] = {
            heptapod.class_names[c]: _summary(nats[labels == c]) for c in labels.unique().tolist()
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
    heptapod: Heptapod, log_p: Tensor, labels: Tensor, candidates: Sequence[int]
) -> tuple[dict[str, Any], Image.Image]:
    """Figures and the confusion matrix of choosing among candidates by log p (M, K)."""
    scores = score_answers(log_p, torch.tensor([candidates.index(c) for c in labels.tolist()]))
    names = [heptapod.class_names[c] for c in candidates]
    figures = {
        "accuracy": scores.accuracy,
        "standard_error": scores.standard_error,
        "chance": scores.chance,
        "negative_log_posterior": scores.negative_log_posterior,
        "calibration_error": scores.calibration_error,
        "classes": names,
        "accuracy_of_class": dict(zip(names, scores.class_accuracy, strict=True)),
        "confusion": scores.confusion.tolist(),
    }
    return figures, confusion_picture(scores.confusion, names)


def _extremes(pixels: Tensor, nats: Tensor) -> Image.Image:
    """A row of the most likely images and one of the least likely."""
    order = nats.argsort(stable=True)
    count = min(SHOWN, len(order))
    rows = pixels[torch.cat([order[:count], order.flip(0)[:count]])]
    return image_grid(rows, count, ["most likely", "least likely"])
