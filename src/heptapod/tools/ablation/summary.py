"""The figures of a study over its seeds: means, and paired differences from the first arm, with standard errors."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from heptapod.tools.ablation.arms import Arm
from heptapod.tools.ablation.study import Study

Row = dict[str, Any]
Value = tuple[float, float | None] | None
"""A figure of one run, and its own standard error if it has one."""
Group = tuple[Arm, list[Row]]
"""An arm, and its runs under one budget."""


def groups_of(study: Study, rows: Sequence[Row]) -> dict[tuple[str, str], list[Group]]:
    """The finished arms of each table, by distribution and token order; the first is what others are compared with."""
    tables: dict[tuple[str, str], list[Group]] = {}
    for arm in study.arms():
        group = [row for row in rows if row["arm"] == arm.name]
        if group:
            tables.setdefault((arm.distribution, arm.token_order), []).append((arm, group))
    return tables


def figures_of(rows: Sequence[Row]) -> dict[str, Callable[[Row], Value]]:
    """The figures that runs have, by name: a function of a run each."""
    found: dict[str, Callable[[Row], Value]] = {"nll": likelihood}
    if any("nll_orders" in row for row in rows):
        found["nll_orders"] = orders_likelihood
    if any("far" in row for row in rows):
        found["far"] = far_value
    for count in sorted({count for row in rows for count in samples_of(row)}, reverse=True):
        for name in ("kernel_distance", "recognised", "copied"):
            if any(name in samples_of(row).get(count, {}) for row in rows):
                found[f"{name}_at_{count}"] = lambda row, count=count, name=name: sample_value(row, count, name)  # type: ignore[misc]
    if any("probe" in row for row in rows):
        found |= {"probe": probe_value, "knn": knn_value}
    return found


def over_seeds(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and its standard error over seeds: their standard deviation / √seeds; None of a single seed."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return statistics.fmean(values), error


def paired_difference(group: Sequence[Row], first: Sequence[Row], figure: Callable[[Row], Value]) -> list[float]:
    """Differences of a figure from the first arm's run of the same seed."""
    baseline = {row["seed"]: value[0] for row in first if (value := figure(row)) is not None}
    return [
        value[0] - baseline[row["seed"]]
        for row in group
        if row["seed"] in baseline and (value := figure(row)) is not None
    ]


def summarize(study: Study, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every budget and arm: each figure's mean over seeds and its difference from the first arm of the table.

    Returns:
        A dictionary per budget and arm. Its ``figures`` have ``mean``, ``standard_error`` (over seeds; None of one
        seed), ``seeds``, and ``difference`` with the same, paired by seed.
    """
    found = []
    for budget in dict.fromkeys(row["budget"] for row in rows):
        own = [row for row in rows if row["budget"] == budget]
        for groups in groups_of(study, own).values():
            for arm, group in groups:
                figures = {}
                for name, figure in figures_of(group).items():
                    apart = paired_difference(group, groups[0][1], figure) if arm is not groups[0][0] else []
                    values = [value[0] for row in group if (value := figure(row)) is not None]
                    if values:
                        figures[name] = _described(values)
                        if apart:
                            figures[name]["difference"] = _described(apart)
                found.append({"budget": budget, "arm": arm.name, "figures": figures})
    return found


def _described(values: Sequence[float]) -> dict[str, Any]:
    mean, error = over_seeds(values)
    return {"mean": mean, "standard_error": error, "seeds": len(values)}


def mean_text(rows: Sequence[Row], value: Any, digits: int, percent: bool = False, sign: str = "") -> str:
    """Mean over seeds ± its standard error over seeds, or the value of a single seed ± its own error."""
    values: list[tuple[float, float | None]] = [v for row in rows if (v := value(row)) is not None]
    if not values:
        return "–"
    mean, error = over_seeds([v for v, _ in values]) if len(values) > 1 else values[0]
    return figure_text(mean, error, digits, percent, sign)


def figure_text(mean: float, error: float | None, digits: int, percent: bool = False, sign: str = "") -> str:
    """4.710 ± 0.007, or 33.5 ± 0.9%."""
    scale, unit = (100, "%") if percent else (1, "")
    spread = "" if error is None else f" ± {error * scale:.{digits}f}"
    return f"{mean * scale:{sign}.{digits}f}{spread}{unit}"


def likelihood(row: Row) -> Value:
    """Nats per token, or the loss of a distribution without likelihood."""
    nll = row["nll"]
    value: float = nll["nats_per_token"] if "nats_per_token" in nll else nll["loss"]
    return value, nll["standard_error"]


def likelihood_name(rows: Sequence[Row], unit: str = "") -> str:
    """Header of :func:`likelihood`, with a unit where it is one."""
    return f"NLL{unit}" if "nats_per_token" in rows[0]["nll"] else "training loss, held out"


def orders_likelihood(row: Row) -> Value:
    """Nats per token of the mean of the probabilities over several orders."""
    nll = row.get("nll_orders")
    return None if nll is None else (nll["nats_per_token"], nll["standard_error"])


def far_value(row: Row) -> Value:
    """Nats of far cells given the prefix alone."""
    return (row["far"]["nats_per_cell"], row["far"]["standard_error"]) if "far" in row else None


def difference(row: Row) -> Value:
    """Likelihood minus that of the first arm, image by image."""
    found = row.get("difference")
    return None if found is None else (found["mean"], found["standard_error"])


def samples_of(row: Row) -> dict[int, dict[str, Any]]:
    """The measures of samples, by number of steps."""
    return {int(key.rpartition("_")[2]): value for key, value in row.items() if key.startswith("samples_at_")}


def sample_value(row: Row, steps: int, name: str) -> Value:
    """A measure of the samples at a number of steps."""
    measured = samples_of(row).get(steps, {})
    if name not in measured:
        return None
    return measured[name], measured.get("standard_error") if name == "kernel_distance" else None


def probe_value(row: Row) -> Value:
    """Accuracy of the linear probe."""
    return (row["probe"]["accuracy"], None) if "probe" in row else None


def knn_value(row: Row) -> Value:
    """Accuracy of the nearest neighbors on the layer of the linear probe."""
    return (row["probe"]["knn_accuracy"], None) if "knn_accuracy" in row.get("probe", {}) else None
