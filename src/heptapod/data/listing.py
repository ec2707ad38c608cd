"""Lists the images below a folder; what is left out is counted and named.

Hidden files and folders and what operating systems leave behind are no images. Links to folders are followed, every
folder once. Files without the suffix of an image are images by their first bytes.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePath

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif",
}  # fmt: skip
OTHER_SUFFIXES = {
    ".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".cls", ".npy", ".npz",
    ".safetensors",
}  # fmt: skip
"""Captions, labels and the like: never images, and not reported."""
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
JUNK = {
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "__pycache__", "thumbs.db", "ehthumbs.db",
    "desktop.ini",
}  # fmt: skip
"""Lower-case names of what operating systems leave in folders."""
MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ",
)  # fmt: skip
"""First bytes of JPEG, PNG, GIF, TIFF and JPEG 2000 files."""
MANY_OTHERS = 10_000
"""Files of other kinds from which on a folder must have an image to a hundred of them."""
STOP_AT = 100_000
"""Files of other kinds at which a listing stops if there are as few images."""
SECONDS_BETWEEN_LINES = 10.0
MAX_DEPTH = 100


@dataclass
class Folder:
    """The images of a folder, and its folders with images."""

    folders: dict[str, Folder] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)


@dataclass
class Listing:
    """What lies below a folder, without hidden files."""

    place: Path
    """The folder."""
    tree: Folder = field(default_factory=Folder)
    """Its images, by folder."""
    parquet: list[PurePath] = field(default_factory=list)
    """Relative paths."""
    tar: list[PurePath] = field(default_factory=list)
    """Relative paths."""
    compressed: list[PurePath] = field(default_factory=list)
    """Relative paths of compressed .tar files."""
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Relative paths of what is left out, by kind."""
    images: int = 0
    """Number of images."""
    others: int = 0
    """Number of files that are neither images, shards nor captions and the like."""

    def leave_out(self, kind: str, name: str) -> None:
        """Notes something that is not read."""
        self.left_out.setdefault(kind, []).append(name)

    def notes(self) -> list[str]:
        """What is left out, a phrase for each kind."""
        return [
            f"{len(names):,} {kind} ({min(names)}{', …' if len(names) > 1 else ''})"
            for kind, names in sorted(self.left_out.items())
        ]


def list_folder(folder: Path) -> Listing:
    """Lists everything below a folder; a line now and then says how far it is.

    Raises:
        ValueError: if there are 10,000 files of other kinds, and not one image or shard to a hundred of them.
        OSError: if the folder itself cannot be opened.
    """
    listing = Listing(folder)
    seen: set[tuple[int, int]] = set()
    links: list[tuple[str, Folder]] = []
    pending = [("", listing.tree)]
    last = time.monotonic()
    while pending or links:
        if not pending:  # folders first: a link to one of them is left out
            links.sort(key=lambda link: (link[0].count("/"), link[0]), reverse=True)
            pending.append(links.pop())
        place, node = pending.pop()
        try:
            entries = _open(folder / place, seen)
        except OSError as error:
            if not place:
                raise
            listing.leave_out("folder(s) that cannot be opened", f"{place}: {error.strerror}")
            continue
        if entries is None:
            listing.leave_out("link(s) to a folder that is read already", place)
        elif place.count("/") >= MAX_DEPTH:
            listing.leave_out(f"folder(s) more than {MAX_DEPTH} levels deep", place)
        else:
            for entry in entries:
                _add(listing, f"{place}/{entry.name}" if place else entry.name, entry, node, pending, links)
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info(f"data: listing {folder}: {listing.images:,} images and {listing.others:,} other files so far")
    _check_share(listing)
    _prune(listing)
    return listing


def _open(place: Path, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]] | None:
    """The entries of a folder; None if it was opened before."""
    facts = place.stat()
    if (facts.st_dev, facts.st_ino) in seen:
        return None
    seen.add((facts.st_dev, facts.st_ino))
    with os.scandir(place) as entries:
        return list(entries)


