"""Report of the sampling benchmark: growth with the grid, ratios to the baselines, JSON and Markdown."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from heptapod.tools.bench.config import ALL, SamplingBench
from heptapod.tools.bench.results import MIB, Column, describe_hardware, markdown_table, short_number
from heptapod.tools.bench.sampling import Row, Skipped, settings_of

BASELINES = ("next_token", "masked")


@dataclass(frozen=True)
class Exponent:
    """How a quantity grows with the number of cells N, as N to this power."""

    quantity: str
    size: str
    model: str
    batch: int
    steps: int | str
    """The same number of steps at every N, or all: one cell per step."""
    cells: list[int]
    """The values of N of the fit."""
    exponent: float
    aim: str | None = None
    """The target of this project, if it has one."""
    precision: str = "float32"


@dataclass(frozen=True)
class Ratio:
    """Two rows of one size, grid and batch, compared."""

    what: str
    size: str
    cells: int
    batch: int
    value: float
    aim: str | None = None
    """The target of this project, if it has one."""
    precision: str = "float32"


def growth_exponent(cells: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log value against log cells, by least squares."""
    return statistics.linear_regression([math.log(n) for n in cells], [math.log(v) for v in values]).slope


def exponents(rows: Iterable[Row]) -> list[Exponent]:
    """Growth of seconds per image and of peak memory with N, over two grids or more.

    A fit uses the rows of one size, model and batch with the same number of steps, or with one cell per step.
    """
    groups: dict[tuple[str, str, int, int | str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.size, row.model, row.batch, row.steps, row.precision), []).append(row)
        if row.steps == row.cells:
            groups.setdefault((row.size, row.model, row.batch, ALL, row.precision), []).append(row)
    found = []
    for quantity in ("seconds_per_image", "peak_bytes"):
        for (size, model, batch, steps, precision), group in groups.items():
            points = sorted({row.cells: getattr(row, quantity) for row in group if getattr(row, quantity)}.items())
            if len(points) < 2:
                continue
            cells, values = zip(*points, strict=True)
            aimed = quantity == "seconds_per_image" and (size, model) == ("B", "cross") and steps != ALL
            slope = growth_exponent(cells, values)
            found.append(
                Exponent(
                    quantity, size, model, batch, steps, list(cells), slope, "at most 1.2" if aimed else None, precision
                )
            )
    return found


def ratios(rows: Iterable[Row]) -> list[Ratio]:
    """Heptapod's heads relative to the baselines of the same size, grid and batch.

    Images per second over those of next-token decoding and, at equal steps, of the masked model, in the same precision.
    At one cell per step: the time over that of next-token decoding. In bfloat16 also images per second over those in
    float32, of every model.
    """
    keyed = {(row.size, row.cells, row.batch, row.precision, row.model, row.steps): row for row in rows}
    found = []
    for (size, cells, batch, precision, model, steps), row in keyed.items():
        pairs: list[tuple[str, float, str | None]] = []
        name = f"{model}, {'one cell per step' if steps == cells else f'{steps} steps'}"
        full = keyed.get((size, cells, batch, "float32", model, steps))
        if precision != "float32" and full is not None:
            pairs.append((f"images/s of {name} / in float32", full.seconds / row.seconds, _aim(row, "float32")))
        next_token = keyed.get((size, cells, batch, precision, "next_token", cells))
        masked = keyed.get((size, cells, batch, precision, "masked", steps))
        if model in BASELINES:
            next_token = masked = None
        if next_token is not None and steps == cells:
            pairs.append((f"time of {name} / next_token", row.seconds / next_token.seconds, _aim(row, "time")))
        elif next_token is not None:
            pairs.append(
                (f"images/s of {name} / next_token", next_token.seconds / row.seconds, _aim(row, "next_token"))
            )
        if masked is not None:
            pairs.append(
                (f"images/s of {name} / masked at equal steps", masked.seconds / row.seconds, _aim(row, "masked"))
            )
        found += [Ratio(what, size, cells, batch, value, aim, precision) for what, value, aim in pairs]
    return found


def _aim(row: Row, against: str) -> str | None:
    """The target of this project, for the cross head of size B at 16×16 cells."""
    if (row.size, row.model, row.cells) != ("B", "cross", 256):
        return None
    if against == "time":
        return "at most 1.3"
    aims = {
        ("float32", 16, 8): "at least 1.5",
        ("next_token", 16, 1): "at least 6",
        ("next_token", 16, 8): "at least 1.8",
        ("masked", 64, 8): "at least 20",
    }
    return aims.get((against, row.steps, row.batch))


def to_json(
    hardware: dict[str, Any], bench: SamplingBench, rows: Sequence[Row], skipped: Sequence[Skipped]
) -> dict[str, Any]:
    """The content of the JSON file."""
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
    """The report of :func:`to_json` as Markdown tables."""
    settings = report["settings"]
    parts = [
        "# Sampling: time and memory",
        f"{describe_hardware(report['hardware'])}. Random weights, {settings['vocabulary']:,} "
        f"codes, {settings['schedule']} schedule; the fastest of up to {settings['repeats']} runs. Peak: MiB above the "
        "weights. Cache: MiB of the buffers that stay allocated between steps.",
        markdown_table(ROWS, report["rows"]),
    ]
    if any(row["timed_steps"] < row["steps"] for row in report["rows"]):
        parts.append("(2 run): all steps cost the same; the first and the last were timed and scaled to all.")
    for title, columns, entries in (
        ("Growth with N, as a power of N", EXPONENTS, "exponents"),
        ("Compared with the baselines", RATIOS, "ratios"),
        ("Skipped", SKIPPED, "skipped"),
    ):
        if report[entries]:
            parts += [f"## {title}", markdown_table(columns, report[entries])]
    return "\n\n".join(parts) + "\n"


def mib(count: int | None) -> str:
    """Bytes in MiB, a question mark for None."""
    return "?" if count is None else short_number(count / MIB)


def _steps(row: dict[str, Any]) -> str:
    return f"{row['steps']:,}" + (f" ({row['timed_steps']} run)" if row["timed_steps"] < row["steps"] else "")


ROWS: dict[str, Column] = {
    "size": "size",
    "model": "model",
    "N": "cells",
    "batch": "batch",
    "steps": _steps,
    "precision": "precision",
    "images/s": lambda row: short_number(row["images_per_second"]),
    "ms per step": lambda row: short_number(row["milliseconds_per_step"]),
    "peak": lambda row: mib(row["peak_bytes"]),
    "cache": lambda row: mib(row["cache_bytes"]),
}
EXPONENTS: dict[str, Column] = {
    "size": "size",
    "model": "model",
    "batch": "batch",
    "steps": "steps",
    "precision": "precision",
    "N": lambda exponent: ", ".join(f"{n:,}" for n in exponent["cells"]),
    "of": lambda exponent: exponent["quantity"].replace("_", " ").replace("peak bytes", "peak memory"),
    "exponent": lambda exponent: f"{exponent['exponent']:.2f}",
    "aim": "aim",
}
RATIOS: dict[str, Column] = {
    "size": "size",
    "N": "cells",
    "batch": "batch",
    "precision": "precision",
    "ratio": lambda ratio: f"{ratio['value']:.2f}",
    "what": "what",
    "aim": "aim",
}
SKIPPED: dict[str, Column] = {
    "size": "size",
    "model": "model",
    "N": "cells",
    "batch": "batch",
    "steps": "steps",
    "why": "reason",
    "predicted s": lambda row: None if row["predicted_seconds"] is None else short_number(row["predicted_seconds"]),
}
