"""Classes of a data set: their counts for reports, and a hold-out that leaves each of them images to train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import TypedDict

SHOWN = 10
"""Classes that a report names one by one."""


def keep_classes(order: np.ndarray, share: int, labels: np.ndarray) -> np.ndarray:
    """The first rows of a random order, exchanged where they are all images of a class.

    Such a class gets its first one back, and the next row in the order whose class has others is held out instead. If
    no class has two images, nothing is exchanged.

    Args:
        order: (M,) rows in random order.
        share: number of rows to hold out.
        labels: (M,) class of each row, -1 for none; or empty.

    Returns:
        Rows to hold out, at most ``share``.
    """
    held_out = order[:share]
    if not len(labels) or labels.max() < 0:
        return held_out
    left = np.bincount(labels[labels >= 0], minlength=int(labels.max()) + 1)
    remaining = left - np.bincount(labels[held_out][labels[held_out] >= 0], minlength=len(left))
    kept: list[int] = []
    for row in held_out.tolist():
        label = labels[row]
        if label >= 0 and remaining[label] == 0:
            remaining[label] = 1
        else:
            kept.append(row)
    for row in order[share:].tolist():
        if len(kept) == share:
            break
        label = labels[row]
        if label < 0 or remaining[label] > 1:
            kept.append(row)
            remaining[label] -= label >= 0
    return np.array(kept, dtype=np.int64) if kept else held_out


class ClassCount(TypedDict):
    """A class and its numbers of images, as results have it."""

    name: str
    training: int
    held_out: int


def count_classes(names: Sequence[str], training: Any, held_out: Any) -> list[ClassCount]:
    """Name and number of training and held-out images of each class, for results.

    Args:
        names: names of the classes.
        training: (M,) class of each training image, -1 for none.
        held_out: (K,) the same of the held-out images.
    """
    counts = []
    for labels in (training, held_out):
        numbers = np.asarray(labels, dtype=np.int64)
        counts.append(np.bincount(numbers[numbers >= 0], minlength=len(names)).tolist())
    return [
        {"name": name, "training": trained, "held_out": held}
        for name, trained, held in zip(names, *counts, strict=True)
    ]


def class_lines(classes: Sequence[ClassCount]) -> list[str]:
    """Lines that report classes with their numbers of images; of many classes the first, the smallest, the largest."""
    if not classes:
        return []
    is_split = any(one["held_out"] for one in classes)

    def text(one: ClassCount) -> str:
        return f"{one['name']} {one['training']:,}" + (f" + {one['held_out']:,}" if is_split else "")

    shown = ", ".join(map(text, classes[:SHOWN]))
    lines = [f"classes{' (training + held out)' if is_split else ''}: {shown}"]
    if len(classes) > SHOWN:
        fewest, most = (which(classes, key=lambda one: one["training"]) for which in (min, max))
        lines[0] += f", and {len(classes) - SHOWN:,} more"
        lines.append(f"fewest: {text(fewest)}; most: {text(most)}")
    for problem, found in (
        ("no training image", [one["name"] for one in classes if not one["training"]]),
        ("a single image" + is_split * ", which is trained on", [
            one["name"] for one in classes if (one["training"], one["held_out"]) == (1, 0)
        ]),
    ):  # fmt: skip
        if found:
            more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
            lines.append(f"{len(found):,} class(es) with {problem}: {', '.join(found[:SHOWN])}{more}")
    return lines
