"""Figures of a study: quality against training time and against sampling steps, and samples side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from heptapod.tools.ablation.arms import Arm
from heptapod.tools.ablation.plan import read_plan
from heptapod.tools.ablation.study import Study
from heptapod.tools.bench.results import save_figure
from heptapod.training.logging import read_metrics
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
    figure, axes = _figure(len(panels))
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
    figure, axes = _figure(len(panels))
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


def samples_picture(study: Study, rows: Sequence[Row], folder: Path) -> Path | None:
    """A row of samples per arm, one cell per step; all rows have the same classes and seeds."""
    images, names = [], []
    for row in rows:
        files = sorted((folder / row["run"]).glob("shown_*.safetensors"), key=lambda file: int(file.stem.split("_")[1]))
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


def _figure(panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 * panels, 4.4), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _finish(axis: Any) -> None:
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
