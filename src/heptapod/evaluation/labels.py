"""Which classes are sampled for an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heptapod.configs.evaluation import LabelPolicy
from heptapod.utils.random import Stream, numpy_generator


def policy_labels(
    policy: LabelPolicy, count: int, num_classes: int, seed: int = 0, class_counts: Sequence[int] | None = None
) -> list[int] | None:
    """A class for each image.

    Args:
        policy: ``balanced``: every class equally often, in turn, the remainder spread evenly over the classes;
            ``random``: uniformly at random; ``reference``: as often as in the reference (largest remainders), in random
            order; ``none``: no labels.
        count: images.
        num_classes: classes of the model.
        seed: keys the random labels and orders.
        class_counts: images of each class of the model in the reference, see :func:`counts_by_class`.

    Returns:
        ``count`` class indices, or None.

    Raises:
        ValueError: if the model has no classes, or the reference has none.
    """
    if count < 1:
        raise ValueError(f"count: {count} given, must be at least 1")
    if policy == "none":
        return None
    if num_classes < 1:
        raise ValueError(f"label_policy: {policy} given, but this model was trained without classes; give none")
    if policy == "random":
        random_labels = numpy_generator(Stream.EVALUATION, seed, 0, 2).integers(num_classes, size=count)
        return [int(label) for label in random_labels]
    if policy == "balanced":
        whole, left = divmod(count, num_classes)
        return [*range(num_classes)] * whole + [i * num_classes // left for i in range(left)]
    if not class_counts or sum(class_counts) < 1:
        raise ValueError("label_policy: reference given, but the reference has no labels")
    if len(class_counts) != num_classes:
        raise ValueError(
            f"label_policy: reference given, but the reference has {len(class_counts)} classes, the model {num_classes}"
        )
    labels = np.repeat(np.arange(num_classes), _apportioned(count, class_counts))
    return [int(label) for label in numpy_generator(Stream.EVALUATION, seed, 0, 3).permutation(labels)]


def counts_by_class(names: Sequence[str], counts: Sequence[int], class_names: Sequence[str]) -> list[int]:
    """Images of each class of a model in a reference.

    Classes are matched by name; where a reference has only numbers and the model other names, by index.

    Args:
        names: classes of the reference.
        counts: images of each.
        class_names: classes of the model.

    Raises:
        ValueError: if the reference has images of a class that the model lacks.
    """
    by_name = {name: number for number, name in enumerate(class_names)}
    if all(name.isdecimal() for name in names) and not any(name.isdecimal() for name in class_names):
        by_name = {str(number): number for number in range(len(class_names))}
    if unknown := [name for name, images in zip(names, counts, strict=True) if images and name not in by_name]:
        raise ValueError(
            f"label_policy: reference given, but the reference has {len(unknown)} class(es) that the model lacks "
            f"({', '.join(map(repr, unknown[:3]))[:100]})"
        )
    found = [0] * len(class_names)
    for name, images in zip(names, counts, strict=True):
        if images:
            found[by_name[name]] = images
    return found


def _apportioned(count: int, class_counts: Sequence[int]) -> list[int]:
    """Whole numbers in proportion to ``class_counts`` that add up to ``count``: largest remainders first."""
    total = sum(class_counts)
    shares = [count * each // total for each in class_counts]
    by_remainder = sorted(range(len(shares)), key=lambda i: (-(count * class_counts[i] % total), i))
    for i in by_remainder[: count - sum(shares)]:
        shares[i] += 1
    return shares
