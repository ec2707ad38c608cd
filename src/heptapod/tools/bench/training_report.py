"""What the rows of the training benchmark say: JSON, Markdown and a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from heptapod.tools.bench.hardware import hardware
from heptapod.tools.bench.report import MIB, markdown_table, short_number
from heptapod.tools.bench.training import TrainingBench, TrainingResult, settings_of
from heptapod.tools.bench.training_cases import PHASES
from heptapod.tools.planning.training_setup import TrainingSetup
from heptapod.utils.files import write_atomically

BASELINE = "next_token"
COLORS = ("0.6", "C0", "C1", "C2", "C4")


def training_json(bench: TrainingBench, training_setup: TrainingSetup, result: TrainingResult) -> dict[str, Any]:
    """Everything, as the JSON file holds it; called with the threads that were measured with."""
    rows = [dataclasses.asdict(row) for row in result.rows]
    baseline = next((row for row in rows if row["model"] == BASELINE), None)
    for row in rows:
        row["time_of_next_token"] = baseline and row["seconds_per_step"] / baseline["seconds_per_step"]
    return {
        "benchmark": "training",
        "hardware": hardware(result.device),
        "settings": settings_of(bench, training_setup),
        "assumed": training_setup.assumed,
        "clock": result.clock,
        "peak": dataclasses.asdict(result.peak),
        "rows": rows,
        "left_out": [dataclasses.asdict(one) for one in result.left_out],
    }


def training_markdown(report: dict[str, Any]) -> str:
    """The report of :func:`training_json` as tables."""
    machine, settings, peak = report["hardware"], report["settings"], report["peak"]
    clock = "time of the process" if report["clock"] == "process" else "wall time"
    against = "measured peak: " if peak["is_measured"] else "peak of the datasheet: "
    parts = [
        f"# Training {settings['recipe']}: time and memory",
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread(s), device "
        f"{machine['device']}, torch {machine['torch']}. Width {settings['width']}, {settings['depth']} + "
        f"{settings['head_depth']} blocks, batch {settings['batch_size']} in {settings['accumulation']} part(s), "
        f"{settings['precision']}, {_grid(settings['grid'])}, {settings['data']}. The fastest of {_rounds(report)} "
        f"steps, taken in turn; {clock}.",
        f"Utilisation: model FLOPs per second, against {short_number(peak['flops_per_second'] / 1e9)} GFLOP/s "
        f"({against}{peak['name']}, {peak['dtype']}).",
        markdown_table(
            ["model", "parameters", "images/s", "tokens/s", "supervised cells/s", "utilization", "ms per step",
             "time of next_token", "peak MiB", "planned MiB"],
            [_row(row) for row in report["rows"]],
        ),
        "## Where the time goes, ms per step",
        markdown_table(["model", *PHASES], [_phases(row) for row in report["rows"]]),
    ]  # fmt: skip
    if report["left_out"]:
        table = [[one["model"], short_number(one["least_seconds"])] for one in report["left_out"]]
        parts += ["## Left out: it would take too long", markdown_table(["model", "s per step, at least"], table)]
    return "\n\n".join(parts) + "\n"


def _grid(grid: dict[str, int]) -> str:
    tokens = f"{grid['vocabulary_size']:,} codes" if grid["vocabulary_size"] else f"vectors of {grid['channels']}"
    return f"{grid['height']}×{grid['width']} cells of {tokens}"


def _rounds(report: dict[str, Any]) -> str:
    return " or ".join(sorted({str(row["rounds"]) for row in report["rows"]}))


def _row(row: dict[str, Any]) -> list[str]:
    speed = [short_number(row[f"{name}_per_second"]) for name in ("images", "tokens", "supervised_cells")]
    ratio = "" if row["time_of_next_token"] is None else f"{row['time_of_next_token']:.2f}"
    peak = "?" if row["peak_bytes"] is None else short_number(row["peak_bytes"] / MIB)
    milliseconds = short_number(1000 * row["seconds_per_step"])
    utilization = f"{row['utilization']:.1%}"
    planned = short_number(row["planned_bytes"] / MIB)
    return [row["model"], f"{row['parameters']:,}", *speed, utilization, milliseconds, ratio, peak, planned]


def _phases(row: dict[str, Any]) -> list[str]:
    return [row["model"], *(short_number(1000 * row["phases"][phase]) for phase in PHASES)]


def training_picture(report: dict[str, Any], path: Path) -> Path:
    """Milliseconds per image of every model, by phase: a bar each; needs matplotlib."""
    from matplotlib.figure import Figure

    rows, batch = report["rows"], report["settings"]["batch_size"]
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(rows)), layout="constrained")
    axis = figure.subplots()
    starts = [0.0] * len(rows)
    names = [row["model"] for row in rows]
    for phase, color in zip(PHASES, COLORS, strict=True):
        widths = [1000 * row["phases"][phase] / batch for row in rows]
        axis.barh(names, widths, left=starts, label=phase, color=color)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for number, (row, end) in enumerate(zip(rows, starts, strict=True)):
        text = f" {short_number(row['images_per_second'])} images/s, {row['utilization']:.0%}"
        axis.text(end, number, text, va="center", fontsize=8)
    axis.set(xlabel="ms per image", title=f"Training {report['settings']['recipe']}", xlim=(0, 1.35 * max(starts)))
    axis.invert_yaxis()
    figure.legend(fontsize=8, loc="outside lower center", ncols=len(PHASES))
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))
    return path
