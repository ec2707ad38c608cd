"""The images of ``heptapod probe``: as tokens of a model's tokenizer, and as pixels."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heptapod.data import DataConfig, ImageSet, TokenSet, encode_images
from heptapod.data.cache import is_cache, read_description
from heptapod.data.cached_tokens import load_tokens
from heptapod.data.images import decode, open_training, open_validation, split_rows, warn_if_shared, with_classes_of
from heptapod.data.sources import Source
from heptapod.evaluation.probe import check_probe_labels
from heptapod.inference.pipeline import Heptapod
from heptapod.tokenizers import tokenizer_hash
from heptapod.utils.random import Stream, numpy_generator, random_rows

logger = logging.getLogger(__name__)


@dataclass
class ProbeData:
    """Training and test images, as tokens and as pixels."""

    train: TokenSet
    test: TokenSet
    pixels: tuple[Tensor, Tensor] | None
    """(M, 3·h·w) and (T, 3·h·w) uint8; None if there are only tokens, or pixels are not probed."""
    unreadable: list[str]


def load_probe_data(
    heptapod: Heptapod, config: DataConfig, counts: tuple[int | None, int | None], seed: int, pixels: bool
) -> ProbeData:
    """Training and test images of a set of images or a cache, all or the given numbers at random.

    Raises:
        FileNotFoundError, ValueError: if they do not exist, do not fit the model, or cannot be probed.
    """
    load = _from_cache if is_cache(Path(config.path)) else _from_images
    return load(heptapod, config, counts, seed, pixels)


def _from_images(
    heptapod: Heptapod, config: DataConfig, counts: tuple[int | None, int | None], seed: int, pixels: bool
) -> ProbeData:
    source = open_training(config, "data")
    test_source = source
    if config.has_validation:
        test_source = with_classes_of(source, open_validation(config, "test_data"), "test_data")
    if config.image_size:
        _check_size(heptapod, (config.image_size, config.image_size))
    train_rows, test_rows = split_rows(source.is_held_out(), config, source.labels)
    if test_source is not source:
        test_rows = np.arange(len(test_source.names))
    train_part, test_part = _random_part(train_rows, counts[0], seed, 3), _random_part(test_rows, counts[1], seed, 4)
    parts = [(source, train_part), (test_source, test_part)]
    train_labels, test_labels = (torch.tensor(origin.labels)[torch.from_numpy(rows)] for origin, rows in parts)
    check_probe_labels(train_labels, test_labels, source.class_names)
    train, test = (_decoded(heptapod, origin, config, rows) for origin, rows in parts)
    if config.has_validation:
        warn_if_shared(train, test, Path(source.path) == Path(test_source.path))
    check_probe_labels(train.labels, test.labels, source.class_names)  # some may be unreadable
    if pixels and (train.is_slow or test.is_slow):
        raise ValueError("pixels: the images do not fit into memory_gib together; give --no_pixels, or raise it")
    raw = _raw_pixels(train.in_memory(), test.in_memory()) if pixels else None
    train_tokens, test_tokens = (encode_images(heptapod.tokenizer, part) for part in (train, test))
    return ProbeData(train_tokens, test_tokens, raw, [*train.unreadable, *test.unreadable])


def _decoded(heptapod: Heptapod, source: Source, config: DataConfig, rows: np.ndarray) -> ImageSet:
    images = decode(source, config, rows)
    for line in images.unreadable[:5]:
        logger.warning(f"data: left out, {line}")
    _check_size(heptapod, images.size)
    return images


def _from_cache(
    heptapod: Heptapod, config: DataConfig, counts: tuple[int | None, int | None], seed: int, pixels: bool
) -> ProbeData:
    for setting, path in (("data", config.path), ("test_data", config.validation_path)):
        if path is not None and is_cache(Path(path)):
            made_with, model_hash = read_description(Path(path)).tokenizer_sha256, tokenizer_hash(heptapod.tokenizer)
            if made_with != model_hash:
                raise ValueError(
                    f"{setting}: {path} was made with a tokenizer of hash {made_with[:16]}…, the model's has the hash "
                    f"{model_hash[:16]}…; its tokens mean something else"
                )
    train, test = load_tokens(config)
    _check_size(heptapod, heptapod.tokenizer.image_size(train.grid))
    assert test.rows is not None
    test = test.subset(test.rows.argsort().numpy())  # in the order of their source, as images are read
    train = train.subset(_random_part(np.arange(len(train)), counts[0], seed, 3))
    test = test.subset(_random_part(np.arange(len(test)), counts[1], seed, 4))
    check_probe_labels(train.labels, test.labels, train.class_names)
    for part in (train, test):
        part.check_finite()
    if pixels:
        logger.warning("raw pixels are left out: a cache holds tokens only")
    return ProbeData(train, test, None, [])


def _random_part(rows: np.ndarray, count: int | None, seed: int, key: int) -> np.ndarray:
    """``count`` of the rows at random, ascending; all if it is None."""
    part: np.ndarray = rows[random_rows(numpy_generator(Stream.EVALUATION, seed, key), len(rows), count)]
    return part


def _check_size(heptapod: Heptapod, size: tuple[int, int]) -> None:
    height, width = heptapod.image_size
    if size != (height, width):
        raise ValueError(
            f"data: images of {size[0]}×{size[1]} pixels, the model was trained on {height}×{width}"
            + (f"; set image_size to {height}" if height == width else "")
        )


def _raw_pixels(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (M, h·w or 3·h·w): one channel of images without color."""
    is_gray = all(bool((images == images[:, :1]).all()) for images in (train, test))
    first, second = (images[:, :1] if is_gray else images for images in (train, test))
    return first.flatten(1), second.flatten(1)
