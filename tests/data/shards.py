"""Writes tar shards as WebDataset lays them out."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

Members = list[tuple[str, bytes]]


def write_shard(path: Path, members: Members, **options: object) -> Path:
    """A tar file of members in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members_of(folder: Path, files: Iterable[Path]) -> Members:
    """The images of a class folder as samples with a .cls member, keys with their folders."""
    classes = sorted(place.name for place in folder.iterdir())
    members = []
    for file in files:
        key = str(file.relative_to(folder).with_suffix(""))
        members += [(f"{key}.cls", str(classes.index(file.parent.name)).encode())]
        members += [(f"{key}{file.suffix}", file.read_bytes())]
    return members


def write_shards(folder: Path, out: Path, per_shard: int, name: str = "train") -> Path:
    """The images of a class folder, in its order, in shards that hold so many of them; the classes are named beside."""
    files = sorted(folder.rglob("*.png"))
    for number, start in enumerate(range(0, len(files), per_shard)):
        write_shard(out / f"{name}-{number:06d}.tar", members_of(folder, files[start : start + per_shard]))
    classes = sorted(place.name for place in folder.iterdir())
    (out / "class_names.txt").write_text("\n".join(classes) + "\n", encoding="utf-8")
    return out
