"""What the rows of the sampling benchmark say: growth with the grid, ratios to the baselines, JSON and Markdown."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from heptapod.tools.bench.sampling import ALL, Row, SamplingBench, Skipped, settings_of

MIB = 1 << 20
BASELINES = ("next_token", "masked")


@dataclass(frozen=True)
class Exponent:
    """How a quantity grows with the number of cells N, as N to this power."""

    quantity: str
    size: str
    model: str
    batch: int
    steps: int | str
    """The same steps at every N (cells per step grow), or all: one cell per step."""
    cells: list[int]
    """The N it is fitted on."""
    exponent: float
    aim: str | None = None
    """What this project asks of itself, where it does."""


@dataclass(frozen=True)
class Ratio:
    """Two rows of one size, grid and batch, compared."""

    what: str
    size: str
    cells: int
    batch: int
    value: float
    aim: str | None = None
    """What this project asks of itself, where it does."""


def growth_exponent(cells: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log value against log cells, by least squares."""
    return statistics.linear_regression([math.log(n) for n in cells], [math.log(v) for v in values]).slope


def exponents(rows: Iterable[Row]) -> list[Exponent]:
    """Growth of seconds per image and of the peak memory with N, wherever two grids or more were measured.

    Rows belong together that have the same size, model, batch and steps, and those with one cell per step.
    """
    groups: dict[tuple[str, str, int, int | str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.size, row.model, row.batch, row.steps), []).append(row)
        if row.steps == row.cells:
            groups.setdefault((row.size, row.model, row.batch, ALL), []).append(row)
    found = []
    for quantity in ("seconds_per_image", "peak_bytes"):
        for (size, model, batch, steps), group in groups.items():
            points = sorted({row.cells: getattr(row, quantity) for row in group if getattr(row, quantity)}.items())
            if len(points) < 2:
                continue
            cells, values = zip(*points, strict=True)
            aimed = quantity == "seconds_per_image" and (size, model) == ("B", "cross") and steps != ALL
            slope = growth_exponent(cells, values)
            found.append(
                Exponent(quantity, size, model, batch, steps, list(cells), slope, "at most 1.2" if aimed else None)
            )
    return found


def ratios(rows: Iterable[Row]) -> list[Ratio]:
    """How Heptapod's heads compare with the baselines of the same size, grid and batch.

    Images per second over next-token decoding and, at equal steps, over the masked model; at one cell per step the time
    by that of next-token decoding.
    """
    found = []
    keyed = {(row.size, row.cells, row.batch, row.model, row.steps): row for row in rows}
    for (size, cells, batch, model, steps), row in keyed.items():
        if model in BASELINES:
            continue
        next_token = keyed.get((size, cells, batch, "next_token", cells))
        masked = keyed.get((size, cells, batch, "masked", steps))
        one_each = steps == cells
        how = f"{model}, {'one cell per step' if one_each else f'{steps} steps'}"
        if next_token is not None and one_each:
            what, value = f"time of {how} / next_token", row.seconds / next_token.seconds
            found.append(Ratio(what, size, cells, batch, value, _aim(row, "time")))
        elif next_token is not None:
            what, value = f"images/s of {how} / next_token", next_token.seconds / row.seconds
            found.append(Ratio(what, size, cells, batch, value, _aim(row, "next_token")))
        if masked is not None:
            what, value = f"images/s of {how} / masked at equal steps", masked.seconds / row.seconds
            found.append(Ratio(what, size, cells, batch, value, _aim(row, "masked")))
    return found


def _aim(row: Row, against: str) -> str | None:
    """What this project asks of the cross head of size B at 16×16 cells."""
    if (row.size, row.model, row.cells) != ("B", "cross", 256):
        return None
    if against == "time":
        return "at most 1.3"
    aims = {
        ("next_token", 16, 1): "at least 6",
        ("next_token", 16, 8): "at least 1.8",
        ("masked", 64, 8): "at least 20",
    }
    return aims.get((against, row.steps, row.batch))


