"""Settings of the images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from heptapod.utils.config import settings

MAX_SIDE = 1 << 14
"""Pixels per side, at most."""
MAX_IMAGES = 10**10
"""Images of a set, at most."""
Split = Literal["held_out", "train", "all", "validation", "test"]
SplitName = Literal["train", "validation", "test", "all"]
"""A split, or all of them together."""


@settings
class DataConfig:
    """Where images come from and how they are prepared."""

    path: str = "mnist5k"
    """The built-in set mnist5k, a folder of images (one folder per class, or none), parquet file(s), or shards of
    WebDataset: a folder of .tar files, one of them, or a pattern such as shards/train-{000000..000146}.tar (quoted in a
    shell)."""
    image_size: Annotated[int, Field(ge=0, le=MAX_SIDE)] = 0
    """Pixels per side after resizing the short side and cropping the center; 0 keeps the images as they are."""
    flip: bool = False
    """Mirror each training image with probability 1/2."""
    split: SplitName | None = None
    """The split to train on, if the set has several (folders or files named train, validation, test); train if unset.
    all: the whole set."""
    validation_path: str | None = None
    """Held-out images; if unset a fixed share of the training images is held out."""
    validation_split: SplitName | None = None
    """The split of validation_path to hold out, or, without it, of path: validation holds that split of the set out. If
    unset, validation or test of a validation_path with splits."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share of the images held out where neither validation_path nor validation_split is set."""
    limit: Annotated[int, Field(ge=2, le=MAX_IMAGES)] | None = None
    """Use only the first images of a fixed random order (for a quick test)."""
    memory_gib: Annotated[float, Field(gt=0, le=1e6)] = 8.0
    """Hold at most this many GiB of decoded images in memory. Larger folders and .tar shards (with an image_size)
    are decoded as they are read; larger parquet files are refused."""

    @property
    def has_validation(self) -> bool:
        """Whether the held-out images are a separate set or split."""
        return self.validation_path is not None or self.validation_split is not None
