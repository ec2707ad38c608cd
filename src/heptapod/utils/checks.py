"""Limits of arguments that commands and functions share."""

from __future__ import annotations

import numbers
from typing import Annotated, Any

from pydantic import Field

MAX_BATCH = 65_536
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""Images."""
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH)]
"""Images at a time."""
Side = Annotated[int, Field(ge=0, le=16_384)]
"""Pixels per side; 0 keeps images as they are."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""Keys randomness."""
Gibibytes = Annotated[float, Field(gt=0, le=1e6)]
"""Memory in GiB."""


def check_at_least(minimum: int, **values: int | None) -> None:
    """Raises ValueError naming the first of the given arguments that is below a minimum; None is not checked."""
    for name, value in values.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name}: {value} given, must be at least {minimum}")


def as_list(values: Any) -> tuple[list[Any], bool]:
    """The items of a sequence, array or tensor, or one item alone (a string too); and whether it was one alone."""
    plain = values.tolist() if hasattr(values, "tolist") else values
    is_single = isinstance(plain, str | bytes) or not hasattr(plain, "__iter__")
    return ([plain] if is_single else list(plain)), is_single


def whole_number(name: str, value: Any) -> int:
    """An int, or what stands for one: an integer of numpy, a float such as 3.0, an array or tensor of one number.

    Raises:
        ValueError: for anything else, True and False included; in one line.
    """
    plain = value.tolist() if hasattr(value, "tolist") else value
    is_number = isinstance(plain, numbers.Integral) or (isinstance(plain, float) and plain.is_integer())
    if isinstance(plain, bool) or not is_number:
        raise ValueError(f"{name}: {value!r:.60} given, must be a whole number")
    return int(plain)
