"""Labels as files have them, numbers or names, read into class indices by one rule for every format.

```text
names (text, categories)       the names that occur, sorted as text
true, false                    two classes of these names
whole numbers 0 … K - 1        their number, which is also the name
other whole numbers (ids)      the numbers that occur, in numeric order; their digits are the names
with a list of class names     the place in the list; a name must be in it, a number below its length
null, negative, empty, NaN     no label, counted in a warning
```
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

ABSENT, VOID = -1, -2
"""Codes of images without a label: none is given, or one that means none (null, negative)."""
LONGEST_NAME = 1000
"""Characters of a class name."""
LARGEST = 2**64
"""Numbers are below it."""
Value = int | str
"""A label as it is written."""


@dataclass(frozen=True)
class Labels:
    """The labels of one file, as they are written."""

    codes: np.ndarray
    """(M,) int64: the place in ``values`` of each label, or ``ABSENT`` or ``VOID``."""
    values: list[Value]
    """The labels that occur, each once."""

    def first_row(self, value: Value) -> int:
        """The first row that has a label."""
        return int((self.codes == self.values.index(value)).argmax())


def label_value(value: Any) -> Value | None:
    """A label from JSON: a number, a name, or None for no label.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value == value and value.is_integer():
        value = int(value)
    if isinstance(value, int) and value < LARGEST:
        return value if value >= 0 else None
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str) and len(value) <= LONGEST_NAME and value.encode(errors="replace").decode() == value:
        return value
    raise ValueError(f"{_short(value)} given, must be a whole number below 2^64 or a name")


def text_value(text: str) -> Value | None:
    """A label from a text file: digits are a number, other printable text is a name, empty text is no label.

    Raises:
        ValueError: for anything else.
    """
    text = text.strip()
    if not text.isprintable():
        raise ValueError(f"{_short(text)} given, must be a whole number or a name")
    is_number = re.fullmatch("-?[0-9]+", text) is not None
    return label_value((int(text) if len(text) < 30 else LARGEST) if is_number else text)


def listed_labels(values: Sequence[Value | None], codes: Sequence[int] | None = None) -> Labels:
    """Labels of :func:`label_value`; where one is None, ``codes`` says of what kind (``ABSENT`` if left out)."""
    places: dict[Value, int] = {}
    found = [
        (ABSENT if codes is None else codes[row]) if value is None else places.setdefault(value, len(places))
        for row, value in enumerate(values)
    ]
    return Labels(np.array(found, dtype=np.int64), list(places))


def array_labels(values: np.ndarray, row_name: Callable[[int], str], void: np.ndarray | None = None) -> Labels:
    """Labels of an array of numbers, booleans or text.

    Args:
        values: (M,) of them.
        row_name: the name of a row, for messages.
        void: (M,) bool, rows whose label is null.

    Raises:
        ValueError: for a number that is not whole, or another kind of array.
    """
    kind = values.dtype.kind
    void = np.zeros(len(values), dtype=bool) if void is None else void
    if kind == "b":
        values = np.where(values, "true", "false")
    elif kind == "f":
        numbers = values.astype(np.float64)
        void = void | np.isnan(numbers)
        wrong = ~void & ((numbers != np.floor(numbers)) | (np.abs(numbers) >= 2**63))
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"{row_name(row)}: label {numbers[row]} given, must be a whole number below 2^63")
        values = np.where(void, 0, numbers).astype(np.int64)
    elif kind not in "iuU":
        raise ValueError(f"{row_name(0)}: a label of type {values.dtype} given, must be a whole number or a name")
    void = void | (values == "" if values.dtype.kind == "U" else values < 0)
    distinct, places = np.unique(values[~void], return_inverse=True)
    codes = np.full(len(values), VOID, dtype=np.int64)
    codes[~void] = places
    return Labels(codes, distinct.tolist())


