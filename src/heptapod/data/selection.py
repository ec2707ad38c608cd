"""Selects images of a data set: all, a random part, one side of its split, some classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from heptapod.configs.data import Split, SplitName
from heptapod.data import DataConfig, ImageSet
from heptapod.data.images import decode, split_rows
from heptapod.data.sources import Source, open_source
from heptapod.data.splits import SplitChoice
from heptapod.utils.config import from_dict
from heptapod.utils.random import Stream, numpy_generator, random_rows

logger = logging.getLogger(__name__)


def random_images(
    command: str,
    setting: str,
    data: str,
    image_size: int,
    count: int | None,
    draw: tuple[Stream, int],
    split: SplitName | None = None,
    **limits: float,
) -> ImageSet:
    """All images of a data set or a random part, in the order of their source; reports unreadable ones.

    Args:
        command: name of the command, for messages.
        setting: the argument with the value ``data``, for messages.
        data: a folder, parquet file(s), .tar shards or a built-in set.
        image_size: side after resizing and cropping, 0 keeps the size.
        count: number of images; None for all.
        draw: purpose and seed of the random choice.
        split: the split of the data set, if it has several; None for train.
        **limits: other fields of DataConfig (``memory_gib``).
    """
    source = open_source(data, setting, SplitChoice(split))
    config = from_dict(DataConfig, {"path": data, "image_size": image_size, **limits}, command)
    return _decode(source, config, np.arange(len(source.names)), count, draw, setting)


def split_images(
    command: str,
    data: str,
    split: Split,
    image_size: int,
    classes: Sequence[str] | None,
    count: int | None,
    seed: int,
    memory_gib: float,
) -> ImageSet:
    """Images of one side of a split, in the order of their source; reports unreadable ones.

    Args:
        command: name of the command, for messages.
        data: a folder, parquet file(s), .tar shards or a built-in set.
        split: held_out: the held-out images of the set (its split validation, else test), or those that training holds
            out if the set has none; train: the others; all; validation or test: this split of the set.
        image_size: side after resizing and cropping, 0 keeps the size.
        classes: names of the only classes; None for all images, also those without a label.
        count: number of images, chosen at random; None for all.
        seed: seed of the random choice.
        memory_gib: maximum GiB of decoded images.

    Raises:
        ValueError: if the split has no image of the classes, or the images exceed ``memory_gib``.
    """
    preferred: tuple[SplitName, ...] = ("validation", "test", "train") if split == "held_out" else ("train",)
    named: SplitName | None = None if split == "held_out" or split == "train" else split
    source = open_source(data, "data", SplitChoice(named, preferred))
    config = from_dict(DataConfig, {"path": data, "image_size": image_size, "memory_gib": memory_gib}, command)
    if split == "train" and source.split not in (None, "train"):
        raise ValueError(f"split: train given, but {data} has only the split {source.split}")
    if named is not None or source.split in ("validation", "test"):
        rows = np.arange(len(source.names))
    else:
        train, held_out = split_rows(source.is_held_out(), config, source.labels)
        rows = train if split == "train" else held_out
    if classes is not None:
        numbers = [number for number, name in enumerate(source.class_names) if name in classes]
        rows = rows[np.isin(np.array(source.labels)[rows], numbers)]
        if len(rows) == 0:
            raise ValueError(f"classes: {', '.join(classes)} given, but the {split} images of {data} hold none of them")
    return _decode(source, config, rows, count, (Stream.EVALUATION, seed), "data")


def _decode(
    source: Source, config: DataConfig, rows: np.ndarray, count: int | None, draw: tuple[Stream, int], setting: str
) -> ImageSet:
    """Decodes rows of a source, or a random choice of ``count`` of them; reports the first five unreadable images."""
    if count is not None:
        rows = rows[random_rows(numpy_generator(*draw), len(rows), count)]
    images = decode(source, config, rows)
    for line in images.unreadable[:5]:
        logger.warning(f"{setting}: skipped, {line}")
    return images
