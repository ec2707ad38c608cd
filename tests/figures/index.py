from __future__ import annotations

from collections.abc import Iterator

from tests.figures import results

SETTINGS = [r"0\.3 million parameters", r"the CPU build instead \(200 MB\)"]


def figures() -> Iterator[str]:
    minutes = results("demo")["seconds"]["this_command"] / 60
    yield f"trains on real digits, samples and evaluates: {minutes:.0f} minutes on one core"