def arrow_labels(column: Any, row_name: Callable[[int], str]) -> Labels:
    """Labels of a column of a parquet file; see :func:`array_labels`."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind, types = column.type, pa.types
    if types.is_null(kind):
        return Labels(np.full(len(column), VOID, dtype=np.int64), [])
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        encoded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
        names = encoded.dictionary.to_pylist()
        codes = encoded.indices.cast(pa.int64()).fill_null(VOID).to_numpy(zero_copy_only=False).copy()
        if long := [name for name in names if len(name) > LONGEST_NAME]:
            row = int((codes == names.index(long[0])).argmax())
            raise ValueError(f"{row_name(row)}: label {_short(long[0])} given, at most {LONGEST_NAME:,} characters")
        if "" in names:
            empty = names.index("")
            codes = np.where(codes == empty, VOID, codes - (codes > empty))
            del names[empty]
        return Labels(codes, names)
    void = column.is_null().to_numpy()
    if types.is_floating(kind):
        return array_labels(column.cast(pa.float64()).fill_null(float("nan")).to_numpy(), row_name, void)
    if types.is_integer(kind) or types.is_boolean(kind):
        return array_labels(column.fill_null(pa.scalar(0).cast(kind)).to_numpy(), row_name, void)
    raise ValueError(f"{row_name(0)}: a label of type {kind} given, must be a whole number or a name")


def class_labels(
    path: str,
    parts: Sequence[Labels],
    names: Sequence[str],
    declared: Sequence[str] = (),
    declared_in: str = "the file",
) -> tuple[list[int], list[str]]:
    """The class index of every image of a set, and the names of the classes.

    Logs how many images have no label, and what numbers other than 0 … K - 1 become.

    Args:
        path: the set, for messages.
        parts: the labels of its files, in order.
        names: names of the M images.
        declared: the class names that the set declares; none for the rule of this module.
        declared_in: where, for messages.

    Returns:
        Class index of each image, -1 for none; the names are empty if no image has a label.

    Raises:
        ValueError: for numbers in one place and names in another, or labels that ``declared`` lacks.
    """
    starts = np.cumsum([0, *(len(part.codes) for part in parts)]).tolist()
    first = {
        value: (part, start) for part, start in zip(parts[::-1], starts[-2::-1], strict=True) for value in part.values
    }

    def row_name(value: Value) -> str:
        part, start = first[value]
        return str(names[start + part.first_row(value)])

    numbers = sorted(value for value in first if isinstance(value, int))
    texts = sorted(value for value in first if isinstance(value, str))
    if numbers and texts:
        raise ValueError(
            f"{row_name(texts[0])} has the label {_short(texts[0])}, but {row_name(numbers[0])} has {numbers[0]}; all "
            "must be numbers, or all names"
        )
    if declared and numbers and numbers[-1] >= len(declared):
        raise ValueError(
            f"{row_name(numbers[-1])}: label {numbers[-1]} is out of range, {declared_in} has {len(declared)} classes"
        )
    if declared and (unknown := sorted(set(texts) - set(declared))):
        raise ValueError(f"{row_name(unknown[0])}: label {_short(unknown[0])} is none of the classes of {declared_in}")
    class_names = list(declared) if declared else texts or [str(number) for number in numbers]
    if not first:
        class_names = []
    elif numbers and not declared and numbers[-1] >= len(numbers):
        logger.info(
            f"data: {path}: the labels are ids ({numbers[0]} … {numbers[-1]}): {len(numbers):,} classes, named after "
            "them"
        )
    places = {name: number for number, name in enumerate(class_names)}
    if declared and numbers:
        places = {str(number): number for number in numbers}
    tables = [np.array([*(places[str(value)] for value in part.values), -1]) for part in parts]
    labels = np.concatenate([table[np.maximum(part.codes, -1)] for table, part in zip(tables, parts, strict=True)])
    _report_missing(path, labels, names, any(bool((part.codes == VOID).any()) for part in parts))
    found: list[int] = labels.tolist()
    return found, class_names


def _report_missing(path: str, labels: np.ndarray, names: Sequence[str], some_void: bool) -> None:
    missing = np.flatnonzero(labels < 0)
    if len(missing) and (some_void or len(missing) < len(labels)):
        logger.warning(
            f"data: {path}: {len(missing):,} of {len(labels):,} images have no label (null, negative or none given), "
            f"for example {names[missing[0]]}"
        )


def matched_labels(
    labels: Sequence[int], own_names: Sequence[str], class_names: Sequence[str], setting: str, path: str, other: str
) -> list[int]:
    """Labels of a set as indices of the classes of another set, by their names.

    Args:
        labels: class indices, -1 for none.
        own_names: the classes they refer to.
        class_names: the classes to refer to.
        setting: the setting with the path, for messages.
        path: the set of the labels, for messages.
        other: the set of ``class_names``.

    Raises:
        ValueError: naming the setting, if the other set lacks a class that occurs.
    """
    places = {name: number for number, name in enumerate(class_names)}
    present = sorted({label for label in labels if label >= 0})
    if unknown := [own_names[label] for label in present if own_names[label] not in places]:
        shown = ", ".join(_short(name) for name in unknown[:3])
        raise ValueError(
            f"{setting}: {path} has other classes than {other} ({len(unknown)} of {len(present)}: {shown}"
            f"{', …' if len(unknown) > 3 else ''})"
        )
    table = {label: places[own_names[label]] for label in present} | {-1: -1}
    return [table[label] for label in labels]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
