"""One WebDataset shard: what a tar file holds, and how parts of it are read.

```text
train-000000.tar
  dogs/0001.jpg    an image: jpg, jpeg, png or webp
  dogs/0001.cls    its class number as text; or
  dogs/0001.json   an object with the number under "label"
```
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

IMAGES = ("jpg", "jpeg", "png", "webp")
MAX_CLASSES = 1_000_000
"""A class number at or above it is some other number that got into the place of a label."""
MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
"""A sample's key, folders included, ends at the first dot of the file's name; what follows says what the member is."""


@dataclass
class ShardIndex:
    """Where the images of a shard are."""

    bytes: int
    """Size of the shard when it was indexed."""
    mtime_ns: int
    """Time of its last change then."""
    names: list[str]
    """Names of the members that are images, in the order of their samples."""
    offsets: np.ndarray
    """(m,) int64: first byte of each in the shard."""
    sizes: np.ndarray
    """(m,) int64: bytes of each."""
    labels: np.ndarray
    """(m,) int64: class numbers, -1 where a sample has none."""
    without_image: list[str]
    """Keys of the samples that hold no image."""

    def __len__(self) -> int:
        return len(self.names)

    def fits(self, shard: os.stat_result) -> bool:
        """Whether a shard is still as it was."""
        return (shard.st_size, shard.st_mtime_ns) == (self.bytes, self.mtime_ns)


class OpenShard:
    """A shard that is open for reading, by any number of threads; closed when nothing refers to it any more.

    Raises:
        FileNotFoundError, ValueError: if it is gone, or not the one that was indexed.
    """

    def __init__(self, path: Path, index: ShardIndex) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        if not index.fits(os.fstat(self._descriptor)):
            raise ValueError(f"{path}: changed while it was in use; start again")

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """A part of the shard.

        Raises:
            ValueError: if it is not there.
        """
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise ValueError(f"{self._path}: truncated while it was in use")
        return content


def index_shard(path: Path) -> ShardIndex:
    """Finds the images of a shard and their labels.

    Raises:
        ValueError: if it is damaged, holds no image, a sample with two, or a label that is no class number.
    """
    images: dict[str, tarfile.TarInfo | None] = {}  # by sample, in their order
    labels: dict[str, int] = {}
    with path.open("rb") as file:
        stamp = os.fstat(file.fileno())
        for member in _members(path, file):
            parts = MEMBER.fullmatch(member.name)
            if parts is None or not member.isfile():
                continue
            key, kind = parts.group(1), parts.group(2).lower()
            images.setdefault(key, None)
            if kind in IMAGES:
                if before := images[key]:
                    raise ValueError(f"{path}: sample {key} holds two images, {before.name} and {member.name}")
                images[key] = member
            elif kind == "cls" or (kind == "json" and key not in labels):  # .cls counts where there are both
                label = _label(path, member, kind, os.pread(file.fileno(), member.size, member.offset_data))
                if label is not None:
                    labels[key] = label
    found = {key: member for key, member in images.items() if member is not None}
    if not found:
        raise ValueError(f"{path}: holds no images (members that end in {', '.join(IMAGES)})")
    return ShardIndex(
        stamp.st_size,
        stamp.st_mtime_ns,
        [member.name for member in found.values()],
        np.array([member.offset_data for member in found.values()], dtype=np.int64),
        np.array([member.size for member in found.values()], dtype=np.int64),
        np.array([labels.get(key, -1) for key in found], dtype=np.int64),
        [key for key in images if key not in found],
    )


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, all of it seen to be whole: what tarfile takes for its end must be the end."""
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would hold all of them twice
                yield member
            end = tar.offset
    except (tarfile.TarError, OverflowError, UnicodeError) as error:
        raise ValueError(f"{path}: truncated or damaged tar file ({error})") from None
    if os.fstat(file.fileno()).st_size < end + tarfile.BLOCKSIZE:
        raise ValueError(f"{path}: truncated tar file (its end mark is missing)")
    file.seek(end)
    while chunk := file.read(2**20):
        if chunk.count(0) != len(chunk):
            raise ValueError(f"{path}: damaged tar file (no header at byte {end:,}, but more data follow)")


def _label(path: Path, member: tarfile.TarInfo, kind: str, content: bytes) -> int | None:
    """The class number in a member; None for a JSON object without one."""
    if len(content) != member.size:
        raise ValueError(f"{path}: truncated tar file ({member.name} is not whole)")
    try:
        text = content.decode("utf-8")
        values = json.loads(text) if kind == "json" else {"label": int(text)}
    except ValueError:
        needed = "JSON" if kind == "json" else "a class number"
        raise ValueError(f"{path}: {member.name} holds {content[:20]!r}, {needed} was expected") from None
    label = values.get("label") if isinstance(values, dict) else None
    if label is None:
        return None
    if not isinstance(label, int) or isinstance(label, bool):
        raise ValueError(f'{path}: {member.name} has the "label" {str(label)[:20]!r}, a class number was expected')
    if not 0 <= label < MAX_CLASSES:
        raise ValueError(f"{path}: {member.name} has class number {label}, which must be 0 … {MAX_CLASSES - 1:,}")
    return label
