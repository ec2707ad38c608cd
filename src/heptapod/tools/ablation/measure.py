"""Measures of a trained arm, stored in the run's ``row.json``; each is computed once."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from torch import Tensor

from heptapod.configs.grid import TokenOrder
from heptapod.data.cache import is_cache, open_cache
from heptapod.data.cached_tokens import load_tokens, paired
from heptapod.data.images import shuffled
from heptapod.data.selection import random_images
from heptapod.data.tokens import TokenSet
from heptapod.distributed.device import resolve_device
from heptapod.evaluation.distances import kernel_distance
from heptapod.evaluation.features import EfficientNetLite0Features, FeatureExtractor
from heptapod.evaluation.layer_features import layer_features
from heptapod.evaluation.probe import best_layer, check_probe_labels, probe_layers
from heptapod.evaluation.samples import ModelSamples
from heptapod.inference.pipeline import Heptapod
from heptapod.likelihood import far_cell_nats, negative_log_likelihood, next_cell_loss
from heptapod.tools.ablation.arms import HeadArm
from heptapod.tools.ablation.copies import copied_share
from heptapod.tools.ablation.study import Measures, Study, sampling_changes
from heptapod.tools.image_features import image_features
from heptapod.training.model_probe import drawn_rows
from heptapod.training.recipe import Recipe
from heptapod.utils.config import to_dict
from heptapod.utils.files import read_json, read_metadata, read_tensors, write_json, write_tensors
from heptapod.utils.logging import Progress
from heptapod.utils.random import Stream

logger = logging.getLogger(__name__)


SHOWN = 10
"""Samples in the figure of the report."""
BATCH = 50


@dataclass
class Real:
    """Features of real images, and a classifier of these features."""

    extractor: FeatureExtractor
    features: Tensor
    """(M, F) float32."""
    class_names: list[str]
    """Names of the classes of the judge."""
    judge: Any
    """A classifier of features; None for images without labels."""
    judge_accuracy: float | None
    """Its accuracy on held-out real images."""
    sha256: str
    """Hash of the images."""


def open_real(study: Study, folder: Path, image_size: int, device: torch.device) -> Real | None:
    """Features of the study's real images, stored in its folder until the study names other images."""
    measures = study.measures
    if not measures.samples or measures.reference is None:
        return None
    extractor = EfficientNetLite0Features(device)
    path = folder / "reference.safetensors"
    wanted = {"reference": measures.reference, "images": str(measures.reference_images), "features": extractor.name}
    if not path.is_file() or wanted.items() - read_metadata(path).items():
        draw = (Stream.EVALUATION, 0)
        count = measures.reference_images
        images = random_images("ablate", "measures.reference", measures.reference, image_size, count, draw)
        features = image_features(extractor, images.in_memory(), BATCH)
        about = {**wanted, "sha256": str(images.sha256()), "class_names": json.dumps(images.class_names)}
        write_tensors(path, {"features": features, "labels": images.labels}, about)
    stored, about = read_tensors(path), read_metadata(path)
    if stored.keys() != {"features", "labels"} or not {"sha256", "class_names"} <= about.keys():
        raise ValueError(f"{path}: damaged; remove it, and run the same command again")
    judge, accuracy = _judge(stored["features"], stored["labels"])
    return Real(extractor, stored["features"], json.loads(about["class_names"]), judge, accuracy, about["sha256"])


def _judge(features: Tensor, labels: Tensor) -> tuple[Any, float | None]:
    """A logistic regression on the features of real images, and its accuracy on the half that it was not fitted on."""
    if labels.min() < 0 or len(labels.unique()) < 2:
        return None, None
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = features.numpy(), labels.numpy()
    half = np.arange(len(y)) % 2 == 0
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    accuracy = float(judge.fit(x[half], y[half]).score(x[~half], y[~half]))
    return judge.fit(x, y), accuracy


def measured_tokens(recipe: Recipe, measures: Measures) -> tuple[TokenSet, TokenSet]:
    """Tokens of the training images, and of the images that are measured: of ``test``, or held out by the training.

    Raises:
        FileNotFoundError, ValueError: if a cache is missing or damaged, or those of the training and the test are the
            same, or differ in tokenizer, grid or classes.
    """
    train, held_out = load_tokens(recipe.data)
    if measures.test is None:
        return train, held_out
    path, setting = Path(measures.test), "measures.test"
    if not is_cache(path):
        raise FileNotFoundError(f"{setting}: {path} is not a cache; create one with heptapod tokenize")
    for used in (recipe.data.path, recipe.data.validation_path):
        if used is not None and path.resolve() == Path(used).resolve():
            raise ValueError(f"{setting}: {path} given, which the training reads too; give other images")
    tokens = paired(open_cache(Path(recipe.data.path)), open_cache(path), setting).tokens
    tokens = tokens.subset(shuffled(len(tokens)))
    tokens.views = [0]
    return train, tokens


