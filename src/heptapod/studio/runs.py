"""Reads run folders: curves, sample grids, settings and evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from heptapod.studio.schemas import Curve, Evaluation, Run
from heptapod.training.logging import read_metrics
from heptapod.utils.files import read_json

MAX_POINTS = 2000
STAGES = ("model", "tokenizer")
EVALUATION = "evaluation.json"


def find_run(model: Path) -> Path | None:
    """The run folder of a model: the path itself, or the one above its best or last weights."""
    for folder in (model, model.parent):
        if (folder / "metrics.jsonl").is_file() and (folder / "config.yaml").is_file():
            return folder
    return None


def read_run(folder: Path) -> list[Run]:
    """The training of a model and, where it was trained with it, of its tokenizer."""
    stages = [_read_stage(name, _stage_folder(folder, name)) for name in STAGES]
    return [run for run in stages if run is not None]


def grid_file(folder: Path, stage: str, step: int) -> Path | None:
    """The sample grid of a step; None if there is none."""
    return _grids(_stage_folder(folder, stage)).get(step) if stage in STAGES else None


def read_evaluations(folders: Iterable[Path]) -> list[Evaluation]:
    """All results of ``heptapod evaluate`` in some folders or up to two levels below, by steps."""
    files = {file.resolve(): folder for folder in folders for depth in ("", "*/", "*/*/")
             for file in folder.glob(depth + EVALUATION)}  # fmt: skip
    evaluations = (_read_evaluation(file, folder) for file, folder in sorted(files.items()))
    readable = [evaluation for evaluation in evaluations if evaluation is not None]
    return sorted(readable, key=lambda evaluation: (evaluation.steps or 0, evaluation.name))


def _stage_folder(folder: Path, stage: str) -> Path:
    return folder if stage == "model" else folder / stage


def _read_stage(name: str, folder: Path) -> Run | None:
    if not (folder / "metrics.jsonl").is_file():
        return None
    config = folder / "config.yaml"
    return Run(
        stage=name,
        curves=_curves(read_metrics(folder / "metrics.jsonl")),
        grids=sorted(_grids(folder)),
        settings=config.read_text(encoding="utf-8") if config.is_file() else "",
    )


def _curves(lines: Sequence[dict[str, Any]]) -> list[Curve]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for name, value in line.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if name != "step" and is_number:
                points.setdefault(name, []).append((line["step"], float(value)))
    curves = []
    for name, all_points in points.items():
        kept = all_points[:: math.ceil(len(all_points) / MAX_POINTS)]
        curves.append(Curve(name=name, steps=[step for step, _ in kept], values=[value for _, value in kept]))
    return curves


def _grids(folder: Path) -> dict[int, Path]:
    files = (folder / "samples").glob("step-*.png")
    return {int(file.stem[5:]): file for file in files if file.stem[5:].isdecimal()}


def _read_evaluation(file: Path, folder: Path) -> Evaluation | None:
    try:
        values = read_json(file)
        generation = values["generation"] or {}
        sampling = generation.get("sampling") or {}
        return Evaluation(
            name=str(file.parent.relative_to(folder.resolve())),
            steps=generation.get("steps"),
            token_order=sampling.get("token_order"),
            temperature=sampling.get("temperature"),
            count=values["samples"]["count"],
            evaluator=values["evaluator"]["name"],
            reference=Path(str(values["reference"]["source"].get("path", ""))).name,
            metrics=_means(values["metrics"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError):  # an older version, or another file of this name
        return None


def _means(metrics: dict[str, Any]) -> dict[str, float]:
    """Every metric as one number: its value, or its mean where it has a spread."""
    values = {name: value["mean"] if isinstance(value, dict) else value for name, value in metrics.items()}
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
