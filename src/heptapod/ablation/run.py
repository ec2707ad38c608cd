"""Works off a study: every run is trained and measured, whatever was finished before is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from heptapod.ablation.measure import measure_run, open_real, probe_images
from heptapod.ablation.plan import make_plan, steps_of
from heptapod.ablation.study import Run, Study, all_runs, arm_recipe
from heptapod.config import to_dict
from heptapod.data.cache import is_cache, load_tokens, open_cache
from heptapod.data.sources import open_source
from heptapod.evaluation.layer_features import check_unlabelled
from heptapod.files import LockedError, locked, read_json, write_json
from heptapod.progress import say
from heptapod.training.run import train_model


def run_study(study: Study) -> list[dict[str, Any]]:
    """Trains and measures every run that is not finished; several processes may work on one study at a time.

    Returns:
        The rows of all finished runs.

    Raises:
        ValueError, FileNotFoundError: for caches or settings that do not fit; nothing is trained then.
    """
    folder = Path(study.out)
    _check_same(study, folder)
    _check_data(study)
    with locked(folder):
        plan = make_plan(study, folder)
        write_json(folder / "study.json", to_dict(study))
        real = open_real(study, folder, _image_size(study))
    runs = all_runs(study)
    for number, run in enumerate(runs, 1):
        recipe = arm_recipe(study, run.arm, run.seed, steps_of(run, plan), str(folder / run.name))
        title = f"run {number} of {len(runs)}: {run.arm.name}, equal {run.budget.equal}, seed {run.seed}"
        try:
            with locked(folder / run.name):
                say(f"{title}, {recipe.train.steps:,} steps")
                train_model(recipe)
                measure_run(recipe, study.measures, real)
        except LockedError:
            say(f"{title}: another process is at it")
    return collect(study, plan)


def collect(study: Study, plan: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """One flat row for every run that is trained and measured."""
    folder = Path(study.out)
    if plan is None and not (folder / "plan.json").is_file():
        return []
    plan = plan or read_json(folder / "plan.json")
    rows = []
    for run in all_runs(study):
        path = folder / run.name
        if (path / "row.json").is_file() and (path / "training.json").is_file():
            rows.append(_row(run, plan, read_json(path / "training.json"), read_json(path / "row.json")))
    return rows


def _row(run: Run, plan: dict[str, Any], training: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    arm, facts = run.arm, plan["arms"][run.arm.name]
    prefixes, targets = arm.density.split("/")
    return {
        "arm": arm.name,
        "budget": f"{run.budget.equal}-{run.budget.steps}",
        "seed": run.seed,
        "head": arm.head.kind,
        "window": arm.head.window,
        "head_depth": arm.head.depth,
        "backbone_depth": arm.head.backbone_depth,
        "prefixes_per_image": prefixes,
        "targets_per_prefix": targets,
        "token_order": arm.token_order,
        "distribution": arm.distribution,
        "parameters": facts["parameters"],
        "steps": int(training["step"]),
        "training_seconds": training["step"] * facts["seconds_per_step"],
        "best_val_loss": training["best_val_loss"],
        **measured,
        "run": run.name,
    }


def _image_size(study: Study) -> int:
    arm = study.arms()[0]
    return open_cache(Path(str(arm_recipe(study, arm).data.path))).image_size[0]


def _check_data(study: Study) -> None:
    """Refuses what is no cache, real images that are not there, and classes that cannot be probed."""
    for setting in ("codes", "vectors"):
        path = getattr(study, setting)
        if path is not None and not is_cache(Path(path)):
            raise FileNotFoundError(f"{setting}: {path} is no cache; make one with heptapod tokenize")
    if study.measures.samples and study.measures.reference is not None:
        open_source(study.measures.reference, "measures.reference")
    if study.measures.probe_images:
        for arm in {arm.distribution: arm for arm in study.arms()}.values():
            recipe = arm_recipe(study, arm)
            check_unlabelled(1, recipe.objective.label_dropout)
            probe_images(*load_tokens(recipe.data), study.measures.probe_images)


FREE = {"description", "out", "budgets", "heads", "token_orders", "distributions", "measures"}
"""What may change when a study goes on: runs and figures are added or left out; a finished run stays what it is."""


def _check_same(study: Study, folder: Path) -> None:
    """Refuses to mix two studies in one folder."""
    path = folder / "study.json"
    if not path.is_file():
        return
    before, now = read_json(path), to_dict(study)
    for field in dataclasses.fields(study):
        if field.name not in FREE and before.get(field.name) != now[field.name]:
            raise ValueError(
                f"out: {folder} holds a study with {field.name} = {before.get(field.name)}, now {now[field.name]} is "
                "given; choose another --out"
            )
    if before["heads"][0] != now["heads"][0] or before["token_orders"][0] != now["token_orders"][0]:
        raise ValueError(f"heads: {folder} was begun with another first arm, which sets the time of all others")