def measure_run(recipe: Recipe, measures: Measures, head: HeadArm, real: Real | None) -> dict[str, Any]:
    """All measures of a run's weights. Those in ``row.json`` with equal settings are not computed again."""
    out = Path(recipe.out)
    path = out / "row.json"
    row = read_row(path) if path.is_file() else {}
    heptapod = Heptapod.from_pretrained(out / measures.weights, resolve_device(recipe.device))
    train, held_out = measured_tokens(recipe, measures)
    num_cells = heptapod.model.grid.num_cells
    requested = requested_measures(measures, head, heptapod.model.head.reaches_grid, num_cells, heptapod.token_order)
    for name, settings in requested.items():
        if row.get(name, {}).get("settings") == settings:
            continue
        if name in ("nll", "nll_orders"):
            values = _likelihood(heptapod, held_out, settings, out / f"{name}.safetensors")
        elif name == "far":
            values = _far(heptapod, held_out, measures.far_images)
        elif name == "probe":
            values = _probe(heptapod, train, held_out, measures.probe_images)
        else:
            assert real is not None
            changes = {"steps": settings["steps"], **sampling_at(measures, head, settings["steps"], num_cells)}
            values = _samples(heptapod, measures, changes, real, out, (train, held_out))
        row = {**row, name: {"settings": settings, **values}}
        write_json(path, row)
    return row


def read_row(path: Path) -> dict[str, dict[str, Any]]:
    """The measures of a run by name.

    Raises:
        ValueError: if their file is damaged.
    """
    try:
        return pydantic.TypeAdapter(dict[str, dict[str, Any]]).validate_python(read_json(path))
    except pydantic.ValidationError:
        raise ValueError(f"{path}: damaged; remove it, and run the same command again to measure the run") from None


def requested_measures(
    measures: Measures, head: HeadArm, reaches_grid: bool, num_cells: int, token_order: TokenOrder
) -> dict[str, dict[str, Any]]:
    """Names of the measures of a run, and the settings on which each depends (without those at their defaults)."""
    weights = {} if measures.weights == "last" else {"weights": measures.weights}
    images = weights | ({} if measures.test is None else {"test": measures.test})
    requested: dict[str, dict[str, Any]] = {"nll": {"images": measures.nll_images, **images}}
    if token_order == "mixed":
        requested["nll"]["token_order"] = "raster"
    if token_order != "raster" and measures.orders > 1:
        requested["nll_orders"] = {"images": measures.nll_images, "orders": measures.orders, **images}
    if measures.far_images and reaches_grid:
        requested["far"] = {"images": measures.far_images, **images}
    if measures.probe_images:
        requested["probe"] = {"images": measures.probe_images, **images}
    if measures.samples:
        shared = {"samples": measures.samples, "temperature": measures.temperature, "label_policy": "balanced"}
        shared |= {"reference": measures.reference, "reference_images": measures.reference_images, **weights}
        if measures.copies:
            shared |= {"copies": True, "test": measures.test}
        for count in sorted(_step_counts(measures, num_cells) if reaches_grid else [num_cells], reverse=True):
            changes = sampling_at(measures, head, count, num_cells)
            more = {"sampling": changes} if measures.sampling or head.sampling else {}
            requested[f"samples_at_{count}"] = {"steps": count, **shared, **more}
    return requested


def _step_counts(measures: Measures, num_cells: int) -> dict[int, int]:
    """The ``sampling_steps`` of the study by the number of steps that each stands for on a grid."""
    return {min(count or num_cells, num_cells): count for count in reversed(measures.sampling_steps)}


def sampling_at(measures: Measures, head: HeadArm, steps: int, num_cells: int) -> dict[str, Any]:
    """Changes to the recipe's sampling at a number of steps on a grid of ``num_cells``."""
    return sampling_changes(measures, head, _step_counts(measures, num_cells).get(steps, 0))


def _likelihood(heptapod: Heptapod, held_out: TokenSet, settings: dict[str, Any], per_image: Path) -> dict[str, Any]:
    """Held-out nats per token, or the loss of a distribution without likelihood.

    A file stores the values of single images, for paired comparisons.
    """
    count, order = settings["images"], settings.get("token_order", heptapod.token_order)
    tokens, labels = held_out.head(count), held_out.labels[:count]
    has_likelihood = heptapod.model.distribution.has_likelihood
    if has_likelihood:
        orders = settings.get("orders", 1)
        values = negative_log_likelihood(heptapod.model, tokens, labels, order, orders=orders, progress=orders > 1)
    else:
        values = next_cell_loss(heptapod.model, tokens, labels, order)
    values = values.double()
    write_tensors(per_image, {"values": values})
    return _mean("nats_per_token" if has_likelihood else "loss", values)


