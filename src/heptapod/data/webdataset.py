"""WebDataset shards: brace patterns, an index of their images, and random access.

The index is stored in ``heptapod-index.safetensors`` next to the shards, or only in memory if the folder is not
writable. A shard is indexed again if its size or modification time changes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from heptapod.data.labels import Labels
from heptapod.data.listing import COMPRESSED_TARS
from heptapod.data.tar_shard import OpenShard, ShardIndex, check_not_compressed, index_shard
from heptapod.utils.files import TEMPORARY, read_metadata, read_tensors, write_tensors
from heptapod.utils.logging import Progress
from heptapod.utils.messages import shown

logger = logging.getLogger(__name__)


INDEX = "heptapod-index.safetensors"
LOCK = f"{TEMPORARY}heptapod-index.lock"
FORMAT = "heptapod-tar-index-2"
OPEN_SHARDS = 128
"""Open shards at a time, well below the limit of open files."""
INDEXING_THREADS = 8
"""Indexing waits for storage far more than it computes."""
MAX_SHARDS = 250_000
"""Shards that a pattern may name."""
MAX_DIGITS = 18
"""Digits of a number in a pattern."""
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def has_braces(path: str) -> bool:
    """Whether a path is a pattern of several."""
    return BRACES.search(path) is not None


def expand_braces(pattern: str) -> list[str]:
    """Expands braces as in a shell: ``{000..146}`` counts and keeps leading zeros, ``{a,b}`` lists.

    Raises:
        ValueError: if it counts down, or to more than MAX_SHARDS names.
    """
    groups = list(BRACES.finditer(pattern))
    count = 1
    for group in groups:
        first, last, words = group.groups()
        if words is None and (max(len(first), len(last)) > MAX_DIGITS or int(first) > int(last)):
            problem = f"counts from {first} down to {last}" if len(first) <= MAX_DIGITS >= len(last) else "is too large"
            raise ValueError(f"{shown(pattern)} {problem}")
        count *= words.count(",") + 1 if words is not None else int(last) - int(first) + 1
        if count > MAX_SHARDS:
            raise ValueError(f"{shown(pattern)} names more than {MAX_SHARDS:,} shards; give their folder instead")
    ends = [0, *(group.end() for group in groups)]
    texts = [pattern[start : group.start()] for start, group in zip(ends, groups, strict=False)]
    choices = itertools.product(*(_alternatives(*group.groups()) for group in groups))
    return [
        "".join(itertools.chain.from_iterable(zip(texts, chosen, strict=True))) + pattern[ends[-1] :]
        for chosen in choices
    ]


def _alternatives(first: str, last: str, words: str | None) -> list[str]:
    if words is not None:
        return words.split(",")
    padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
    width = max(len(first), len(last)) if padded else 1
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


def find_shards(pattern: str) -> list[Path]:
    """The shards of a brace pattern.

    Raises:
        FileNotFoundError: if a shard is missing; names the first.
        ValueError: if a file is not a .tar file, or the pattern counts down.
    """
    shards = [Path(path).expanduser() for path in expand_braces(pattern)]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is missing; {len(shards) - len(missing):,} of the {len(shards):,} shards of {pattern} exist"
        )
    if other := [shard for shard in shards if shard.suffix != ".tar"]:
        if other[0].name.lower().endswith(COMPRESSED_TARS):
            check_not_compressed(other[0])
        raise ValueError(f"{pattern} expands to {other[0]}; a pattern can only name .tar shards")
    return shards


def index_shards(shards: Sequence[Path]) -> list[ShardIndex]:
    """The index of every shard: read from the stored index, or computed and stored.

    Raises:
        ValueError: if a shard is damaged or has no image, or a label is not a class number; names the shard.
    """
    indices: dict[Path, ShardIndex] = {}
    for folder in dict.fromkeys(shard.parent for shard in shards):
        here = [shard for shard in shards if shard.parent == folder]
        known = _read_index(folder)
        if _unknown(here, known):
            known = _index_folder(folder, here, known)
        indices |= {shard: known[shard.name] for shard in here}
    return [indices[shard] for shard in shards]


class ShardReader:
    """Reads images from shards in any order, with any number of threads.

    A shard that was removed or changed raises an error (``FileNotFoundError``, ``ValueError``); its images do not count
    as unreadable.

    Args:
        shards: the tar files.
        indices: their indices.
    """

    def __init__(self, shards: Sequence[Path], indices: Sequence[ShardIndex]) -> None:
        self._indices = indices
        self._ends = np.cumsum([len(index) for index in indices])
        # A shard that leaves the cache closes when the last thread finishes reading it.
        self._open = lru_cache(OPEN_SHARDS)(lambda number: OpenShard(shards[number], indices[number]))

    def shard(self, number: int) -> OpenShard:
        """A shard, opened."""
        return self._open(number)

    def opener(self, row: int) -> Callable[[], bytes]:
        """Opens the shard of an image.

        Args:
            row: number of the image among those of all shards.

        Returns:
            A function that reads the bytes of the image.
        """
        number = int(np.searchsorted(self._ends, row, side="right"))
        index = self._indices[number]
        place = row - int(self._ends[number]) + len(index)
        return partial(self.shard(number).read, int(index.offsets[place]), int(index.sizes[place]))


def _index_folder(folder: Path, shards: Sequence[Path], known: dict[str, ShardIndex]) -> dict[str, ShardIndex]:
    """Indexes the shards that lack an index, and stores it next to them if the folder is writable."""
    is_writable = os.access(folder, os.W_OK)
    with _index_lock(folder) if is_writable else nullcontext():
        known = _read_index(folder) or known  # another process may have stored it meanwhile
        if not (unknown := _unknown(shards, known)):
            return known
        added: dict[str, ShardIndex] = {}
        try:
            with (
                ThreadPoolExecutor(INDEXING_THREADS) as pool,
                Progress(f"indexing {len(unknown):,} shards", len(unknown), "shards") as progress,
            ):
                for shard, index in zip(unknown, pool.map(index_shard, unknown), strict=True):
                    added[shard.name] = index
                    progress.advance(1)
        finally:  # keeps the work on the shards before a damaged one
            known = known | added
            if added and is_writable:
                _write_index(folder, known)
            elif added:
                logger.warning(f"data: {folder} is not writable, so its shards are indexed again each time")
    return known


def _unknown(shards: Sequence[Path], known: dict[str, ShardIndex]) -> list[Path]:
    return [shard for shard in shards if shard.name not in known or not known[shard.name].fits(shard.stat())]


@contextmanager
def _index_lock(folder: Path) -> Iterator[None]:
    """Lets one process at a time index a folder, so that the next ones find the index.

    Without file locks on this file system, processes may do the same work; each stores a complete index.
    """
    lock = FileLock(folder / LOCK)
    with suppress(OSError):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info(f"data: waiting for another process that indexes {folder}")
            lock.acquire()
    try:
        yield
    finally:
        if lock.is_locked:
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def _read_index(folder: Path) -> dict[str, ShardIndex]:
    """The stored index by the name of a shard; empty if it is missing, of an older format or damaged."""
    path = folder / INDEX
    try:
        metadata = read_metadata(path)
        tensors = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
        facts = json.loads(metadata["index"])
        if facts["format"] != FORMAT:
            return {}
        if metadata.get("sha256") != _checksum(metadata["index"], tensors):
            raise ValueError("its content does not have the checksum that it names")
        names = tensors["names"].tobytes().decode("utf-8").split("\0")
        known, start = {}, 0
        for shard in facts["shards"]:
            here = slice(start, start := start + shard["images"])
            offsets, sizes, codes = (tensors[key][here] for key in ("offsets", "sizes", "labels"))
            labels = Labels(codes, shard["labels"])
            known[shard["name"]] = ShardIndex(
                shard["bytes"], shard["mtime_ns"], names[here], offsets, sizes, labels, shard["without_image"]
            )
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning(f"data: {path} is damaged and made again ({error})")
        return {}
    return known


def _checksum(text: str, tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of an index."""
    digest = hashlib.sha256(text.encode("utf-8"))
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def _write_index(folder: Path, known: dict[str, ShardIndex]) -> None:
    """Stores the index of the existing shards; reports a failure."""
    known = {name: index for name, index in known.items() if (folder / name).is_file()}
    indices = list(known.values())
    shards = [
        {
            "name": name,
            "bytes": index.bytes,
            "mtime_ns": index.mtime_ns,
            "images": len(index),
            "labels": index.labels.values,
            "without_image": index.without_image,
        }
        for name, index in known.items()
    ]
    arrays = {
        "names": np.frombuffer("\0".join(name for index in indices for name in index.names).encode("utf-8"), np.uint8),
        "offsets": np.concatenate([index.offsets for index in indices]),
        "sizes": np.concatenate([index.sizes for index in indices]),
        "labels": np.concatenate([index.labels.codes for index in indices]),
    }
    text = json.dumps({"format": FORMAT, "shards": shards})
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"  # unique: without file locks, other processes may write too
    try:
        write_tensors(temporary, tensors, {"index": text, "sha256": _checksum(text, arrays)})
        shutil.copymode(folder / next(iter(known)), temporary)  # readable by whoever can read the shards
        os.replace(temporary, folder / INDEX)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        logger.warning(
            f"data: the index of {folder} cannot be stored there ({error.strerror}), so it is computed again each time"
        )
