"""The images that a command about tokenizers looks at."""

from __future__ import annotations

from heptapod.config import from_dict
from heptapod.data import DataConfig, ImageSet
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from heptapod.progress import say
from heptapod.random import Stream, numpy_generator


def random_images(
    command: str, setting: str, data: str, image_size: int, count: int | None, draw: tuple[Stream, int], **limits: float
) -> ImageSet:
    """All images of a set or a random part, in the order of their source; says which cannot be read.

    Args:
        command: for messages.
        setting: the argument that gave ``data``, for messages.
        data: a folder, parquet file(s) or a built-in set.
        image_size: side after resizing and cropping, 0 keeps the size.
        count: how many; None for all.
        draw: purpose and seed of the draw.
        **limits: other fields of DataConfig (``memory_gib``).
    """
    source = open_source(data, setting)
    config = from_dict(DataConfig, {"path": data, "image_size": image_size, **limits}, command)
    rows = numpy_generator(*draw).permutation(len(source.names))[:count]
    rows.sort()
    images = decode(source, config, rows)
    for line in images.unreadable[:5]:
        say(f"{setting}: left out, {line}")
    return images
