"""Which images of a set a command looks at: all, a random part, one side of its split, some classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from heptapod.data import DataConfig, ImageSet
from heptapod.data.images import decode, split_rows
from heptapod.data.sources import open_source
from heptapod.utils.config import from_dict
from heptapod.utils.logging import say
from heptapod.utils.random import Stream, numpy_generator, random_rows


def random_images(
    command: str, setting: str, data: str, image_size: int, count: int | None, draw: tuple[Stream, int], **limits: float
) -> ImageSet:
    """All images of a set or a random part, in the order of their source; says which cannot be read.

    Args:
        command: for messages.
        setting: the argument that gave ``data``, for messages.
        data: a folder, parquet file(s), .tar shards or a built-in set.
        image_size: side after resizing and cropping, 0 keeps the size.
        count: how many; None for all.
        draw: purpose and seed of the draw.
        **limits: other fields of DataConfig (``memory_gib``).
    """
    source = open_source(data, setting)
    config = from_dict(DataConfig, {"path": data, "image_size": image_size, **limits}, command)
    rows = random_rows(numpy_generator(*draw), len(source.names), count)
    images = decode(source, config, rows)
    for line in images.unreadable[:5]:
        say(f"{setting}: left out, {line}")
    return images


Split = Literal["held_out", "train", "all"]


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
    """Images of one side of a set, perhaps of some classes only, perhaps a random part; says which cannot be read.

    Args:
        command: for messages.
        data: a folder, parquet file(s), .tar shards or a built-in set.
        split: held_out takes the set's own held-out images, or those that training holds out where it has none; train
            the others.
        image_size: side after resizing and cropping, 0 keeps the size.
        classes: names of the only classes wanted; None for all images, also those without a label.
        count: how many; None for all.
        seed: keys the draw.
        memory_gib: refuse more than this many GiB of decoded images.

    Returns:
        The images, in the order of their source.
    """
    source = open_source(data, "data")
    config = from_dict(DataConfig, {"path": data, "image_size": image_size, "memory_gib": memory_gib}, command)
    if split == "all":
        rows = np.arange(len(source.names))
    else:
        train, held_out = split_rows(source.is_held_out(), config)
        rows = train if split == "train" else held_out
    if classes is not None:
        wanted = [number for number, name in enumerate(source.class_names) if name in classes]
        rows = rows[np.isin(np.array(source.labels)[rows], wanted)]
        if len(rows) == 0:
            raise ValueError(f"classes: {', '.join(classes)} given, but the {split} images of {data} hold none of them")
    if count is not None:
        rows = rows[random_rows(numpy_generator(Stream.EVALUATION, seed), len(rows), count)]
    images = decode(source, config, rows)
    for line in images.unreadable[:5]:
        say(f"data: left out, {line}")
    return images
