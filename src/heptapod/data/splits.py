"""Splits of a data set, by the names of its folders and files, and the one to read.

As for datasets on the Hugging Face Hub, ``train``, ``validation`` (``valid``, ``val``, ``dev``) and ``test`` (``eval``)
name a split: a folder (``train/``, ``val2017/``) or a part of a file name (``imagenet-train-0000.tar``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from heptapod.configs.data import SplitName
from heptapod.data.listing import Folder

KEYWORDS: dict[str, SplitName] = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_WORDS = "|".join(sorted(KEYWORDS, key=len, reverse=True))
FOLDER = re.compile(rf"({_WORDS})(?:[-_. ]?(?:\d+|images?|imgs?|set|data|split))*", re.IGNORECASE)
FILE = re.compile(rf"(?<![a-z])({_WORDS})(?![a-z])", re.IGNORECASE)
OTHER = "other"
"""Files without the name of a split, where others have one."""


def split_of_folder(name: str) -> SplitName | None:
    """The split that a folder is named after."""
    match = FOLDER.fullmatch(name)
    return KEYWORDS[match.group(1).lower()] if match else None


def split_of_file(file: PurePath) -> SplitName | None:
    """The split that a relative path is named after: by its folders, else by its name."""
    for part in file.parts[:-1]:
        if split := split_of_folder(part):
            return split
    match = FILE.search(file.stem)
    return KEYWORDS[match.group(1).lower()] if match else None


@dataclass(frozen=True)
class SplitChoice:
    """Which split of a data set is read."""

    split: SplitName | None = None
    """The split asked for; None for the first of ``preferred`` that the set has, or its only one."""
    preferred: tuple[SplitName, ...] = ("train",)
    """Splits to read where none is asked for."""
    is_training: bool = False
    """Whether a model is trained on it: then a split other than ``train`` must be asked for."""
    setting: str = "split"
    """Name of the setting that asks for a split, for messages."""

    def choose(self, path: str, counts: Mapping[str, int]) -> SplitName | None:
        """The split to read; None where all is read.

        Args:
            path: the data set, for messages.
            counts: images or files by split; empty if it has no splits.

        Raises:
            ValueError: if the split is missing, or it must be asked for.
        """
        named: list[SplitName] = [split for split in ("train", "validation", "test") if split in counts]
        if self.split == "all" or (self.split is None and not named):
            return None
        if self.split is not None:
            if self.split not in named:
                has = f"has the split(s) {', '.join(named)}" if named else "has no splits (train, validation, test)"
                raise ValueError(f"{self.setting}: {self.split} given, but {path} {has}")
            return self.split
        for split in self.preferred:
            if split in named:
                return split
        if len(named) > 1:
            raise ValueError(f"{path} has the splits {', '.join(named)} and no train; choose one with {self.setting}")
        if self.is_training and named[0] != "train":
            raise ValueError(
                f"{path} has only the split {named[0]}; to train on it, ask for it: {self.setting} {named[0]}"
            )
        return named[0]


class FoundImage(NamedTuple):
    """An image in a tree of folders."""

    parts: tuple[str, ...]
    """Its path."""
    split: SplitName | None
    """The split whose folder it lies in."""
    classes: tuple[str, ...]
    """The folders around it that are neither splits nor around all splits."""


def images_of(tree: Folder, is_asked: bool) -> list[FoundImage]:
    """The images of a tree in the order of their paths, with splits and classes.

    Args:
        tree: the folders.
        is_asked: a split was asked for, so that a folder named as one is a split in case of doubt.

    Raises:
        ValueError: if a folder may be a split as well as a class.
    """
    outer: tuple[str, ...] = ()
    node = tree
    while not (found := _split_folders(node, is_asked)) and not node.images and len(node.folders) == 1:
        name, node = next(iter(node.folders.items()))
        outer = (*outer, name)
    if not found:
        outer, node = (), tree
    return sorted(_walk(node, outer, (), None, is_asked), key=lambda image: image.parts)


def _walk(
    node: Folder, parts: tuple[str, ...], classes: tuple[str, ...], split: SplitName | None, is_asked: bool
) -> Iterator[FoundImage]:
    for name in node.images:
        yield FoundImage((*parts, name), split, classes)
    splits: dict[str, SplitName] = {}
    if split is None:
        if not classes and not is_asked:
            _check_ambiguous(node)
        splits = _split_folders(node, is_asked and not classes)
        if classes and len(set(splits.values())) < 2:  # cats/train and cats/test, but not vehicles/train
            splits = {}
    elif not classes and len(node.folders) == 1 and not node.images:  # train/train/cats
        splits = {name: split for name in node.folders if split_of_folder(name) == split}
    for name, folder in node.folders.items():
        inside = (*classes, name) if name not in splits else classes
        yield from _walk(folder, (*parts, name), inside, splits.get(name, split), is_asked)


def _split_folders(node: Folder, is_asked: bool) -> dict[str, SplitName]:
    """The folders in a folder that are its splits; empty if it has none."""
    named = {name: split for name in node.folders if (split := split_of_folder(name))}
    if is_asked or len(named) == len(node.folders) or ("train" in named.values() and len(set(named.values())) > 1):
        return named
    return {}


def _check_ambiguous(node: Folder) -> None:
    """Raises if a folder next to class folders is named as a split: a class "train" with images in it is fine."""
    named = {name: split for name in node.folders if (split := split_of_folder(name))}
    if not named or _split_folders(node, False):
        return
    for name, split in named.items():
        if split != "train" or node.folders[name].folders:
            other = min(node.folders.keys() - named.keys())
            raise ValueError(
                f"the folder {name} next to {other} may be the split {split} or a class; choose a split (train for "
                f"the other folders), give one of the folders, or rename {name}"
            )


def split_counts(splits: Iterable[SplitName | None]) -> tuple[dict[str, int], str]:
    """Counts items by split, and says which split items without one belong to.

    They are the training split where no other is; else they belong to none. Without any split the counts are empty.
    """
    counts: dict[str, int] = {}
    unnamed = 0
    for split in splits:
        if split is None:
            unnamed += 1
        else:
            counts[split] = counts.get(split, 0) + 1
    home = OTHER if "train" in counts else "train"
    if counts and unnamed:
        counts[home] = unnamed
    return counts, home
