"""The latent cache: tokens of an image set on disk, in shards that are complete or absent.

```text
CACHE/cache.json                settings and source, written first
CACHE/tokenizer/                the tokenizer
CACHE/shards/00000.safetensors  tokens (m, views, N) or (m, views, N, C), labels, rows, held_out;
                                names in the metadata
CACHE/index.json                written last: counts, missing images, size and SHA-256 of every shard
```

A shard stores the readable images of a fixed range of the source's rows. It depends only on the images and the
settings, so that a killed run resumes at the first absent shard, and two caches of one source are equal byte for byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from heptapod.configs.data import MAX_SIDE
from heptapod.configs.grid import MAX_CELLS
from heptapod.data.classes import ClassCount, count_classes
from heptapod.data.tokens import TokenSet
from heptapod.grid import GridSpec
from heptapod.utils.config import from_dict, settings
from heptapod.utils.files import METADATA_KEY, open_tensors, read_json, sha256
from heptapod.utils.logging import Progress
from heptapod.utils.messages import quoted

FORMAT = "heptapod-cache-1"
CROPS = (1, 5)
AGAIN = "remove it, and run the same heptapod tokenize command again"
Count = Annotated[int, Field(ge=0, lt=2**63)]


@settings
class CacheConfig:
    """How images become the tokens of a cache."""

    image_size: Annotated[int, Field(ge=0, le=MAX_SIDE)] = 0
    """Pixels per side after resizing the short side and cropping; 0 keeps the images as they are."""
    flip: bool = False
    """Also store every view mirrored."""
    crops: Annotated[int, Field(ge=1, le=5)] = 1
    """Crops of each image: 1 (the center) or 5 (the corners of a larger copy as well)."""
    crop_scale: Annotated[float, Field(ge=1, le=4)] = 1.1
    """Short side of that larger copy, as a multiple of the image size."""
    shard_size: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Images of the source per shard."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Images encoded at a time. A part of the settings since it may show in the last bits of the tokens."""
    dtype: Literal["float16", "float32"] = "float16"
    """How continuous tokens are stored; codes are stored as the smallest integers that hold them."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder's matrix products."""

    def __post_init__(self) -> None:
        if self.crops not in CROPS:
            raise ValueError(f"crops: {self.crops} given, must be 1 (the center) or 5 (and the corners)")
        if self.crops == 1 and self.crop_scale != 1.1:
            raise ValueError(f"crop_scale: {self.crop_scale} given, but with crops: 1 there is no larger copy")
        if self.crops > 1 and not self.image_size:
            raise ValueError(f"crops: {self.crops} given, which needs an image_size")

    @property
    def num_views(self) -> int:
        """Stored views of each image; a mirrored one follows its original."""
        return self.crops * (2 if self.flip else 1)


@settings
class CacheDescription:
    """Content of ``cache.json``."""

    settings: CacheConfig
    """Settings of the cache."""
    tokenizer_sha256: str
    """Hash of the tokenizer."""
    source_sha256: str
    """Hash of the source's names, labels and classes."""
    source_images: Count
    """Images of the source, including unreadable ones."""
    class_names: list[str]
    """Name of each class; empty for a set without labels."""
    split: str | None = None
    """The split of the source, if it has several."""
    format: str = FORMAT
    """Version of this file."""


@settings
class ShardEntry:
    """A shard in the index."""

    images: Count
    """Images in it."""
    bytes: Count
    """Size of the file."""
    sha256: str
    """Checksum of the file."""


