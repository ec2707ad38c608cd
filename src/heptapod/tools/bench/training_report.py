"""Report of the training benchmark: JSON, Markdown and a figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from heptapod.grid import GridSpec
from heptapod.tools.bench.config import TrainingBench
from heptapod.tools.bench.report import mib
from heptapod.tools.bench.results import Column, describe_hardware, hardware, markdown_table, save_figure, short_number
from heptapod.tools.bench.training import TrainingResult, settings_of
from heptapod.tools.bench.training_cases import PHASES
from heptapod.tools.planning.training_setup import TrainingSetup, describe_grid

BASELINE = "next_token"
COLORS = ("0.6", "C3", "C0", "C1", "C2", "C4")


def training_json(bench: TrainingBench, setup: TrainingSetup, result: TrainingResult) -> dict[str, Any]:
    """The content of the JSON file; call it with the same number of threads as the measurement."""
    rows = [dataclasses.asdict(row) for row in result.rows]
    baseline = next((row for row in rows if row["model"] == BASELINE), None)
    for row in rows:
        row["time_of_next_token"] = baseline and row["seconds_per_step"] / baseline["seconds_per_step"]
    return {
        "benchmark": "training",
        "hardware": hardware(result.device),
        "settings": settings_of(bench, setup),
        "assumed": setup.assumed,
        "clock": result.clock,
        "peak": dataclasses.asdict(result.peak),
        "rows": rows,
        "left_out": [dataclasses.asdict(model) for model in result.skipped],
    }


def training_markdown(report: dict[str, Any]) -> str:
    """The report of :func:`training_json` as Markdown tables."""
    settings, peak = report["settings"], report["peak"]
    clock = "CPU time of the process" if report["clock"] == "process" else "wall time"
    source = "measured peak: " if peak["is_measured"] else "datasheet peak: "
    rounds = " or ".join(sorted({str(row["rounds"]) for row in report["rows"]}))
    parts = [
        f"# Training {settings['recipe']}: time and memory",
        f"{describe_hardware(report['hardware'])}. Width {settings['width']}, {settings['depth']} + "
        f"{settings['head_depth']} blocks, batch {settings['batch_size']} in {settings['accumulation']} "
        f"micro-batch(es), {settings['precision']}, {describe_grid(GridSpec(**settings['grid']))}, {settings['data']}. "
        f"The fastest of {rounds} steps, run in turns; {clock}.",
        f"Utilization: model FLOPs per second over {short_number(peak['flops_per_second'] / 1e9)} GFLOP/s "
        f"({source}{peak['name']}, {peak['dtype']}).",
        markdown_table(ROWS, report["rows"]),
        "## Time by phase, ms per step",
        markdown_table(PHASE_COLUMNS, report["rows"]),
    ]
    if report["left_out"]:
        parts += ["## Skipped: it would take too long", markdown_table(SKIPPED, report["left_out"])]
    return "\n\n".join(parts) + "\n"


def _milliseconds(phase: str) -> Column:
    return lambda row: short_number(1000 * row["phases"][phase])


ROWS: dict[str, Column] = {
    "model": "model",
    "parameters": "parameters",
    "images/s": lambda row: short_number(row["images_per_second"]),
    "tokens/s": lambda row: short_number(row["tokens_per_second"]),
    "supervised cells/s": lambda row: short_number(row["supervised_cells_per_second"]),
    "utilization": lambda row: f"{row['utilization']:.1%}",
    "ms per step": lambda row: short_number(1000 * row["seconds_per_step"]),
    "time of next_token": lambda row: row["time_of_next_token"] and f"{row['time_of_next_token']:.2f}",
    "peak MiB": lambda row: mib(row["peak_bytes"]),
    "planned MiB": lambda row: mib(row["planned_bytes"]),
}
PHASE_COLUMNS: dict[str, Column] = {
    "model": "model",
    **{phase: _milliseconds(phase) for phase in PHASES},
    "outside of forward, backward, optimizer": lambda row: f"{row['share_outside']:.1%}",
}
SKIPPED: dict[str, Column] = {
    "model": "model",
    "s per step, at least": lambda model: short_number(model["least_seconds"]),
}


def training_picture(report: dict[str, Any], path: Path) -> Path:
    """Milliseconds per image by phase, a bar per model; needs matplotlib."""
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
    return save_figure(figure, path)
