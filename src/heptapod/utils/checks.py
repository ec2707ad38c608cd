"""Checks of arguments that commands and functions share."""

from __future__ import annotations


def check_at_least(minimum: int, **values: int | None) -> None:
    """Raises ValueError naming the first of the given arguments that is below a minimum; None is not checked."""
    for name, value in values.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name}: {value} given, must be at least {minimum}")
