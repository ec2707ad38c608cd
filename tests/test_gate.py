"""The regression gate of speed: what it accepts."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from gate import ELSEWHERE, FILE, TOLERANCE, limits, lowest  # type: ignore[import-not-found]

from heptapod.utils.files import read_json


def test_a_stored_processor_has_the_narrow_limit_and_another_the_wide_one() -> None:
    stored = {"one": {"a": 1.0, "b": 2.0}, "other": {"a": 3.0}}
    assert limits(stored, "one") == {"a": TOLERANCE, "b": 2 * TOLERANCE}
    assert limits(stored, "third") == {"a": 3 * ELSEWHERE, "b": 2 * ELSEWHERE}


def test_the_lowest_of_several_runs_counts() -> None:
    assert lowest([{"a": 2.0, "b": 1.0}, {"a": 1.5, "b": 4.0}]) == {"a": 1.5, "b": 1.0}


def test_what_is_stored_is_complete() -> None:
    processors = read_json(FILE)["processors"]
    assert processors
    assert len({tuple(sorted(ratios)) for ratios in processors.values()}) == 1
