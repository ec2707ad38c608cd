"""One WebDataset shard: the index of a tar file, and reading its members.

```text
train-000000.tar
  dogs/0001.jpg    an image: jpg, jpeg, png, webp, …; dogs/0001.input.jpg where there is no other
  dogs/0001.cls    its class, a number or name as text; or
  dogs/0001.json   an object with the number or name under "label"
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
from typing import Any, BinaryIO

import numpy as np

from heptapod.data.labels import ABSENT, VOID, Labels, Value, label_value, listed_labels, text_value
from heptapod.data.listing import IMAGE_SUFFIXES, is_junk

IMAGES = ("jpg", "jpeg", "png", "webp", *sorted(s[1:] for s in IMAGE_SUFFIXES - {".jpg", ".jpeg", ".png", ".webp"}))
COMPRESSIONS = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x28\xb5\x2f\xfd": ("zstandard", "unzstd"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"BZh": ("bzip2", "bunzip2"),
}
"""First bytes of compressed files: the format, and the command that decompresses it."""
MAX_LABEL_BYTES = 1 << 24
"""Bytes of a member with a label; a larger one is none."""
MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
"""The key of a sample (with folders) ends at the first dot of the file name; the rest is the kind of the member."""


@dataclass
class ShardIndex:
    """Positions of the images in a shard."""

    bytes: int
    """Size of the shard at indexing."""
    mtime_ns: int
    """Modification time at indexing."""
    names: list[str]
    """Names of the image members, in the order of their samples."""
    offsets: np.ndarray
    """(m,) int64: first byte of each image."""
    sizes: np.ndarray
    """(m,) int64: size of each image in bytes."""
    labels: Labels
    """The m labels."""
    without_image: list[str]
    """Keys of the samples without an image."""

    def __len__(self) -> int:
        return len(self.names)

    def fits(self, shard: os.stat_result) -> bool:
        """Whether size and modification time are unchanged."""
        return (shard.st_size, shard.st_mtime_ns) == (self.bytes, self.mtime_ns)


class OpenShard:
    """A shard open for reading by any number of threads; closed with its last reference.

    Raises:
        FileNotFoundError, ValueError: if it was removed or changed since it was indexed.
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
        """Bytes of the shard.

        Raises:
            ValueError: if the shard is shorter.
        """
        content = os.pread(self._descriptor, size, offset)
        if len(content) != size:
            raise ValueError(f"{self._path}: truncated while it was in use")
        return content


def index_shard(path: Path) -> ShardIndex:
    """Finds the images of a shard and their labels.

    Raises:
        ValueError: if the shard is damaged or has no image, if a sample has two images, or a label is neither a
            number nor a name.
    """
    check_not_compressed(path)
    images: dict[str, tarfile.TarInfo | None] = {}  # by sample, in their order
    labels: dict[str, Value | None] = {}
    with path.open("rb") as file:
        stamp = os.fstat(file.fileno())
        for member in _members(path, file):
            parts = MEMBER.fullmatch(member.name)
            if parts is None or not member.isfile() or is_junk(member.name):
                continue
            key, kind = parts.group(1), parts.group(2).lower()
            images.setdefault(key, None)
            if kind.rpartition(".")[2] in IMAGES:
                images[key] = _image_of(path, key, images[key], member)
            elif kind == "cls" or (kind == "json" and key not in labels):  # .cls takes precedence
                labels.update((key, label) for label in _labels(path, member, kind, file))
    found = {key: member for key, member in images.items() if member is not None}
    if not found:
        raise ValueError(f"{path}: has no images (members that end in {', '.join(IMAGES[:4])}, …)")
    return ShardIndex(
        stamp.st_size,
        stamp.st_mtime_ns,
        [member.name for member in found.values()],
        np.array([member.offset_data for member in found.values()], dtype=np.int64),
        np.array([member.size for member in found.values()], dtype=np.int64),
        listed_labels([labels.get(key) for key in found], [VOID if key in labels else ABSENT for key in found]),
        [key for key in images if key not in found],
    )


def _image_of(path: Path, key: str, before: tarfile.TarInfo | None, member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The image of a sample: the one whose name has no dot more (0001.jpg, not 0001.mask.png)."""
    if before is None:
        return member
    first, other = (image.name.rpartition("/")[2].count(".") > 1 for image in (before, member))
    if first == other:
        raise ValueError(f"{path}: sample {key} has two images, {before.name} and {member.name}")
    return member if first else before


def check_not_compressed(path: Path) -> None:
    """Checks the first bytes of a shard.

    Raises:
        ValueError: if it is compressed; says how to decompress it.
    """
    with path.open("rb") as file:
        start = file.read(8)
    for magic, (name, command) in COMPRESSIONS.items():
        if start.startswith(magic):
            stem = re.sub(r"(\.tar)?(\.\w+)?$", "", path.name) if path.suffix != ".tar" else f"{path.stem}-plain"
            raise ValueError(
                f"{path}: compressed with {name}, but images are read from plain .tar files at random; decompress it: "
                f"{command} < {path.name} > {stem}.tar"
            )


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file; raises unless the end that tarfile finds is the end of the file."""
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # saves memory: all members are kept by the caller
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


def _labels(path: Path, member: tarfile.TarInfo, kind: str, file: BinaryIO) -> list[Value | None]:
    """The label in a member; none if its JSON object has none."""
    if member.size > MAX_LABEL_BYTES:
        raise ValueError(f"{path}: {member.name} has {member.size:,} bytes, too many for a label")
    content = os.pread(file.fileno(), member.size, member.offset_data)
    if len(content) != member.size:
        raise ValueError(f"{path}: truncated tar file ({member.name} is incomplete)")
    try:
        text = content.decode("utf-8")
        values: Any = json.loads(text) if kind == "json" else None
    except (ValueError, RecursionError):
        needed = "JSON" if kind == "json" else "a class"
        raise ValueError(f"{path}: {member.name} contains {content[:20]!r}, {needed} was expected") from None
    if kind == "json" and (not isinstance(values, dict) or values.get("label") is None):
        return []
    try:
        return [label_value(values["label"]) if kind == "json" else text_value(text)]
    except ValueError as error:
        raise ValueError(f"{path}: {member.name}: label {error}") from None
