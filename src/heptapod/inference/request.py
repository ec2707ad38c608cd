"""A request for images: labels resolved and all settings checked once, planned once, sampled batch by batch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heptapod.inference.bundle import padded_batches
from heptapod.models import HeptapodModel
from heptapod.sampling import SamplingPlan, SamplingStep, run_plan, run_to_end
from heptapod.utils.checks import as_list, check_at_least, whole_number
from heptapod.utils.logging import Progress

LabelsInput = int | str | Sequence[int | str] | np.ndarray | Tensor
"""A class by index or name, or one per image."""


def class_index(label: Any, class_names: Sequence[str]) -> int:
    """The index of a class given by index or name.

    A number is an index. A string is a name; digits that are no name are an index too, unless some class has a number
    for a name: then they would mean two things.

    Raises:
        ValueError: naming a label that is out of range, unknown or not whole.
    """
    if isinstance(label, str):
        if label in class_names:
            return list(class_names).index(label)
        if not re.fullmatch("-?[0-9]+", label) or any(name.isdecimal() for name in class_names):
            raise ValueError(f"label: {label!r:.60} is no class of this model ({_listed(class_names)})")
        label = int(label)
    index = whole_number("label", label)
    if not 0 <= index < len(class_names):
        allowed = f"must be between 0 and {len(class_names) - 1}"
        if str(index) in class_names:
            allowed += f", an index; the text '{index}' is the class of this name"
        allowed = allowed if class_names else "this model was trained without classes"
        raise ValueError(f"label: {index} given, {allowed}")
    return index


def class_indices(labels: LabelsInput | None, class_names: Sequence[str], count: int | None = None) -> list[int]:
    """Class indices of labels, see :func:`class_index`: one per image.

    Args:
        labels: one per image, or one for all of them; None for no label, -1 each.
        class_names: names of the model's classes.
        count: images, where there is not one label for each; 1 if left out.

    Raises:
        ValueError: as :func:`class_index`, or for a count together with several labels.
    """
    check_at_least(1, count=count)
    if labels is None:
        return [-1] * (count or 1)
    given, is_single = as_list(labels)
    if not given:
        raise ValueError("labels: none given; name at least one class")
    if count not in (None, len(given)) and not is_single:
        raise ValueError(f"count: {count} given together with {len(given)} labels; leave one of them out")
    return [class_index(label, class_names) for label in given] * (count if count and is_single else 1)


def named_classes(labels: Iterable[int], class_names: Sequence[str]) -> dict[str, str]:
    """The names of the classes that occur among labels, by index, for records and messages; no entry for -1."""
    return {str(label): class_names[label] for label in sorted(set(labels)) if label >= 0}


def numeric_names_note(labels: Iterable[int], class_names: Sequence[str]) -> str | None:
    """A line that shows name and index, where the names of the classes are numbers other than their index."""
    if all(not name.isdecimal() or name == str(number) for number, name in enumerate(class_names)):
        return None
    return ", ".join(f"class {name!r} (id {label})" for label, name in named_classes(labels, class_names).items())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown}, … {len(names)} in all" if len(names) > 8 else shown or "it has none"


@dataclass(frozen=True)
class GenerationRequest:
    """A checked request for images; :meth:`heptapod.Heptapod.request` makes it."""

    labels: list[int]
    """Class index of each image, -1 without a label."""
    plan: SamplingPlan
    """Sampling config, seeds, known cells and steps of all images."""
    batch_size: int | None
    """Images at a time, as in :meth:`heptapod.Heptapod.generate`."""
    support_warnings: list[str]
    """Everything requested that the model was not trained for, one line each."""

    def __len__(self) -> int:
        return len(self.labels)

    def warn(self) -> None:
        """Issues the support warnings."""
        for message in self.support_warnings:
            warnings.warn(message, stacklevel=3)

    def batches(self) -> list[tuple[list[int], int]]:
        """The images of each batch by index, and how many of them count, see :func:`padded_batches`."""
        return list(padded_batches(len(self), self.batch_size))

    def sample_batch(self, model: HeptapodModel, rows: list[int], count: int) -> Tensor:
        """Token grids (count, N) int64 or (count, N, C) float32 of one of :meth:`batches`."""
        labels = torch.tensor([self.labels[row] for row in rows])
        return run_to_end(model, labels, self.plan.batch(rows))[:count]

    def sample(self, model: HeptapodModel, progress: bool = False) -> Tensor:
        """Token grids (M, N) int64 or (M, N, C) float32 of all images."""
        parts = []
        with Progress(f"sampling {len(self):,} images", len(self), shown=progress) as bar:
            for rows, count in self.batches():
                parts.append(self.sample_batch(model, rows, count))
                bar.advance(count)
        return torch.cat(parts)

    def stream(self, model: HeptapodModel) -> Iterator[SamplingStep]:
        """The sampling steps of all images together, in one batch."""
        return run_plan(model, torch.tensor(self.labels), self.plan)
