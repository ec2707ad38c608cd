"""Images read once, batch by batch, from files, a token cache or an npz file of samples, in bounded memory."""

from __future__ import annotations

import json
import logging
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from heptapod.configs.data import SplitName
from heptapod.data.cache import is_cache, open_cache
from heptapod.data.decoding import to_rgb
from heptapod.data.images import check_size, decode_each
from heptapod.data.sources import open_source
from heptapod.data.splits import SplitChoice
from heptapod.distributed.collectives import blocks_of_rank
from heptapod.tokenizers import load_tokenizer
from heptapod.tokenizers.encode import decode_pixels
from heptapod.utils.checks import check_at_least
from heptapod.utils.files import atomic_file, sha256
from heptapod.utils.random import Stream, numpy_generator, random_rows

logger = logging.getLogger(__name__)


Batches = Iterator[tuple[Tensor, Tensor]]
"""Images (B, 3, h, w) uint8 and labels (B,) int64, -1 where there is none."""

RECORD = "heptapod"
"""The entry of an npz file that says how its samples were made, as JSON."""

NPZ_ERRORS = (ValueError, EOFError, OSError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged npz file raises."""

MAX_RATIO = 1100
"""Bytes that a compressed byte stands for, at most."""

ONE_SIZE = (
    "samples are compared as they are, so bring all of them to one size first (the sampler's), with another program"
)
"""What to do about samples of several sizes."""

RowSelection = Callable[[int], np.ndarray]
"""Selects rows of a total number of them, ascending."""


@dataclass
class ImageStream:
    """Images that can be read once, in their order."""

    read: Callable[[Sequence[np.ndarray]], Batches]
    """Reads blocks of images, given as ascending row numbers; a block without a readable image is an empty batch."""
    rows: np.ndarray
    """Row numbers of all images."""
    record: dict[str, Any]
    """Where they come from, for results."""
    class_names: list[str] = field(default_factory=list)
    """Name of each class; empty where that is not known."""
    made: dict[str, Any] | None = None
    """How they were sampled, where that is known."""

    @property
    def count(self) -> int:
        """Number of images, including unreadable ones, which are left out."""
        return len(self.rows)

    def batches(self, batch_size: int, shared: bool = False) -> Batches:
        """Reads them in batches of the given size, without unreadable images.

        Args:
            batch_size: images.
            shared: read only this process's part (:func:`heptapod.distributed.collectives.blocks_of_rank`).
        """
        blocks = [self.rows[start : start + batch_size] for start in range(0, self.count, batch_size)]
        yield from self.read(blocks_of_rank(blocks) if shared else blocks)


def open_images(
    path: str,
    setting: str,
    image_size: int = 0,
    count: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    split: SplitName | None = None,
) -> ImageStream:
    """Images of a folder, parquet file(s), a built-in set, a token cache (reconstructions) or an npz file (``arr_0``).

    Args:
        path: where they are.
        setting: name of the argument, for messages.
        image_size: side after resizing and cropping the images of files, 0 keeps their size; those of a cache or an
            npz file must have it already.
        count: number of images, chosen at random and kept in their order; None for all.
        seed: keys the choice.
        device: where tokens are decoded.
        split: the split of the images, if they have several; None for train.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: if it holds no such images.
    """
    check_at_least(1, count=count)
    if image_size < 0:
        raise ValueError(f"image_size: {image_size} given, must be positive, or 0 to keep the size")
    location = Path(path).expanduser()

    def select_rows(total: int) -> np.ndarray:
        if count is not None and count > total:
            raise ValueError(f"count: {count} given, but {path} holds {total} images")
        return random_rows(numpy_generator(Stream.EVALUATION, seed), total, count)

    if location.suffix == ".npz" or is_cache(location):
        if split not in (None, "all"):
            raise ValueError(f"split: {split} given, but {path} ({setting}) has no splits")
        is_npz = location.suffix == ".npz"
        size = _npz_shape(location, setting)[1:] if is_npz else open_cache(location).image_size
        if image_size and (image_size, image_size) != size:
            raise ValueError(
                f"image_size: {image_size} given, but {path} ({setting}) holds images of {size[0]}×{size[1]} pixels, "
                "which are taken as they are (0)"
            )
        return _npz_stream(location, setting, select_rows) if is_npz else _cache_stream(location, select_rows, device)
    source = open_source(path, setting, SplitChoice(split))
    rows = select_rows(len(source.names))

    fix = "set image_size to resize them" if setting != "samples" else ONE_SIZE

    def read(blocks: Sequence[np.ndarray]) -> Batches:
        shape: tuple[int, ...] = (3, 0, 0)
        numbers = np.concatenate([rows[:0], *blocks])
        with closing(decode_each(source, numbers, lambda image: to_rgb(image, image_size))) as decoded:
            for block in blocks:
                images: list[np.ndarray] = []
                labels: list[int] = []
                for number, result in islice(decoded, len(block)):
                    if isinstance(result, str):
                        logger.warning(
                            f"{setting}: left out, {source.names[number]}: {result}", extra={"all_ranks": True}
                        )
                        continue
                    shape = shape if shape[1] else result.shape
                    check_size(f"{setting}: {source.names[number]}", result.shape, shape, fix)
                    images.append(result)
                    labels.append(source.labels[number])
                pixels = np.stack(images) if images else np.empty((0, *shape), np.uint8)
                yield torch.from_numpy(pixels), torch.tensor(labels, dtype=torch.int64)

    record = {"kind": "images", "path": path} | ({"split": source.split} if source.split else {})
    return ImageStream(read, rows, record, source.class_names)


def _cache_stream(folder: Path, select_rows: RowSelection, device: torch.device | str) -> ImageStream:
    """The tokens of a cache, decoded by its tokenizer."""
    cache = open_cache(folder)

    @torch.inference_mode()
    def read(blocks: Sequence[np.ndarray]) -> Batches:
        tokenizer = load_tokenizer(folder / "tokenizer").to(device).eval()
        for block in blocks:
            part = cache.tokens.subset(block)
            yield decode_pixels(tokenizer, part.head(len(part)), part.grid), part.labels

    record = {
        "kind": "token cache: reconstructions by its tokenizer, not the original images",
        "path": str(folder),
        "tokenizer_sha256": cache.description.tokenizer_sha256,
        "index_sha256": sha256(folder / "index.json"),
    }
    return ImageStream(read, select_rows(len(cache.tokens)), record, cache.description.class_names)


def write_npz(path: Path, count: int, size: tuple[int, int], batches: Batches, made: dict[str, Any]) -> None:
    """Writes batches of samples to a file; see :func:`npz_writer`."""
    with npz_writer(path, count, size, made) as add:
        for images, labels in batches:
            add(images, labels)


@contextmanager
def npz_writer(
    path: Path, count: int, size: tuple[int, int], made: dict[str, Any]
) -> Iterator[Callable[[Tensor, Tensor], None]]:
    """Writes samples as they come, in the layout of the evaluator of ADM, whole or not at all.

    ``arr_0`` is (M, h, w, 3) uint8 and ``arr_1`` (M,) int64 labels; a third entry says how they were made, as JSON.
    Equal samples give equal bytes.

    Args:
        path: the file.
        count: M.
        size: h and w.
        made: how, JSON-safe.

    Yields:
        A function that takes images (B, 3, h, w) uint8 and their labels (B,).

    Raises:
        ValueError: if it is not given ``count`` images of ``size``.
    """
    labels: list[Tensor] = []
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as entry:
            _write_header(entry, (count, *size, 3), np.dtype(np.uint8))

            def add(images: Tensor, some: Tensor) -> None:
                if tuple(images.shape[1:]) != (3, *size):
                    raise ValueError(f"images (B, 3, {size[0]}, {size[1]}) expected, {tuple(images.shape)} given")
                entry.write(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
                labels.append(some)

            yield add
        arrays = {"arr_1": torch.cat(labels).numpy(), RECORD: np.array(json.dumps(made, sort_keys=True))}
        if len(arrays["arr_1"]) != count:
            raise ValueError(f"{count} images expected, {len(arrays['arr_1'])} given")
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def npz_entries(path: Path) -> set[str]:
    """Names of the arrays of an npz file; raises as :func:`read_npz_entry` does."""
    with _open_npz(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


def read_npz_entry(path: Path, name: str) -> np.ndarray | None:
    """One array of an npz file, None if there is none of the name; nothing in the file is executed.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is damaged, or the array holds Python objects.
    """
    with _open_npz(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            return None
        try:
            _checked_header(archive, name, is_read_at_once=True)
            with archive.open(f"{name}.npy") as entry:
                array: np.ndarray = np.lib.format.read_array(entry, allow_pickle=False)
        except NPZ_ERRORS as error:
            raise ValueError(f"{path}: {name} cannot be read ({error})") from None
    return array


def _npz_stream(path: Path, setting: str, select_rows: RowSelection) -> ImageStream:
    total = _npz_shape(path, setting)[0]
    rows = select_rows(total)
    known_labels = _npz_labels(path, setting, total)
    text = read_npz_entry(path, RECORD)
    try:
        made = None if text is None else json.loads(str(text))
    except json.JSONDecodeError:
        raise ValueError(f"{setting}: {path}: its entry {RECORD!r} is damaged, not JSON") from None

    def read(blocks: Sequence[np.ndarray]) -> Batches:
        for numbers, images in zip(blocks, _read_blocks(path, setting, blocks), strict=True):
            yield images, torch.from_numpy(known_labels[numbers])

    return ImageStream(read, rows, {"kind": "npz", "path": str(path)}, made=made)


def _npz_labels(path: Path, setting: str, total: int) -> np.ndarray:
    """The labels (``total``,) int64 of an npz file; all -1 without them. Warns if only some are negative."""
    wrong = f"{setting}: {path}: arr_1 must be {total:,} whole numbers below 2^63, the labels"
    with _open_npz(path) as archive:
        if "arr_1.npy" not in archive.namelist():
            return np.full(total, -1)
        try:
            shape, _, dtype = _checked_header(archive, "arr_1")
        except NPZ_ERRORS as error:
            raise ValueError(f"{setting}: {path}: arr_1 cannot be read ({error})") from None
    if dtype.hasobject:
        raise ValueError(f"{setting}: {path}: arr_1 cannot be read (it holds Python objects)")
    if shape != (total,) or dtype.kind not in "iu":  # before memory for it is allocated
        raise ValueError(wrong)
    labels = read_npz_entry(path, "arr_1")
    if labels is None or int(labels.max()) >= 2**63:
        raise ValueError(wrong)
    labels = np.maximum(labels.astype(np.int64), -1)
    if 0 < (missing := int((labels < 0).sum())) < total:
        logger.warning(f"{setting}: {path}: {missing:,} of {total:,} images have no label (negative)")
    return labels


def _read_blocks(path: Path, setting: str, blocks: Sequence[np.ndarray]) -> Iterator[Tensor]:
    """Images (B, 3, h, w) of blocks of rows of ``arr_0``, reading the file from its start."""
    total, height, width = _npz_shape(path, setting)
    selected, row_bytes = {int(row) for block in blocks for row in block}, height * width * 3
    ends = {int(block[-1]) for block in blocks}
    with _open_npz(path) as archive, archive.open("arr_0.npy") as entry:
        _read_header(entry)
        parts: list[bytes] = []
        for row in range(total):
            try:
                content = entry.read(row_bytes)
            except NPZ_ERRORS as error:
                raise ValueError(f"{setting}: {path}: damaged ({error})") from None
            if len(content) != row_bytes:
                raise ValueError(f"{setting}: {path}: damaged, arr_0 ends in image {row}")
            if row in selected:
                parts.append(content)
            if row in ends:
                pixels = np.frombuffer(bytearray().join(parts), np.uint8).reshape(-1, height, width, 3)
                yield torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
                parts = []


def _npz_shape(path: Path, setting: str) -> tuple[int, int, int]:
    """Count, height and width of ``arr_0``; raises ValueError if it is not uint8 images."""
    with _open_npz(path) as archive:
        if "arr_0.npy" not in archive.namelist():
            names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:8])
            raise ValueError(f"{setting}: {path} holds no images (arr_0); it holds {names or 'nothing'}")
        try:
            shape, in_columns, dtype = _checked_header(archive, "arr_0")
        except NPZ_ERRORS as error:
            raise ValueError(f"{setting}: {path}: arr_0 cannot be read ({error})") from None
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or min(shape) < 1 or in_columns:
        why = ", perhaps because the images have several sizes" if dtype.hasobject else ""
        raise ValueError(f"{setting}: {path}: arr_0 must be (M, h, w, 3) uint8, it is {shape} {dtype}{why}")
    return shape[0], shape[1], shape[2]


def _open_npz(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a readable npz file ({error})") from None


def _checked_header(
    archive: zipfile.ZipFile, name: str, is_read_at_once: bool = False
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order of the axes and dtype of an array; raises if the file cannot hold that number of bytes."""
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as file:
        shape, in_columns, dtype = _read_header(file)
    most = MAX_RATIO * Path(str(archive.filename)).stat().st_size
    if math.prod(shape) * dtype.itemsize > (min(most, entry.file_size) if is_read_at_once else most):
        raise ValueError(f"its header claims {shape} {dtype}, which the file does not hold")
    return shape, in_columns, dtype


def _read_header(entry: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(entry)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(entry)


def _write_header(entry: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(entry, description)
