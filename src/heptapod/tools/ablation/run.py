"""Runs a study: trains and measures every run, and skips the finished ones."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from heptapod.data.cache import is_cache, load_tokens, open_cache
from heptapod.data.sources import open_source
from heptapod.distributed.device import resolve_device
from heptapod.distributed.errors import NonFiniteLossError
from heptapod.evaluation.layer_features import check_unlabeled
from heptapod.models.heads import head_without_weights
from heptapod.tools.ablation.measure import measure_run, open_real, probe_images, read_row, requested_measures
from heptapod.tools.ablation.plan import make_plan, read_plan, steps_of, with_precision_of
from heptapod.tools.ablation.study import Run, Study, all_runs, arm_recipe
from heptapod.training.folder import read_figures
from heptapod.training.run import train_model
from heptapod.utils.config import from_dict, to_dict
from heptapod.utils.files import LockedError, locked, read_json, write_json

logger = logging.getLogger(__name__)


def run_study(study: Study) -> list[dict[str, Any]]:
    """Trains and measures every unfinished run; several processes may work on one study.

    Returns:
        The rows of all finished runs.

    Raises:
        ValueError, FileNotFoundError: for missing or unsuitable caches or settings, before anything is trained.
    """
    folder = Path(study.out)
    check_same(study)
    _check_data(study)
    with _locked_for_plan(folder):
        plan = make_plan(study, folder)
        write_json(folder / "study.json", to_dict(study))
        recipe = arm_recipe(study, study.arms()[0])
        real = open_real(study, folder, open_cache(Path(recipe.data.path)).image_size[0], resolve_device(recipe.device))
    runs = [(run, steps_of(run, plan)) for run in all_runs(study)]
    for number, (run, steps) in enumerate(runs, 1):
        title = f"run {number} of {len(runs)}: {run.arm.name}, equal {run.budget.equal}, seed {run.seed}"
        recipe = with_precision_of(plan, arm_recipe(study, run.arm, run.seed, steps, str(folder / run.name)))
        try:
            logger.info(f"{title}, {steps:,} steps")
            train_model(recipe)
            with locked(folder / run.name):
                measure_run(recipe, study.measures, real)
        except LockedError:
            logger.info(f"{title}: another process is running it")
        except NonFiniteLossError as error:
            logger.warning(f"{title}: skipped, {error}")
    return collect(study)


@contextmanager
def _locked_for_plan(folder: Path) -> Iterator[None]:
    """Locks the study's folder; waits while another process makes the plan."""
    while True:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except LockedError:
                logger.info(f"{folder}: another process is timing the arms; waiting for it")
                time.sleep(5)
                continue
            yield
            return


def collect(study: Study) -> list[dict[str, Any]]:
    """One row for every run that is trained and has all requested measures."""
    folder = Path(study.out)
    if not (folder / "plan.json").is_file():
        return []
    plan = read_plan(folder)
    rows = []
    for run in all_runs(study):
        training, measured = folder / run.name / "training.json", folder / run.name / "row.json"
        if not (training.is_file() and measured.is_file()):
            continue
        recipe, values = arm_recipe(study, run.arm), read_row(measured)
        cells = open_cache(Path(recipe.data.path)).tokens.grid.num_cells
        requested = requested_measures(study.measures, head_without_weights(recipe.model).reaches_grid, cells)
        if all(values.get(name, {}).get("settings") == settings for name, settings in requested.items()):
            rows.append(_row(run, plan, read_figures(training.parent), {name: values[name] for name in requested}))
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
        "wall_seconds": training["seconds"],
        "best_val_loss": training["best_val_loss"],
        "final_val_loss": training["val_loss"],
        **measured,
        "run": run.name,
    }


def _check_data(study: Study) -> None:
    """Raises if a cache or the real images are missing, or if the classes cannot be probed."""
    for setting in ("codes", "vectors"):
        path = getattr(study, setting)
        if path is not None and not is_cache(Path(path)):
            raise FileNotFoundError(f"{setting}: {path} is not a cache; create one with heptapod tokenize")
    if study.measures.samples and study.measures.reference is not None:
        open_source(study.measures.reference, "measures.reference")
    if study.measures.probe_images:
        for arm in {arm.distribution: arm for arm in study.arms()}.values():
            recipe = arm_recipe(study, arm)
            train, held_out = load_tokens(recipe.data)
            check_unlabeled(len(train.class_names), recipe.objective.label_dropout)
            probe_images(train, held_out, study.measures.probe_images)


FREE = {"description", "out", "budgets", "heads", "token_orders", "distributions", "measures"}
"""Settings that may change when a study resumes: they add or remove runs and measures and leave finished runs valid."""


def check_same(study: Study) -> None:
    """Checks that the folder holds the same study.

    Raises:
        ValueError: if not; names the setting that differs.
    """
    folder = Path(study.out)
    if not (folder / "study.json").is_file():
        return
    # Settings that an earlier release did not know have their defaults.
    before, now = (
        to_dict(from_dict(Study, read_json(folder / "study.json"), str(folder / "study.json"))),
        to_dict(study),
    )
    for field in dataclasses.fields(study):
        if field.name not in FREE and before[field.name] != now[field.name]:
            raise ValueError(
                f"out: {folder} holds a study with {field.name} = {before[field.name]}, now {now[field.name]} is "
                "given; choose another --out"
            )
    first, stored = study.arms()[0].name, read_plan(folder)["first"]
    if first != stored:
        raise ValueError(
            f"heads: {folder} holds a study with the first arm {stored}, whose time sets that of all others, now "
            f"{first} comes first; choose another --out"
        )
