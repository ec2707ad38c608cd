"""The recipe of each run of a study."""

from __future__ import annotations

from typing import Any, Literal

from heptapod.configs.distributions import DISTRIBUTIONS
from heptapod.configs.models import HEADS
from heptapod.configs.objective import ObjectiveConfig
from heptapod.tools.ablation.arms import Arm
from heptapod.tools.ablation.study import Study
from heptapod.training.recipe import Recipe, load_recipe
from heptapod.utils.config import from_dict, merge, to_dict
from heptapod.utils.messages import shown

VARIED = (
    "seed", "out", "data.path", "model.head.kind", "model.head.window", "model.distribution.kind",
    "objective.token_order", "objective.prefixes_per_image", "objective.targets_per_prefix", "train.steps",
    "train.minutes", "train.eval_every", "train.save_every", "train.preview_every", "train.keep_last",
    "sampling.token_order", "sampling.steps", "imports",
)  # fmt: skip
"""Settings of a recipe that a study sets itself."""


def _contains(values: Any, path: list[str]) -> bool:
    first, *rest = path
    return isinstance(values, dict) and first in values and (not rest or _contains(values[first], rest))


def _count(text: str) -> int | Literal["all"]:
    return "all" if text == "all" else int(text)


def arm_recipe(study: Study, arm: Arm, seed: int = 0, steps: int | None = None, out: str = "") -> Recipe:
    """The recipe of an arm.

    Args:
        study: the study.
        arm: one of its arms.
        seed: seed of the run.
        steps: optimizer steps; None keeps those of the recipe.
        out: folder of the run.

    Raises:
        ValueError: for an unknown setting in the changes, one that the study sets itself, or one without effect.
    """
    base = load_recipe(study.recipe)
    own = to_dict(base)
    _check_changes(study, arm, own)
    values = merge(own, study.changes)
    prefixes, targets = (_count(part) for part in arm.density.split("/"))
    head: dict[str, Any] = {"kind": arm.head.kind, "window": arm.head.window, **arm.head.settings}
    head["depth"] = arm.head.depth or values["model"]["head"]["depth"]
    values["model"] |= {"head": head, "depth": arm.head.backbone_depth or values["model"]["depth"]}
    values["model"]["distribution"] = _distribution(study, arm, own["model"]["distribution"])
    objective = base.objective.with_density(prefixes, targets, arm.head.kind, base.model.head.kind)
    values["objective"] = {**to_dict(objective), "token_order": arm.token_order}
    values = merge(merge(values, {"objective": study.changes.get("objective", {})}), arm.head.changes)
    _check_objective(arm, values["objective"])
    values["sampling"] |= {"token_order": None, "steps": None}
    if HEADS.fact(arm.head.kind, "flex_attention") is None:
        values["train"]["flex_attention"] = False
    values["data"]["path"] = study.codes if DISTRIBUTIONS.fact(arm.distribution, "is_discrete") else study.vectors
    values["imports"] = list(dict.fromkeys([*base.imports, *study.imports]))
    values |= {"seed": seed, "out": out, "description": f"{arm.label}, {arm.token_order} order"}
    if steps is not None:
        evaluations = 40 if study.measures.weights == "best" else 10
        _check_warmup(study.changes, steps, "changes")
        _check_warmup(arm.head.changes, steps, "heads.changes")
        values["train"] |= _intervals(steps, values["train"], evaluations)
    return from_dict(Recipe, values, f"study, arm {arm.name}")


def _check_changes(study: Study, arm: Arm, own: dict[str, Any]) -> None:
    """Raises for changes to what the study sets itself, and for values in place of groups of the recipe's ``own``."""
    _check_groups(study.changes, own, "changes")
    _check_groups(arm.head.changes, own, "heads.changes")
    for key in VARIED:
        if _contains(study.changes, key.split(".")):
            raise ValueError(f"changes.{key}: given, but the study sets it")
        if _contains(arm.head.changes, key.split(".")):
            raise ValueError(f"heads.changes.{key}: given for {arm.head.title}, but the study sets it")
    for key, value in (("model.depth", arm.head.backbone_depth), ("model.head.depth", arm.head.depth)):
        if value and _contains(arm.head.changes, key.split(".")):
            raise ValueError(f"heads.changes.{key}: given for {arm.head.title} together with its depth; leave one out")


def _check_groups(changes: dict[str, Any], settings: dict[str, Any], prefix: str) -> None:
    """Raises if a value stands in place of a group of settings."""
    for name, value in changes.items():
        if isinstance(settings.get(name), dict):
            if not isinstance(value, dict):
                raise ValueError(f"{prefix}.{name}: {shown(value)} given, must be settings by their names")
            _check_groups(value, settings[name], f"{prefix}.{name}")


def _distribution(study: Study, arm: Arm, own: dict[str, Any]) -> dict[str, Any]:
    """Settings of an arm's distribution: the recipe's ``own`` where its kind takes the same, and the study's changes.

    In a study of several kinds, changes to their MLP are for those that have one.
    """
    has_mlp = {kind: DISTRIBUTIONS.fact(kind, "has_mlp") for kind in study.distributions}
    kept = own if DISTRIBUTIONS.same_settings(arm.distribution, own["kind"]) else {}
    takes = has_mlp[arm.distribution] or not any(has_mlp.values())
    changes = study.changes.get("model", {}).get("distribution", {}) if takes else {}
    return {**kept, **changes, "kind": arm.distribution}


def _check_objective(arm: Arm, values: dict[str, Any]) -> None:
    """Raises if the head of an arm does not take its settings."""
    try:
        from_dict(ObjectiveConfig, values, "").for_head(arm.head.kind)
    except ValueError as error:
        raise ValueError(f"objective, arm {arm.name}: {error}") from None


def _check_warmup(changes: dict[str, Any], steps: int, prefix: str) -> None:
    given = changes.get("train", {}).get("warmup_steps")
    if given is not None and given > -(-steps // 10):
        raise ValueError(
            f"{prefix}.train.warmup_steps: {given} given, but a run has {steps:,} steps; a study warms up for at most "
            "a tenth of them"
        )


def _intervals(steps: int, train: dict[str, Any], evaluations: int) -> dict[str, Any]:
    """The evaluations, five checkpoints and one sample grid per run; warm-up for at most a tenth of it."""
    tenth = -(-steps // 10)
    return {
        "steps": steps,
        "minutes": None,
        "warmup_steps": min(train["warmup_steps"], tenth),
        "eval_every": -(-steps // evaluations),
        "save_every": 2 * tenth,
        "preview_every": steps,
        "keep_last": 1,
    }