@settings
class CacheIndex:
    """Content of ``index.json``."""

    images: Count
    """Images in the cache."""
    missing: Count
    """Unreadable images of the source."""
    views: Count
    """Views of each image."""
    image_height: Count
    """Pixels."""
    image_width: Count
    """Pixels."""
    grid: GridSpec
    """The token grid."""
    images_per_class: list[Count]
    """In the order of the class names; empty for a set without labels."""
    shards: list[ShardEntry]
    """The shards in order."""
    unreadable: list[str]
    """"name: reason" of the unreadable images."""

    def __post_init__(self) -> None:
        if not (0 < self.grid.height * self.grid.width <= MAX_CELLS):
            raise ValueError(
                f"grid: {self.grid.height} by {self.grid.width} cells given, at most {MAX_CELLS:,} allowed"
            )
        if sum(shard.images for shard in self.shards) != self.images or len(self.unreadable) != self.missing:
            raise ValueError("images: given, but the shards hold other numbers of images")


def is_cache(path: Path) -> bool:
    """Whether a folder is a cache, complete or not."""
    return (path / "cache.json").is_file()


def shard_path(folder: Path, number: int) -> Path:
    """Path of a shard."""
    return folder / "shards" / f"{number:05d}.safetensors"


def read_description(folder: Path) -> CacheDescription:
    """Reads ``cache.json``.

    Raises:
        FileNotFoundError, ValueError: if it is missing or damaged.
    """
    values = read_json(folder / "cache.json")
    if values.get("format") != FORMAT:
        raise ValueError(f"{folder / 'cache.json'}: not a cache (format is {quoted(values.get('format'))})")
    return from_dict(CacheDescription, values, str(folder / "cache.json"))


def read_index(folder: Path) -> CacheIndex:
    """Reads ``index.json``.

    Raises:
        FileNotFoundError: if the cache is incomplete.
        ValueError: if it is damaged.
    """
    if not (folder / "index.json").is_file():
        raise FileNotFoundError(
            f"{folder}: an incomplete cache (index.json is missing); run the same heptapod tokenize command again"
        )
    return from_dict(CacheIndex, read_json(folder / "index.json"), str(folder / "index.json"))


@settings
class _ShardMetadata:
    """The metadata of a shard."""

    names: list[str]
    """Names of the images."""
    unreadable: list[str]
    """"name: reason" of the unreadable images."""
    size: tuple[Count, Count] | None
    """Height and width of the images in pixels; None without images."""


@dataclass
class Shard:
    """A shard with memory-mapped tokens."""

    tensors: dict[str, Tensor]
    """tokens (absent if the shard has no image), labels, rows, held_out."""
    names: list[str]
    """Names of the images."""
    unreadable: list[str]
    """"name: reason" of the unreadable images."""
    size: tuple[int, int] | None
    """Height and width of the images in pixels."""

    def __len__(self) -> int:
        return len(self.names)


