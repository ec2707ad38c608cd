"""Runs a study: trains and measures every run, and skips the finished ones."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from heptapod.data.cache import is_cache, open_cache
from heptapod.data.cached_tokens import load_tokens
from heptapod.data.sources import open_source
from heptapod.distributed.device import resolve_device
from heptapod.distributed.errors import NonFiniteLossError
from heptapod.evaluation.layer_features import check_unlabeled
from heptapod.models.heads import head_without_weights
from heptapod.tools.ablation.arms import Arm
from heptapod.tools.ablation.measure import (
    measure_run,
    measured_tokens,
    open_real,
    probe_images,
    read_row,
    requested_measures,
)
from heptapod.tools.ablation.plan import make_plan, read_plan, steps_of, with_precision_of
from heptapod.tools.ablation.recipes import arm_recipe
from heptapod.tools.ablation.study import Run, Study, all_runs
from heptapod.training.folder import read_figures
from heptapod.training.run import train_model
from heptapod.utils.config import from_dict, to_dict
from heptapod.utils.files import LockedError, locked, read_json, read_metadata, write_json
from heptapod.utils.weights import NonFiniteError

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
        check_same(study)  # another process may have begun another study
        plan = make_plan(study, folder)
        write_json(folder / "study.json", to_dict(study))
        recipe = arm_recipe(study, study.arms()[0])
        real = open_real(study, folder, open_cache(Path(recipe.data.path)).image_size[0], resolve_device(recipe.device))
    images = {arm.name: _images(study, arm) for arm in study.arms()} if _has_epochs(study) else {}
    runs = all_runs(study)
    recipes = []
    for run in runs:
        steps = steps_of(run, plan, *images.get(run.arm.name, ()))
        recipes.append(with_precision_of(plan, arm_recipe(study, run.arm, run.seed, steps, str(folder / run.name))))
    for number, (run, recipe) in enumerate(zip(runs, recipes, strict=True), 1):
        title = f"run {number} of {len(runs)}: {run.arm.name}, equal {run.budget.equal}, seed {run.seed}"
        try:
            logger.info(f"{title}, {recipe.train.steps:,} steps")
            train_model(recipe)
            with locked(folder / run.name):
                measure_run(recipe, study.measures, run.arm.head, real)
        except LockedError:
            logger.info(f"{title}: another process is running it")
        except (NonFiniteLossError, NonFiniteError) as error:
            logger.warning(f"{title}: skipped, {error}")
    return collect(study)


def _has_epochs(study: Study) -> bool:
    return any(budget.equal == "epochs" for budget in study.budgets)


def _images(study: Study, arm: Arm) -> tuple[int, int]:
    """Training images of an arm, and its batch size."""
    recipe = arm_recipe(study, arm)
    return len(load_tokens(recipe.data)[0]), recipe.train.batch_size


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
        reaches_grid = head_without_weights(recipe.model).reaches_grid
        requested = requested_measures(study.measures, run.arm.head, reaches_grid, cells, run.arm.token_order)
        if all(values.get(name, {}).get("settings") == settings for name, settings in requested.items()):
            found = {name: values[name] for name in requested}
            rows.append(_row(run, plan, read_figures(training.parent), found) | _weights(study, training.parent))
    return rows


def _weights(study: Study, folder: Path) -> dict[str, Any]:
    """The step of the measured weights, where these are not the last."""
    if study.measures.weights == "last":
        return {}
    return {"weights": "best", "weights_step": int(read_metadata(folder / "best" / "model.safetensors")["step"])}


def _row(run: Run, plan: dict[str, Any], training: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    arm, facts = run.arm, plan["arms"][run.arm.name]
    prefixes, targets = arm.density.split("/")
    return {
        "arm": arm.name,
        "budget": run.budget.name,
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
    recipes = [arm_recipe(study, arm) for arm in study.arms()]
    for recipe in {recipe.data.path: recipe for recipe in recipes}.values():
        train, held_out = measured_tokens(recipe, study.measures)
        if study.measures.probe_images:
            for other in recipes:
                check_unlabeled(len(train.class_names), other.objective.label_dropout)
            probe_images(train, held_out, study.measures.probe_images)


FREE = {"description", "out", "budgets", "heads", "token_orders", "distributions", "measures", "plot_against"}
"""Settings that may change when a study resumes: they add or remove runs and measures and leave finished runs valid."""


ARM = ("kind", "window", "depth", "backbone_depth", "settings", "changes")
"""Settings of an arm that stay the same as long as its name does."""


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
    named = {head["name"]: head for head in before["heads"] if head["name"] is not None}
    for head in now["heads"]:
        stored = named.get(head["name"], head)
        for name in ARM:
            if stored[name] != head[name]:
                raise ValueError(
                    f"heads.{name}: {folder} holds the arm {head['name']} with {stored[name]}, now {head[name]} is "
                    "given; choose another name"
                )
    weights, given = before["measures"]["weights"], now["measures"]["weights"]
    if weights != given and (folder / "runs").is_dir():
        raise ValueError(
            f"measures.weights: {folder} holds runs with {weights}, which are evaluated at other steps than with "
            f"{given}; choose another --out"
        )
    first, stored = study.arms()[0].name, read_plan(folder)["first"]
    if first != stored:
        raise ValueError(
            f"heads: {folder} holds a study with the first arm {stored}, whose time sets that of all others, now "
            f"{first} comes first; choose another --out"
        )
