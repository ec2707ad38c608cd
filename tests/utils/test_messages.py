"""Values and limits as messages show them."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from heptapod.utils import machine
from heptapod.utils.messages import WIDTH, limits_of, nearest, quoted, shown


def test_values_are_cut_to_a_part_of_a_line() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    values = ["a" * 10**6, "a\nb\x1b[31m", 10**5000, [[0] * 1000] * 1000, deep, {"a": {"b": {}}}, b"x" * 1000, None]
    for value in values:
        for text in (shown(value), quoted(value)):
            assert len(text) <= WIDTH + 2
            assert text.isprintable()
    assert (shown("short"), quoted("short"), shown(3), quoted(None)) == ("short", "'short'", "3", "None")


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Annotated[int, Field(ge=1)], "at least 1"),
        (Annotated[int, Field(ge=8, le=16_384, multiple_of=8)], "at least 8 and at most 16,384 and a multiple of 8"),
        (Annotated[float, Field(gt=0, lt=1)] | None, "above 0 and below 1"),
        (Annotated[int, Field(ge=1, le=9)] | Literal["all"], "at least 1 and at most 9"),
        (list[Annotated[int, Field(ge=3)]], "at least 3"),
        (int, ""),
    ],
)
def test_limits_in_words(hint: object, words: str) -> None:
    assert limits_of(hint) == words


def test_a_hint_never_repeats_the_name() -> None:
    assert nearest("train", ["train", "trail"]) == "; did you mean 'trail'?"
    assert nearest("train", ["train"]) == ""


def test_what_the_machine_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    available = machine.memory_bytes()
    assert available is not None
    assert available > machine.GIB // 2
    monkeypatch.setattr(machine, "memory_bytes", lambda: 4 * machine.GIB)
    machine.check_fits(4 * machine.GIB, "width: 8")
    with pytest.raises(ValueError, match=r"^width: 8 given, which needs at least 5.0 GiB of memory; .* has 4.0 GiB$"):
        machine.check_fits(5 * machine.GIB, "width: 8")
    monkeypatch.setattr(machine, "memory_bytes", lambda: None)
    machine.check_fits(10**18, "width: 8")
