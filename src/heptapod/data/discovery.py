"""Decides which files of a folder hold its images: .tar shards, parquet files, or image files."""

from __future__ import annotations

from pathlib import Path, PurePath

from heptapod.data.listing import Folder, Listing
from heptapod.data.splits import split_of_folder
from heptapod.data.tar_shard import check_not_compressed

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp")
"""Columns of parquet files with images; the last three are those of img2dataset."""
MAX_TABLES = 100
"""Parquet files next to images whose columns are read."""


def shard_files(path: str, listing: Listing) -> list[PurePath]:
    """The .tar shards or parquet files of a folder; none if it holds images.

    Raises:
        ValueError: if it holds several kinds of images, shards in several places, or compressed shards.
    """
    tables = {shard.with_suffix(".parquet") for shard in listing.tar}  # img2dataset writes one for each shard
    tables |= {PurePath(f"{name}.parquet") for name in listing.tree.folders}
    if listing.tar or listing.images:
        tables |= {table for table in listing.parquet[:MAX_TABLES] if not _has_images(listing.place / table)}
    parquet = sorted(table for table in listing.parquet if table not in tables)
    for table in tables.intersection(listing.parquet):
        listing.leave_out("table(s) without images", str(table))
    plain = {*listing.tar, *(shard.with_suffix("") for shard in listing.tar)}
    compressed = [shard for shard in listing.compressed if shard.with_suffix("") not in plain]
    if compressed and (listing.tar or not (listing.images or parquet)):
        check_not_compressed(listing.place / min(compressed))
    for shard in listing.compressed:
        listing.leave_out("compressed .tar file(s)", str(shard))
    if (listing.tar and (listing.images or parquet)) or (listing.images and parquet and len(parquet[0].parts) > 1):
        first = f".tar shards ({min(listing.tar)})" if listing.tar else f".parquet files ({parquet[0]})"
        other = parquet[0] if listing.tar and parquet else PurePath(*_first_image(listing.tree))
        raise ValueError(
            f"{path} has both {first} and other images ({other}); keep them apart, or name the shards by a pattern "
            "(train-{000000..000146}.tar)"
        )
    if parquet and listing.images:
        listing.leave_out("image(s) that are not in .parquet files", str(PurePath(*_first_image(listing.tree))))
    return _in_one_place(path, sorted(listing.tar) or parquet, listing)


def _in_one_place(path: str, shards: list[PurePath], listing: Listing) -> list[PurePath]:
    """The shards directly in a folder, else those of the only folder of shards (or of its splits)."""
    direct = [shard for shard in shards if len(shard.parts) == 1]
    if direct:
        for shard in shards:
            if len(shard.parts) > 1:
                listing.leave_out("shard(s) in folders below", str(shard))
        return direct
    places = {tuple(part for part in shard.parts[:-1] if not split_of_folder(part)): shard for shard in shards}
    if len(places) > 1:
        first, other = sorted(places.values())[:2]
        raise ValueError(f"{path} holds shards in several folders ({first.parent}, {other.parent}); name one of them")
    return shards


def _first_image(tree: Folder) -> list[str]:
    """Path of an image in a tree that has one."""
    if tree.images:
        return [min(tree.images)]
    name = min(tree.folders)
    return [name, *_first_image(tree.folders[name])]


def _has_images(file: Path) -> bool:
    """Whether a parquet file has a column of images; also if that cannot be found out."""
    try:
        import pyarrow.parquet as pq
        from pyarrow import ArrowException
    except ImportError:
        return True
    try:
        return bool(set(IMAGE_COLUMNS) & set(pq.read_schema(file).names))
    except (ArrowException, OSError):
        return True