def _mean(name: str, values: Tensor) -> dict[str, Any]:
    """The mean over images under a name, with its standard error."""
    error = float(values.std() / len(values) ** 0.5)
    return {name: float(values.mean()), "standard_error": error, "images": len(values)}


def _far(heptapod: Heptapod, held_out: TokenSet, count: int) -> dict[str, Any]:
    """Nats of far cells given the prefix alone, in the order of training."""
    labels = held_out.labels[:count]
    values = far_cell_nats(heptapod.model, held_out.head(count), labels, heptapod.token_order).double()
    return _mean("nats_per_cell", values)


def probe_images(
    train: TokenSet, held_out: TokenSet, count: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Tokens and labels of ``count`` random training images and of ``count // 2`` held-out images.

    Raises:
        ValueError: if they have too few labels for a probe.
    """
    chosen = train.subset(drawn_rows(len(train), count, 0))
    tokens, labels = (chosen.head(count), held_out.head(count // 2)), (chosen.labels, held_out.labels[: count // 2])
    check_probe_labels(*labels, train.class_names, "measures.probe_images")
    return tokens, labels


def _probe(heptapod: Heptapod, train: TokenSet, held_out: TokenSet, count: int) -> dict[str, Any]:
    """Accuracy of a linear classifier and of nearest neighbors on every layer; the model does not see the label."""
    tokens, labels = probe_images(train, held_out, count)
    features = [layer_features(heptapod.model, part, heptapod.token_order) for part in tokens]
    results = probe_layers(features[0], labels[0], features[1], labels[1], title="probing")
    best = best_layer(results)
    return {
        "best_layer": best,
        "accuracy": results[best].linear,
        "knn_accuracy": results[best].knn,
        "linear_by_layer": {name: result.linear for name, result in results.items()},
        "train_images": len(labels[0]),
        "test_images": len(labels[1]),
    }


def _samples(
    heptapod: Heptapod,
    measures: Measures,
    changes: dict[str, Any],
    real: Real,
    out: Path,
    tokens: tuple[TokenSet, TokenSet],
) -> dict[str, Any]:
    """Kernel distance of balanced samples to the real images, the share that the judge assigns to their label, copies.

    Args:
        heptapod: the model.
        measures: of the study.
        changes: to the model's sampling config; with the number of steps.
        real: the real images.
        out: folder of the run.
        tokens: of the training images and of the measured ones.
    """
    steps = changes["steps"]
    samples = ModelSamples(heptapod, out / measures.weights, measures.samples, None, (), 0, BATCH, changes)
    labels = samples.indices()
    request = samples.request if labels is None else dataclasses.replace(samples.request, labels=labels)
    started = time.perf_counter()
    with Progress(f"sampling {samples.count:,} images", samples.count) as bar:
        grids, parts = [], []
        for rows, count in request.batches():
            grids.append(request.sample_batch(heptapod.model, rows, count))
            parts.append(heptapod.decode(grids[-1], BATCH))
            bar.advance(count)
    images = torch.cat(parts)
    seconds = time.perf_counter() - started
    write_tensors(out / f"shown_{steps}.safetensors", {"images": images[:SHOWN]})
    features = image_features(real.extractor, images, BATCH)
    distance = kernel_distance(features, real.features)
    figure: dict[str, Any] = {
        "kernel_distance": distance.mean,
        "standard_error": distance.standard_error,
        "features": real.extractor.name,
        "reference_sha256": real.sha256,
        "seeds": [0, measures.samples - 1],
        "sampling": to_dict(heptapod.sampling_config(**changes)),
        "seconds": seconds,
    }
    if real.judge is not None and real.class_names == heptapod.class_names:
        figure["recognised"] = float((real.judge.predict(features.numpy()) == np.array(labels)).mean())
        figure["judge_accuracy_on_real"] = real.judge_accuracy
    if measures.copies:
        train, held_out = tokens
        figure["copied"] = copied_share(torch.cat(grids).cpu(), train)
        figure["copied_held_out"] = copied_share(held_out.head(measures.samples), train)
    logger.info(
        f"  {steps} steps: kernel distance {distance.mean:.4f}, recognized {figure.get('recognised', float('nan')):.1%}"
    )
    return figure
