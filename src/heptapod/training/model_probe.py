"""Probes of a model during training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from heptapod.configs.grid import TokenOrder
from heptapod.data import ImageSet, TokenSet
from heptapod.evaluation.layer_features import check_unlabeled, layer_features, layer_names
from heptapod.evaluation.probe import best_layer, check_probe_labels, probe_layers
from heptapod.models.heptapod import HeptapodModel
from heptapod.training.config import ProbeConfig
from heptapod.utils.random import Stream, numpy_generator, random_rows


class ModelProbe:
    """Probes of every layer, on the same training and held-out images at each evaluation.

    Args:
        config: numbers of images.
        train: labeled training tokens; the unaugmented view is used.
        validation: held-out tokens to test on.
        token_order: the order(s) the model is trained on.
        seed: seed of the choice of training images.
    """

    def __init__(
        self, config: ProbeConfig, train: TokenSet, validation: TokenSet, token_order: TokenOrder, seed: int
    ) -> None:
        subset = train.subset(drawn_rows(len(train), config.images, seed))
        self.token_order = token_order
        self.seed = seed
        self.train, self.train_labels = subset.head(len(subset)), subset.labels
        self.test, self.test_labels = validation.head(config.test_images), validation.labels[: config.test_images]

    def __call__(self, model: HeptapodModel) -> dict[str, float]:
        """Held-out accuracies of the layer that is best on held-out training images, and the index of that layer."""
        train, test = (layer_features(model, tokens, self.token_order) for tokens in (self.train, self.test))
        results = probe_layers(train, self.train_labels, test, self.test_labels, self.seed)
        best = best_layer(results)
        return {
            "probe_linear_accuracy": results[best].linear,
            "probe_knn_accuracy": results[best].knn,
            "probe_best_layer": layer_names(model).index(best),
        }


def check_probe(
    config: ProbeConfig, label_dropout: float, train: ImageSet | TokenSet, validation: ImageSet | TokenSet, seed: int
) -> None:
    """Checks that a run can have probes.

    Raises:
        ValueError: if the model is always given the label, the data has no labels or too few images of a class, or
            scikit-learn is not installed.
    """
    if not config.images:
        return
    check_unlabeled(len(train.class_names), label_dropout)
    rows = torch.from_numpy(drawn_rows(len(train), config.images, seed))
    held_out: Tensor = validation.labels[: config.test_images]
    check_probe_labels(train.labels[rows], held_out, train.class_names, "probe.images")


def drawn_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Indices of the training images of a probe, ascending."""
    return random_rows(numpy_generator(Stream.EVALUATION, seed, 3), total, count)
