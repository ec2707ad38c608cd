"""Training and held-out tokens, read from caches with the split that their images would have."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from heptapod.configs.data import DataConfig
from heptapod.data.cache import Cache, is_cache, open_cache
from heptapod.data.images import shuffled, split_rows
from heptapod.data.labels import matched_labels
from heptapod.data.tokens import TokenSet

logger = logging.getLogger(__name__)


def load_tokens(config: DataConfig) -> tuple[TokenSet, TokenSet]:
    """Training and held-out tokens of caches, with the split that :func:`load_images` gives their images.

    Raises:
        FileNotFoundError, ValueError: if a cache is missing, incomplete or damaged, or contradicts the settings or the
            other cache.
    """
    train = open_cache(Path(config.path))
    _check_settings(train, config, "data.path")
    _check_split(train, config.split, "data.split")
    if config.validation_split is not None and config.validation_path is None:
        raise ValueError(
            f"data.validation_split: {config.validation_split} given, but a cache holds one split; tokenize the other "
            "as well, and give it as data.validation_path"
        )
    is_held_out = np.zeros(train.description.source_images, dtype=bool)
    is_held_out[train.rows[train.held_out]] = True
    labels = np.full(train.description.source_images, -1)
    labels[train.rows] = train.tokens.labels.numpy()
    train_rows, held_out_rows = split_rows(is_held_out, config, labels)
    held_out = train
    if config.validation_path is not None:
        if not is_cache(Path(config.validation_path)):
            raise ValueError(f"data.validation_path: {config.validation_path} is not a cache, but data.path is one")
        held_out = open_cache(Path(config.validation_path))
        if Path(config.path).resolve() == Path(config.validation_path).resolve():
            logger.warning("data: all held-out tokens are training tokens too; figures measured on them are too good")
        _check_settings(held_out, config, "data.validation_path")
        _check_split(held_out, config.validation_split, "data.validation_split")
        held_out = paired(train, held_out)
        held_out_rows = np.arange(held_out.description.source_images)
    training, validation = _with_rows(train, train_rows), _with_rows(held_out, held_out_rows)
    for setting, part, origin in (
        ("data.path", training, train),
        ("data.validation_path", validation, held_out),
    ):
        if not len(part):
            raise ValueError(
                f"{setting}: {origin.folder} has no {'training' if part is training else 'held-out'} image; "
                "change data.validation_fraction or the images"
            )
    if not config.flip:
        training.views = [view for view in training.views if not (train.description.settings.flip and view % 2)]
    validation = validation.subset(shuffled(len(validation)))
    validation.views = [0]
    training.unreadable = train.tokens.unreadable
    validation.unreadable = held_out.tokens.unreadable if held_out is not train else []
    return training, validation


def _with_rows(cache: Cache, rows: np.ndarray) -> TokenSet:
    return cache.tokens.subset(np.flatnonzero(np.isin(cache.rows, rows)))


def _check_settings(cache: Cache, config: DataConfig, setting: str) -> None:
    made = cache.description.settings
    if config.flip and not made.flip and setting == "data.path":
        raise ValueError(f"data.flip: true given, but {cache.folder} has no mirrored views; tokenize with --flip")
    size = config.image_size
    if size and (size, size) != cache.image_size:
        raise ValueError(
            f"data.image_size: {size} given, but {cache.folder} was made from images of "
            f"{cache.image_size[0]}×{cache.image_size[1]} pixels"
        )


def _check_split(cache: Cache, asked: str | None, setting: str) -> None:
    """Raises if a cache holds another split than is asked for, or one that must be asked for."""
    split = cache.description.split
    if asked not in (None, split) and not (split is None and asked in ("all", "train")):
        raise ValueError(f"{setting}: {asked} given, but {cache.folder} holds {split or 'a set without splits'}")
    if split in ("validation", "test") and asked is None and setting == "data.split":
        raise ValueError(
            f"data.path: {cache.folder} holds the split {split}; to train on it, ask for it: data.split {split}"
        )


def paired(train: Cache, held_out: Cache, setting: str = "data.validation_path") -> Cache:
    """The held-out cache with its labels as indices of the training classes, matched by name.

    Raises:
        ValueError: naming the setting, if the two differ in tokenizer or grid, or the training lacks a class.
    """
    for name, train_value, held_out_value in (
        ("tokenizer", train.description.tokenizer_sha256, held_out.description.tokenizer_sha256),
        ("grid", train.tokens.grid, held_out.tokens.grid),
    ):
        if train_value != held_out_value:
            raise ValueError(f"{setting}: {held_out.folder} and {train.folder} differ in their {name}")
    names, classes = held_out.tokens.class_names, train.tokens.class_names
    labels = matched_labels(
        held_out.tokens.labels.tolist(), names, classes, setting, str(held_out.folder), str(train.folder)
    )
    tokens = replace(held_out.tokens, labels=torch.tensor(labels), class_names=classes)
    return replace(held_out, tokens=tokens)
