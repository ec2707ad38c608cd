"""Figures of a study: quality against training time and against sampling steps, and samples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch

from heptapod.configs.models import HEADS
from heptapod.tools.ablation.arms import Arm
from heptapod.tools.ablation.plan import read_plan
from heptapod.tools.ablation.recipes import arm_recipe
from heptapod.tools.ablation.study import PLOTTED, Study
from heptapod.tools.ablation.summary import figures_of, likelihood_name, samples_of, summarize
from heptapod.tools.bench.results import save_figure
from heptapod.training.logging import read_metrics
from heptapod.utils.config import dotted
from heptapod.utils.files import read_tensors
from heptapod.utils.images import image_grid, save_png

Row = dict[str, Any]


def curves_picture(study: Study, rows: Sequence[Row], folder: Path) -> Path | None:
    """Held-out loss against training time, a panel per order and distribution; thin lines are further seeds."""
    budget = _first_budget(study)
    own = [row for row in rows if row["budget"] == budget]
    panels = _panels(study, own)
    if not panels:
        return None
    plan = read_plan(folder)
    figure, (axes,) = _figure(len(panels))
    for axis, (title, arms) in zip(axes, panels, strict=True):
        for number, arm in enumerate(arms):
            seconds = plan["arms"][arm.name]["seconds_per_step"]
            for seed, row in enumerate(row for row in own if row["arm"] == arm.name):
                lines = [line for line in read_metrics(folder / row["run"] / "metrics.jsonl") if "val_loss" in line]
                x, y = [line["step"] * seconds for line in lines], [line["val_loss"] for line in lines]
                thin = bool(seed)
                axis.plot(x, y, color=f"C{number}", lw=0.7 if thin else 1.8, label=None if thin else arm.label)
        axis.set(title=title, xlabel="training time (s)", ylabel="held-out loss")
        _finish(axis)
    return save_figure(figure, folder / "training.png")


def steps_picture(study: Study, rows: Sequence[Row], folder: Path) -> Path | None:
    """Kernel distance of samples against sampling steps, a panel per order and distribution."""
    own = [row for row in rows if row["budget"] == _first_budget(study)]
    panels = _panels(study, [row for row in own if any(key.startswith("samples_at_") for key in row)])
    if not panels:
        return None
    figure, (axes,) = _figure(len(panels))
    for axis, (title, arms) in zip(axes, panels, strict=True):
        for number, arm in enumerate(arms):
            for seed, row in enumerate(row for row in own if row["arm"] == arm.name):
                points = sorted(
                    (int(key.rpartition("_")[2]), value["kernel_distance"], value["standard_error"] or 0.0)
                    for key, value in row.items()
                    if key.startswith("samples_at_")
                )
                x, y, error = zip(*points, strict=True)
                axis.errorbar(x, y, error, marker="o", ms=4, color=f"C{number}", lw=1, capsize=2,
                              label=None if seed else arm.label)  # fmt: skip
        axis.set(title=title, xlabel="sampling steps", ylabel="kernel distance", xscale="log")
        _finish(axis)
    return save_figure(figure, folder / "sampling_steps.png")


def setting_picture(study: Study, rows: Sequence[Row], folder: Path) -> Path | None:
    """Every measure against the setting ``study.plot_against``: a row per order, a line per combination of the others.

    Error bars are standard errors over seeds. A dashed line is an arm without the setting, such as a next-token head.
    """
    own = [row for row in rows if row["budget"] == _first_budget(study)]
    panels = _panels(study, own)
    if study.plot_against is None or not panels:
        return None
    measures = [name for name in figures_of(own) if name.partition("_at_")[0] in NAMES]
    figure, axes = _figure(len(measures), len(panels))
    colors: dict[Line, str] = {}
    for (title, arms), row in zip(panels, axes, strict=True):
        for name, axis in zip(measures, row, strict=True):
            for line, points in _lines(study, arms, own, name).items():
                color = colors.setdefault(line, f"C{len(colors)}")
                x, y, error = zip(*sorted(points, key=itemgetter(0)), strict=True)
                if line.has_setting:
                    bars = None if None in error else error
                    axis.errorbar(x, y, bars, marker="o", ms=4, color=color, lw=1, capsize=2, label=line.label)
                else:
                    axis.axhline(y[0], ls="--", lw=1, color=color, label=line.label)
            what, _, steps = name.partition("_at_")
            label = NAMES.get(what) or likelihood_name(own, " (nats per token)")
            axis.set(title=title, xlabel=study.plot_against, ylabel=label + (f", {steps} steps" if steps else ""))
            _finish(axis)
    return save_figure(figure, folder / "setting.png")


NAMES = {"nll": None, "far": "far cells (nats)", "kernel_distance": "kernel distance", "probe": "linear probe"}
"""Measures of :func:`setting_picture`, with their axes; that of the likelihood depends on the distribution."""


class Line(NamedTuple):
    """A line of :func:`setting_picture`."""

    has_setting: bool
    """Whether its arms have the setting."""
    label: str
    """Its entry in the legend."""


Points = list[tuple[float, float, float | None]]
"""Values of the setting, means of a measure, and their standard errors over seeds."""


def _lines(study: Study, arms: Sequence[Arm], rows: Sequence[Row], name: str) -> dict[Line, Points]:
    """The points of each line; arms without the measure have none."""
    found = {entry["arm"]: entry["figures"] for entry in summarize(study, rows)}
    lines: dict[Line, Points] = {}
    for arm in arms:
        if name in found[arm.name]:
            value, label = plotted_value(study, arm)
            points = lines.setdefault(Line(value is not None, label), [])
            points.append((value or 0.0, found[arm.name][name]["mean"], found[arm.name][name]["standard_error"]))
    return lines


def plotted_value(study: Study, arm: Arm) -> tuple[float | None, str]:
    """The value of ``study.plot_against`` for an arm, None if it has none, and the label of the arm's line."""
    assert study.plot_against is not None
    objective = arm_recipe(study, arm).objective.for_head(arm.head.kind)
    value = getattr(objective, study.plot_against.removeprefix("objective."))
    takes = any(HEADS.fact(arm.head.kind, fact) for fact in PLOTTED[study.plot_against])
    if not takes or not isinstance(value, int | float):
        return None, arm.label
    changes = [(name, other) for name, other in dotted(arm.head.changes) if name != study.plot_against]
    others = [f"{name.rpartition('.')[2]} {other}" for name, other in changes]
    return float(value), ", ".join([arm.description, *others])


