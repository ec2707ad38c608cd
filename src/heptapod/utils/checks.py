"""Limits of arguments that commands and functions share."""

from __future__ import annotations

from typing import Annotated

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