def to_json(
    hardware: dict[str, Any], bench: SamplingBench, rows: Sequence[Row], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """Everything, as the JSON file holds it."""
    return {
        "benchmark": "sampling",
        "hardware": hardware,
        "settings": settings_of(bench),
        "rows": [dataclasses.asdict(row) for row in rows],
        "skipped": [
            {
                **{name: value for name, value in dataclasses.asdict(s.case).items() if name != "side"},
                "cells": s.case.cells,
                "reason": s.reason,
                "predicted_seconds": s.predicted_seconds,
            }
            for s in skipped
        ],
        "exponents": [dataclasses.asdict(exponent) for exponent in exponents(rows)],
        "ratios": [dataclasses.asdict(ratio) for ratio in ratios(rows)],
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report of :func:`to_json` as tables."""
    hardware, settings = report["hardware"], report["settings"]
    parts = [
        "# Sampling: time and memory",
        f"{hardware['processor']}, {hardware['cores']} cores, {hardware['threads']} thread(s), device "
        f"{hardware['device']}, torch {hardware['torch']}. Random weights, {settings['dtype']}, "
        f"{settings['vocabulary']:,} codes, {settings['schedule']} schedule; the fastest of up to "
        f"{settings['repeats']} runs. Peak: above the weights, in MiB. Cache: the buffers kept between steps, in MiB.",
        markdown_table(
            ["size", "model", "N", "batch", "steps", "images/s", "ms per step", "peak", "cache"],
            [_row_cells(row) for row in report["rows"]],
        ),
    ]
    if any(row["timed_steps"] < row["steps"] for row in report["rows"]):
        parts.append("(2 run): all steps cost the same, so the first and the last were timed and scaled to all.")
    if report["exponents"]:
        header = ["size", "model", "batch", "steps", "N", "of", "exponent", "aim"]
        parts += [
            "## Growth with N, as a power of N",
            markdown_table(header, [_exponent(e) for e in report["exponents"]]),
        ]
    if report["ratios"]:
        header = ["size", "N", "batch", "ratio", "what", "aim"]
        parts += [
            "## Compared with the baselines",
            markdown_table(header, [_ratio(ratio) for ratio in report["ratios"]]),
        ]
    if report["skipped"]:
        header = ["size", "model", "N", "batch", "steps", "why", "predicted s"]
        parts += ["## Left out", markdown_table(header, [_skipped(skipped) for skipped in report["skipped"]])]
    return "\n\n".join(parts) + "\n"


def _row_cells(row: dict[str, Any]) -> list[str]:
    steps = f"{row['steps']:,}" + (f" ({row['timed_steps']} run)" if row["timed_steps"] < row["steps"] else "")
    peak = "?" if row["peak_bytes"] is None else short_number(row["peak_bytes"] / MIB)
    speed = [short_number(row["images_per_second"]), short_number(row["milliseconds_per_step"])]
    cache = short_number(row["cache_bytes"] / MIB)
    return [row["size"], row["model"], f"{row['cells']:,}", str(row["batch"]), steps, *speed, peak, cache]


def _exponent(exponent: dict[str, Any]) -> list[str]:
    quantity = {"seconds_per_image": "seconds per image", "peak_bytes": "peak memory"}[exponent["quantity"]]
    names = [exponent["size"], exponent["model"], str(exponent["batch"]), str(exponent["steps"])]
    grids = ", ".join(f"{n:,}" for n in exponent["cells"])
    return [*names, grids, quantity, f"{exponent['exponent']:.2f}", exponent["aim"] or ""]


def _ratio(ratio: dict[str, Any]) -> list[str]:
    grid = [ratio["size"], f"{ratio['cells']:,}", str(ratio["batch"])]
    return [*grid, f"{ratio['value']:.2f}", ratio["what"], ratio["aim"] or ""]


def _skipped(skipped: dict[str, Any]) -> list[str]:
    seconds = skipped["predicted_seconds"]
    numbers = [f"{skipped[name]:,}" for name in ("cells", "batch", "steps")]
    return [
        skipped["size"],
        skipped["model"],
        *numbers,
        skipped["reason"],
        "" if seconds is None else short_number(seconds),
    ]


def short_number(value: float) -> str:
    """Three digits, without powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown_table(header: list[str], rows: Sequence[list[str]]) -> str:
    """A Markdown table that also reads well as text."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
