"""WebDataset shards: which ones a pattern names, where their images are, and reading those in any order.

The places of the images are found once and kept in ``heptapod-index.safetensors`` beside the shards: again for a shard
whose size or time of change is another, and in memory only where the folder cannot be written.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from heptapod.data.tar_shard import OpenShard, ShardIndex, index_shard
from heptapod.utils.files import TEMPORARY, read_metadata, read_tensors, write_tensors
from heptapod.utils.logging import Progress

logger = logging.getLogger(__name__)


INDEX = "heptapod-index.safetensors"
FORMAT = "heptapod-tar-index-1"
OPEN_SHARDS = 128
"""Shards held open at a time; well below the number of files that systems allow."""
INDEXING_THREADS = 8
"""They wait for storage far more than they compute."""
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def expand_braces(pattern: str) -> list[str]:
    """What a pattern stands for, as in a shell: ``{000..146}`` counts, keeping zeros; ``{a,b}`` lists.

    Raises:
        ValueError: if it counts down.
    """
    found = BRACES.search(pattern)
    if found is None:
        return [pattern]
    first, last, words = found.groups()
    if words is not None:
        parts = words.split(",")
    elif int(first) > int(last):
        raise ValueError(f"{pattern} counts from {first} down to {last}")
    else:
        padded = any(len(end) > 1 and end.startswith("0") for end in (first, last))
        width = max(len(first), len(last)) if padded else 1
        parts = [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    before, after = pattern[: found.start()], expand_braces(pattern[found.end() :])
    return [f"{before}{part}{rest}" for part in parts for rest in after]


def find_shards(pattern: str) -> list[Path]:
    """The shards of a brace pattern.

    Raises:
        FileNotFoundError: naming the first shard that is missing.
        ValueError: if they are no tar files, or it counts down.
    """
    shards = [Path(path).expanduser() for path in expand_braces(pattern)]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} is missing; {len(shards) - len(missing):,} of the {len(shards):,} shards of {pattern} are "
            "there"
        )
    if other := [shard for shard in shards if shard.suffix != ".tar"]:
        raise ValueError(f"{pattern} stands for {other[0]}; only .tar shards can be given by a pattern")
    return shards


def index_shards(shards: Sequence[Path]) -> list[ShardIndex]:
    """The index of every shard: read where it is known, else made and kept beside the shards.

    Raises:
        ValueError: naming a shard that is damaged, holds no image, or has a label that is no class number.
    """
    found: dict[Path, ShardIndex] = {}
    for folder in dict.fromkeys(shard.parent for shard in shards):
        here = [shard for shard in shards if shard.parent == folder]
        known = _read_index(folder)
        if _unknown(here, known):
            known = _index_folder(folder, here, known)
        found |= {shard: known[shard.name] for shard in here}
    return [found[shard] for shard in shards]


class ShardReader:
    """Reads images out of shards, in any order and by any number of threads.

    A shard that is gone, or not the one that was indexed, is an error at once (``FileNotFoundError``, ``ValueError``):
    it must not pass for so many images that cannot be read.

    Args:
        shards: the tar files.
        indices: their indices.
    """

    def __init__(self, shards: Sequence[Path], indices: Sequence[ShardIndex]) -> None:
        self._indices = indices
        self._ends = np.cumsum([len(index) for index in indices])
        # One that is pushed out is closed when the last thread that reads from it lets go of it.
        self._open = lru_cache(OPEN_SHARDS)(lambda number: OpenShard(shards[number], indices[number]))

    def shard(self, number: int) -> OpenShard:
        """A shard, opened."""
        return self._open(number)

    def opener(self, row: int) -> Callable[[], bytes]:
        """Opens the shard of an image, which is given by its number among those of all shards.

        Returns:
            A function that reads the image's file.
        """
        number = int(np.searchsorted(self._ends, row, side="right"))
        index = self._indices[number]
        place = row - int(self._ends[number]) + len(index)
        return partial(self.shard(number).read, int(index.offsets[place]), int(index.sizes[place]))


def _index_folder(folder: Path, shards: Sequence[Path], known: dict[str, ShardIndex]) -> dict[str, ShardIndex]:
    """Indexes what is not known, and keeps it beside the shards if that can be."""
    is_writable = os.access(folder, os.W_OK)
    with _turn(folder, is_writable):
        known = _read_index(folder) or known  # another process may just have done it
        if not (unknown := _unknown(shards, known)):
            return known
        found: dict[str, ShardIndex] = {}
        try:
            with (
                ThreadPoolExecutor(INDEXING_THREADS) as pool,
                Progress(f"indexing {len(unknown):,} shards", len(unknown), "shards") as progress,
            ):
                for shard, index in zip(unknown, pool.map(index_shard, unknown), strict=True):
                    found[shard.name] = index
                    progress.advance(1)
        finally:  # the work on those before a damaged one is not lost
            known = known | found
            if found and is_writable:
                _write_index(folder, known)
            elif found:
                logger.info(f"data: {folder} cannot be written, so its shards are indexed anew each time")
    return known


def _unknown(shards: Sequence[Path], known: dict[str, ShardIndex]) -> list[Path]:
    return [shard for shard in shards if shard.name not in known or not known[shard.name].fits(shard.stat())]


@contextmanager
def _turn(folder: Path, is_writable: bool) -> Iterator[None]:
    """Lets one process after another index a folder, so that all but the first find it done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if is_writable:  # otherwise none could tell the next one what it found
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info(f"data: waiting for another process that indexes {folder}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:
                pass  # no locks on this file system: processes may do the same work, each keeps a whole index
        yield
    finally:
        os.close(descriptor)


def _read_index(folder: Path) -> dict[str, ShardIndex]:
    """What is kept beside the shards, by the name of a shard; nothing where it is missing or damaged."""
    path = folder / INDEX
    try:
        facts = json.loads(read_metadata(path)["index"])
        tensors = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
        if facts["format"] != FORMAT:
            return {}
        names = tensors["names"].tobytes().decode("utf-8").split("\0")
        known, start = {}, 0
        for shard in facts["shards"]:
            here = slice(start, start := start + shard["images"])
            offsets, sizes, labels = (tensors[key][here] for key in ("offsets", "sizes", "labels"))
            known[shard["name"]] = ShardIndex(
                shard["bytes"], shard["mtime_ns"], names[here], offsets, sizes, labels, shard["without_image"]
            )
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known


def _write_index(folder: Path, known: dict[str, ShardIndex]) -> None:
    """Keeps the index of the shards that are still there; says so where that cannot be."""
    known = {name: index for name, index in known.items() if (folder / name).is_file()}
    indices = list(known.values())
    shards = [
        {
            "name": name,
            "bytes": index.bytes,
            "mtime_ns": index.mtime_ns,
            "images": len(index),
            "without_image": index.without_image,
        }
        for name, index in known.items()
    ]
    text = "\0".join(name for index in indices for name in index.names)
    tensors = {
        key: torch.from_numpy(np.concatenate([getattr(index, key) for index in indices] or [np.zeros(0, np.int64)]))
        for key in ("offsets", "sizes", "labels")
    }
    tensors["names"] = torch.from_numpy(np.frombuffer(text.encode("utf-8"), np.uint8).copy())
    temporary = folder / f"{TEMPORARY}{uuid.uuid4().hex}"  # its own: where there are no locks others may write too
    try:
        write_tensors(temporary, tensors, {"index": json.dumps({"format": FORMAT, "shards": shards})})
        shutil.copymode(folder / next(iter(known)), temporary)  # whoever may read the shards may read it
        os.replace(temporary, folder / INDEX)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        logger.info(
            f"data: the index of {folder} cannot be kept there ({error.strerror}), so it is made anew each time"
        )