def _add(
    listing: Listing,
    name: str,
    entry: os.DirEntry[str],
    node: Folder,
    pending: list[tuple[str, Folder]],
    links: list[tuple[str, Folder]],
) -> None:
    """Sorts one entry of a folder into the listing."""
    is_folder = entry.is_dir(follow_symlinks=False)
    if is_junk(entry.name):
        if is_folder or _suffix(entry.name) in IMAGE_SUFFIXES:
            listing.leave_out("hidden folder(s)" if is_folder else "hidden file(s)", name)
        return
    if not is_folder and entry.is_symlink():
        try:
            mode = entry.stat().st_mode
        except OSError:
            listing.leave_out("broken link(s)", name)
            return
        if stat.S_ISDIR(mode):
            links.append((name, node.folders.setdefault(entry.name, Folder())))
            return
    if is_folder:
        pending.append((name, node.folders.setdefault(entry.name, Folder())))
    elif not entry.is_file():
        listing.leave_out("file(s) that are devices, pipes or sockets", name)
    else:
        _add_file(listing, name, entry, node)


def _add_file(listing: Listing, name: str, entry: os.DirEntry[str], node: Folder) -> None:
    suffix = _suffix(entry.name)
    if suffix == ".parquet":
        listing.parquet.append(PurePath(name))
    elif suffix == ".tar":
        listing.tar.append(PurePath(name))
    elif entry.name.lower().endswith(COMPRESSED_TARS):
        listing.compressed.append(PurePath(name))
    elif suffix in IMAGE_SUFFIXES or (suffix not in OTHER_SUFFIXES and has_image_bytes(entry.path)):
        node.images.append(entry.name)
        listing.images += 1
    elif suffix not in OTHER_SUFFIXES:
        listing.others += 1
        listing.leave_out(f"{suffix} file(s)" if suffix else "file(s) without a suffix", name)
        if listing.others % STOP_AT == 0:
            _check_share(listing)


def _check_share(listing: Listing) -> None:
    """Raises if a folder holds far too few images: a home folder, say, or the root of a disk."""
    useful = listing.images + 1000 * (len(listing.parquet) + len(listing.tar))
    if listing.others >= MANY_OTHERS and 100 * useful < listing.others:
        raise ValueError(
            f"{listing.place} has {listing.images:,} images among {listing.others:,} files of other kinds; this is no "
            "set of images: give the folder that holds the images"
        )


def _prune(listing: Listing) -> None:
    """Removes the folders without images and shards, and notes them."""
    noted = {name for names in listing.left_out.values() for name in names}
    noted |= {str(parent) for file in (*listing.parquet, *listing.tar, *listing.compressed) for parent in file.parents}

    def prune(node: Folder, place: str) -> bool:
        below = {name: f"{place}/{name}" if place else name for name in node.folders}
        empty = [name for name, folder in node.folders.items() if not prune(folder, below[name])]
        for name in empty:
            del node.folders[name]
        if node.folders or node.images or not place:  # else the folder around them is noted
            for name in empty:
                if below[name] not in noted:
                    listing.leave_out("folder(s) without images", below[name])
        return bool(node.folders or node.images)

    prune(listing.tree, "")


def has_image_bytes(path: str | Path) -> bool:
    """Whether a file begins as images do; a file that cannot be read does not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            start = os.read(descriptor, 16)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return (
        start.startswith(MAGIC)
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
        or (start[:2] == b"BM" and start[6:10] == b"\0\0\0\0")
        or start[4:12] in (b"ftypavif", b"ftypavis")
    )


def is_junk(path: str) -> bool:
    """Whether a part of a path is hidden, or what operating systems leave behind; ``.`` and ``..`` are not."""
    return any((part.startswith(".") and part not in (".", "..")) or part.lower() in JUNK for part in path.split("/"))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # a Path for every file of a large set is slow
