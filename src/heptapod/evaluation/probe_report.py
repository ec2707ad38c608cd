"""Probes a model's layers, a random model and raw pixels on the same images, and sums up the accuracies."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from heptapod.evaluation import probe as probes
from heptapod.evaluation.layer_features import layer_features, reading_order
from heptapod.evaluation.probe import Accuracy, best_layer, probe_layers
from heptapod.evaluation.probe_data import ProbeData
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.precision import dtype_name
from heptapod.models import HeptapodModel
from heptapod.models.heptapod import build_model
from heptapod.tokenizers import tokenizer_hash

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeReport:
    """The accuracies of a probe."""

    results: dict[str, dict[str, Accuracy]]
    """By layer: of the model ("layers"), of a model with random weights ("random_model") and of raw "pixels"."""
    figures: dict[str, Any]
    """JSON-safe: settings of the classifiers, all accuracies and the best layer."""


def probe_model(
    heptapod: Heptapod, data: ProbeData, layers: list[str], batch_size: int, seed: int, random_model: bool = True
) -> ProbeReport:
    """Probes layers of a model and, for comparison, a random model and raw pixels.

    Args:
        heptapod: the model.
        data: training and test images; their pixels are probed if they are there.
        layers: names of the layers.
        batch_size: images the model reads at a time.
        seed: keys the split that chooses the regularization, and the random weights.
        random_model: also probe a model of the same shape with random weights.
    """

    def probed(model: HeptapodModel, name: str) -> dict[str, Accuracy]:
        train, test = (
            layer_features(model, part.head(len(part)), heptapod.token_order, layers, batch_size, f"{title}, {name}")
            for title, part in (("training images", data.train), ("test images", data.test))
        )
        return probe_layers(train, data.train.labels, test, data.test.labels, seed, f"probing {name}")

    results = {"layers": probed(heptapod.model, "the model")}
    if random_model:
        trained = heptapod.model
        fresh = build_model(trained.config, trained.trained_grid, trained.num_classes, seed)
        results["random_model"] = probed(fresh.to(trained.token_embedding.weight.device).eval(), "random weights")
    if data.pixels is not None:
        logger.info("probing raw pixels")
        train, test = (part.float() for part in data.pixels)
        results["pixels"] = {"pixels": probes.probe(train, data.train.labels, test, data.test.labels, seed)}
    figures = {
        "seed": seed,
        "neighbours": probes.NEIGHBORS,
        "temperature": probes.TEMPERATURE,
        "strengths": list(probes.STRENGTHS),
        **_summary(results, data),
    }
    return ProbeReport(results, figures)


def selected_layers(names: list[str], layers: Collection[str]) -> list[str]:
    """The given layers in the order of the model; all if none are given.

    Raises:
        ValueError: for an unknown layer.
    """
    if unknown := [layer for layer in layers if layer not in names]:
        raise ValueError(f"layers: {unknown[0]} given, must be among {', '.join(names)}")
    return [name for name in names if not layers or name in layers]


def check_memory(data: ProbeData, features: int, memory_gib: float) -> None:
    """Raises ValueError if features (float32) or pixels (float64, for the linear probe) exceed a limit in GiB."""
    pixel_bytes = 8 * data.pixels[0].shape[1] if data.pixels is not None else 0
    needed = (len(data.train) + len(data.test)) * max(4 * features, pixel_bytes)
    if needed > memory_gib * 2**30:
        raise ValueError(
            f"memory_gib: {memory_gib} given, but the features need {needed / 2**30:.1f} GiB; raise it, use fewer "
            "images (count, test_count), name fewer layers, or give --no_pixels"
        )


def model_facts(heptapod: Heptapod) -> dict[str, Any]:
    """The facts about a model that results contain, JSON-safe."""
    return {
        "tokenizer_sha256": tokenizer_hash(heptapod.tokenizer),
        "head": heptapod.model.config.head.kind,
        "classes": heptapod.model.num_classes,
        "label_dropout": heptapod.label_dropout,
        "token_order": heptapod.token_order,
        "read_in": reading_order(heptapod.token_order),
        "cells": heptapod.model.grid.num_cells,
        "step": heptapod.metadata.get("step"),
        "precision": dtype_name(heptapod.model.dtype),
    }


def data_facts(data: ProbeData) -> dict[str, Any]:
    """The facts about the images that results contain, JSON-safe."""
    return {
        "classes": len(data.train.class_names),
        "train_images": len(data.train),
        "test_images": len(data.test),
        "train_sha256": data.train.sha256(),
        "test_sha256": data.test.sha256(),
        "unreadable": data.unreadable,
    }


def _summary(results: dict[str, dict[str, Accuracy]], data: ProbeData) -> dict[str, Any]:
    """All accuracies, and the best layer compared with the baselines."""
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
        figures[name] = {layer: dataclasses.asdict(accuracy) for layer, accuracy in layers.items()}
    return figures
