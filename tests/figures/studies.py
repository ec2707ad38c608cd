"""Figures of the studies, from the rows of their runs."""

from __future__ import annotations

import statistics
from typing import Any

from tests.figures import results

Rows = list[dict[str, Any]]


def arm(study: str, budget: str, head: str, order: str = "raster") -> Rows:
    """The runs of one arm, one per seed; ``head`` names the head and its density: cross-all-3."""
    rows: Rows = results(f"docs/studies/{study}/results.json")["rows"]
    found = [one for one in rows if (one["budget"], one["arm"]) == (budget, f"{head}-{order}")]
    assert found, f"{study}, {budget}, {head}, {order}"
    return found


def nats(rows: Rows) -> float:
    """Held-out NLL per token, the mean over seeds."""
    return statistics.fmean(one["nll"]["nats_per_token"] for one in rows)


def seconds(rows: Rows) -> float:
    """Training time."""
    return float(rows[0]["training_seconds"])


def with_error(
    values: list[float], errors: list[float | None], digits: int, percent: bool = False, sign: str = ""
) -> str:
    """Mean over seeds ± their standard deviation, or one value ± its error."""
    error = statistics.stdev(values) if len(values) > 1 else errors[0]
    scale, unit = (100, "%") if percent else (1, "")
    shown = "" if error is None else f" ± {error * scale:.{digits}f}"
    return f"{statistics.fmean(values) * scale:{sign}.{digits}f}{shown}{unit}"


def likelihood(rows: Rows) -> str:
    """Held-out NLL with its error."""
    return with_error([one["nll"]["nats_per_token"] for one in rows], [one["nll"]["standard_error"] for one in rows], 3)


def distance(rows: Rows, steps: int) -> str:
    """Kernel distance with its error; "cannot" where the head cannot sample in that number of steps."""
    measured = [one[f"samples_at_{steps}"] for one in rows if f"samples_at_{steps}" in one]
    if not measured:
        return "cannot"
    return with_error([one["kernel_distance"] for one in measured], [one["standard_error"] for one in measured], 3)


def probe(rows: Rows) -> str:
    """Accuracy of the linear probe."""
    return with_error([one["probe"]["accuracy"] for one in rows], [None], 1, percent=True)


def recognized(rows: Rows, steps: int) -> str:
    """Share of samples recognized as their label."""
    return with_error([one[f"samples_at_{steps}"]["recognised"] for one in rows], [None], 0, percent=True)


def difference(rows: Rows) -> str:
    """Held-out NLL minus that of the next-token head on the same images, with its error."""
    found = [one["difference"] for one in rows]
    return with_error([one["mean"] for one in found], [one["standard_error"] for one in found], 3, sign="+")


def gap(study: str, budget: str, order: str = "raster") -> float:
    """The difference of the cross head, all prefixes and 3 targets."""
    return statistics.fmean(one["difference"]["mean"] for one in arm(study, budget, "cross-all-3", order))


def training_minutes() -> str:
    """The shortest and the longest training of the studies of CIFAR-10 and photos, in words."""
    shortest = seconds(arm("cifar10", "time-400", "next_token-all-1"))
    longest = seconds(arm("imagenet64", "time-1000", "next_token-all-1"))
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return f"{words[round(shortest / 60)]} to {words[round(longest / 60)]} minutes"
