"""Figures of the studies, from the rows of their runs."""

from __future__ import annotations

import statistics
from typing import Any

from heptapod.tools.ablation.report import TITLES
from heptapod.tools.ablation.summary import figure_text, figures_of, over_seeds, paired_difference
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
    """Mean over seeds ± its standard error, or one value ± its error."""
    error = over_seeds(values)[1] if len(values) > 1 else errors[0]
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


CIFAR10 = {
    "random": ("next_token-all-1", "cross-all-1"),
    "raster": ("next_token_fast-all-1", "cross_fast-all-1"),
}
"""The baseline and the cross head of the study of CIFAR-10 by token order, each at its best learning rate."""


def figure(budget: str, head: str, order: str, name: str, baseline: str | None = None, study: str = "cifar10") -> str:
    """A figure of an arm of a study over its seeds ± its standard error.

    With a baseline, its difference from that arm, paired by seed.
    """
    rows = arm(study, budget, head, order)
    value = figures_of(rows)[name]
    if baseline is None:
        values = [found[0] for row in rows if (found := value(row)) is not None]
    else:
        values = paired_difference(rows, arm(study, budget, baseline, order), value)
    assert len(values) == len(rows) > 1, f"{study}, {budget}, {head}, {order}: {name}"
    _, digits, percent = TITLES[name.partition("_at_")[0]]
    return figure_text(*over_seeds(values), digits, percent, "+" if baseline else "")


def cifar10_seconds(budget: str) -> float:
    """Training time of a budget of the study of CIFAR-10."""
    return seconds(arm("cifar10", budget, CIFAR10["random"][0], "random"))


def training_minutes() -> str:
    """The shortest and the longest training of the studies of CIFAR-10 and photos, in words."""
    rows = results("docs/studies/cifar10/results.json")["rows"]
    times = [row["training_seconds"] for row in rows] + [seconds(arm("imagenet64", "time-1000", "next_token-all-1"))]
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
    return f"{words[round(min(times) / 60)]} to {words[round(max(times) / 60)]} minutes"