def samples_picture(study: Study, rows: Sequence[Row], folder: Path) -> Path | None:
    """A row of samples per arm, one cell per step; all rows have the same classes and seeds."""
    images, names = [], []
    for row in rows:
        shown = [folder / row["run"] / f"shown_{steps}.safetensors" for steps in sorted(samples_of(row))]
        files = [file for file in shown if file.is_file()]
        if files and row["budget"] == _first_budget(study) and row["arm"] not in names:
            images.append(read_tensors(files[-1])["images"])
            names.append(row["arm"])
    if not images:
        return None
    path = folder / "samples.png"
    save_png(image_grid(torch.cat(images), len(images[0]), names), path)
    return path


def _first_budget(study: Study) -> str:
    return study.budgets[0].name


def _panels(study: Study, rows: Sequence[Row]) -> list[tuple[str, list[Arm]]]:
    """Measured arms, by distribution and order, with a title."""
    measured = {row["arm"] for row in rows}
    panels = []
    for kind in study.distributions:
        for order in study.token_orders:
            arms = [arm for arm in study.arms() if (arm.distribution, arm.token_order) == (kind, order)]
            arms = [arm for arm in arms if arm.name in measured]
            if arms:
                panels.append((f"{order} order" + (f", {kind}" if len(study.distributions) > 1 else ""), arms))
    return panels


def _figure(columns: int, rows: int = 1) -> tuple[Any, list[list[Any]]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 * columns, 4.4 * rows), layout="constrained")
    return figure, [list(line) for line in figure.subplots(rows, columns, squeeze=False)]


def _finish(axis: Any) -> None:
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
