"""The regression gate of speed: what it accepts."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from gate import COMPARED, ELSEWHERE, FILE, SIDE, TOLERANCE, Gate, limits, slower  # type: ignore[import-not-found]

from heptapod.utils.files import read_json


def test_a_stored_processor_has_the_narrow_limit_and_another_the_wide_one() -> None:
    stored = {"one": {"a": 1.0, "b": 2.0}, "other": {"a": 3.0}}
    assert limits(stored, "one") == {"a": TOLERANCE, "b": 2 * TOLERANCE}
    assert limits(stored, "third") == {"a": 3 * ELSEWHERE, "b": 2 * ELSEWHERE}


def test_more_than_the_limit_is_slower() -> None:
    gate = object.__new__(Gate)
    gate.flops = {"training cross": 2.0 * SIDE**3}
    gate.fastest = {name: 2.0 for pair in COMPARED for name in pair} | {"matrix product": 1.0}
    gate.fastest["sampling cross, 8 steps"] = 0.5
    found = gate.ratios()
    assert found["training cross / matrix product"] == 2.0
    assert found["sampling cross, 8 steps / sampling next_token"] == 0.25
    assert (
        slower(gate, {"sampling cross, 8 steps / sampling next_token": 0.26, "training cross / matrix product": 2})
        == []
    )
    assert slower(gate, {"sampling cross, 8 steps / sampling next_token": 0.24}) != []
    assert slower(gate, {"no longer measured": 9.0}) == ["no longer measured"]


def test_what_is_stored_is_what_is_measured() -> None:
    processors = read_json(FILE)["processors"]
    measured = {f"{name} / {baseline}" for name, baseline in COMPARED}
    measured |= {"training cross / matrix product", "encoding / matrix product"}
    assert processors
    assert all(set(ratios) == measured for ratios in processors.values())
