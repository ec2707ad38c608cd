"""Words of error messages: values cut to a part of a line, limits, the name that was meant."""

from __future__ import annotations

import difflib
import reprlib
import typing
from collections.abc import Iterator, Sequence
from typing import Any

WIDTH = 80
"""Characters of a value in a message."""
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "multiple_of": "a multiple of"}
"""Limits of a value in words, by their name in an annotation."""


class _Repr(reprlib.Repr):
    """A bounded ``repr``."""

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to print the longest numbers."""
        return f"a number of {x.bit_length():,} bits" if x.bit_length() > 1000 else repr(x)


_repr = _Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = WIDTH


def shown(value: object, width: int = WIDTH) -> str:
    """A value as a message shows it: on one line, of at most ``width`` characters. Text stands without quotes."""
    text = value[: 4 * width] if isinstance(value, str) else _repr.repr(value)
    text = "".join(char if char.isprintable() else " " for char in text)
    is_whole = not isinstance(value, str) or len(value) <= width
    return text if is_whole and len(text) <= width else f"{text[: width - 1]}…"


def quoted(value: object, width: int = WIDTH) -> str:
    """As :func:`shown`, with text in quotes."""
    return repr(shown(value, width)) if isinstance(value, str) else shown(value, width)


def limits_of(*sources: Any) -> str:
    """The limits in an annotation, in words: "at least 1 and at most 9"; empty without any."""
    found: dict[str, str] = {}
    for source in sources:
        for note in _notes(source):
            for limit, words in LIMITS.items():
                if (bound := getattr(note, limit, None)) is not None:
                    found.setdefault(limit, f"{words} {_number(bound)}")
    return " and ".join(found.values())


def _number(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _notes(source: Any) -> Iterator[Any]:
    for note in [*getattr(source, "__metadata__", ()), *getattr(source, "metadata", ())]:
        yield note
        yield from getattr(note, "metadata", ())
    for argument in typing.get_args(source):
        if not isinstance(argument, str):
            yield from _notes(argument)


def nearest(key: str, known: Sequence[str]) -> str:
    """A hint at the name that was meant: "; did you mean ...?", or nothing."""
    last, known = key.rpartition(".")[2], [other for other in known if other != key]
    near = [other for other in known if other.endswith(f".{key}")] or difflib.get_close_matches(key, known, 1, 0.5)
    near = near or [other for other in known if other.rpartition(".")[2] == last]
    return f"; did you mean {near[0]!r}?" if near else ""