def read_shard(path: Path, description: CacheDescription, grid: GridSpec | None = None) -> Shard:
    """Opens a shard.

    Args:
        path: the file.
        description: of its cache.
        grid: of its cache, if it is known.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is truncated or otherwise damaged, or does not fit its cache.
    """
    with open_tensors(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = (file.metadata() or {}).get(METADATA_KEY, "")
    try:
        values = {key: json.loads(value) for key, value in json.loads(text).items()}
        metadata = from_dict(_ShardMetadata, values, "")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, not a shard of a cache ({error}); {AGAIN}") from None
    shard = Shard(tensors, metadata.names, metadata.unreadable, metadata.size)
    if problem := _problem_of(shard, description, grid):
        raise ValueError(f"{path}: damaged, {problem}; {AGAIN}")
    return shard


_LABELS = {"labels": torch.int64, "rows": torch.int64, "held_out": torch.uint8}


def _problem_of(shard: Shard, description: CacheDescription, grid: GridSpec | None) -> str | None:
    """What is wrong with the tensors of a shard; the values of tokens are checked when they are read."""
    tensors, count = shard.tensors, len(shard)
    for name, dtype in _LABELS.items():
        tensor = tensors.get(name)
        if tensor is None or tensor.dtype != dtype or tensor.shape != (count,):
            return f"its {name} are not {count} integers"
    limits = {"labels": (-1, len(description.class_names)), "rows": (0, description.source_images), "held_out": (0, 2)}
    for name, (low, high) in limits.items():
        if bool(((tensors[name] < low) | (tensors[name] >= high)).any()):
            return f"its {name} are out of range"
    if bool((tensors["rows"].diff() <= 0).any()):
        return "its rows are not in order"
    if (shard.size is None) != (count == 0):
        return "its size does not fit its images"
    if not count:
        return None
    tokens, views = tensors.get("tokens"), description.settings.num_views
    if tokens is None or tokens.ndim not in (3, 4) or tokens.shape[:2] != (count, views):
        return f"its tokens are not those of {count} images in {views} view(s)"
    if tokens.dtype not in ((torch.int16, torch.int32) if tokens.ndim == 3 else (torch.float16, torch.float32)):
        return f"its tokens are {tokens.dtype}"
    if grid is not None and tokens.shape[2:] != grid.token_shape:
        return f"its tokens have the shape {tuple(tokens.shape[2:])} instead of {grid.token_shape}"
    return None


@dataclass
class Cache:
    """A complete cache, opened for reading.

    Attributes:
        folder: its folder.
        description: its settings and source.
        index: its counts.
        tokens: the tokens of all images, in the order of the source.
        rows: (M,) row of each image in the source.
        held_out: (M,) bool: whether an image is in the held-out split of the source.
    """

    folder: Path
    description: CacheDescription
    index: CacheIndex
    tokens: TokenSet
    rows: np.ndarray
    held_out: np.ndarray

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.index.image_height, self.index.image_width

    def classes(self) -> list[ClassCount]:
        """Name and numbers of images of each class, by the held-out split of the source."""
        labels = self.tokens.labels.numpy()
        return count_classes(self.description.class_names, labels[~self.held_out], labels[self.held_out])


def open_cache(folder: Path) -> Cache:
    """Opens a complete cache; tokens stay on disk until they are read.

    Raises:
        FileNotFoundError: if the cache or a shard is missing, or the cache is incomplete.
        ValueError: if a shard is truncated, damaged or differs in size from the index; names it.
    """
    description, index = read_description(folder), read_index(folder)
    shards = []
    if index.images + index.missing != description.source_images or index.views != description.settings.num_views:
        raise ValueError(f"{folder / 'index.json'}: damaged, it does not fit cache.json; {AGAIN}")
    if len(index.images_per_class) != len(description.class_names):
        raise ValueError(f"{folder / 'index.json'}: damaged, it does not have the classes of cache.json; {AGAIN}")
    for number, entry in enumerate(index.shards):
        path = shard_path(folder, number)
        shard = read_shard(path, description, index.grid)
        if path.stat().st_size != entry.bytes or len(shard) != entry.images:
            raise ValueError(f"{path}: damaged, {path.stat().st_size:,} bytes instead of {entry.bytes:,}; {AGAIN}")
        shards.append(shard)
    full = [shard for shard in shards if len(shard)]
    tokens = TokenSet(
        [shard.tensors["tokens"] for shard in full],
        torch.cat([shard.tensors["labels"] for shard in full]),
        [name for shard in full for name in shard.names],
        description.class_names,
        index.grid,
        list(range(description.settings.num_views)),
        [line for shard in shards for line in shard.unreadable],
    )
    rows, held_out = (torch.cat([shard.tensors[key] for shard in full]).numpy() for key in ("rows", "held_out"))
    return Cache(folder, description, index, tokens, rows, held_out.astype(bool))


def verify_cache(folder: Path) -> None:
    """Compares every shard with its checksum in the index.

    Raises:
        FileNotFoundError, ValueError: if a shard is missing or damaged; names the first.
    """
    entries = read_index(folder).shards
    with Progress("verifying shards", len(entries), "shards") as progress:
        for number, entry in enumerate(entries):
            path = shard_path(folder, number)
            if not path.is_file():
                raise FileNotFoundError(f"{path}: missing")
            if sha256(path) != entry.sha256:
                raise ValueError(f"{path}: damaged (its checksum is not the one in index.json); {AGAIN}")
            progress.advance(1)
