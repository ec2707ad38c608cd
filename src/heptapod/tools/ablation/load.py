"""Loads a study: a shipped one by its name, or a YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from heptapod.tools.ablation.recipes import arm_recipe
from heptapod.tools.ablation.study import Study, check_order, sampling_changes
from heptapod.utils.arguments import parse_arguments
from heptapod.utils.config import find_yaml, from_dict, merge, shipped_names
from heptapod.utils.extensions import import_extensions, read_imports
from heptapod.utils.options import Group
from heptapod.utils.yaml_text import read_yaml


def study_names() -> list[str]:
    """Names of the shipped studies."""
    return shipped_names("study")


def load_study(name: str, overrides: Sequence[str] = ()) -> Study:
    """Loads a shipped study by name or a YAML file, and applies overrides such as ``--measures.samples 0``.

    Raises:
        FileNotFoundError: if there is no such study.
        ValueError: for an unknown setting or a value out of range.
    """
    values = read_study(name)
    return build_study(name, values, parse_arguments([Group(Study, values)], f"ablate {name}", overrides)[0])


def read_study(name: str) -> dict[str, Any]:
    """The settings in the file of a study; imports what it names. Raises like :func:`load_study`."""
    path = find_yaml("study", name)
    values = read_yaml(path)
    import_extensions(read_imports(values, str(path)))
    return values


def build_study(name: str, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Study:
    """A study from the settings of its file and changes to them.

    Raises:
        ValueError: for an unknown setting, a value out of range, or an arm without a valid recipe.
    """
    from heptapod.models.heads import head_without_weights  # imports torch, which --help does without

    study = from_dict(Study, merge(values, changes), f"study {name}")
    study = dataclasses.replace(study, out=study.out or f"ablations/{find_yaml('study', name).stem}")
    reaching = []
    for arm in study.arms():
        recipe = arm_recipe(study, arm)
        reaches_grid = head_without_weights(recipe.model).reaches_grid
        reaching.append(reaches_grid)
        if idle := [] if reaches_grid else sorted(arm.head.sampling.keys() - {"0"}):
            raise ValueError(
                f"heads.sampling: {idle[0]} given for {arm.head.title}, which is sampled at one cell per step only; "
                "must be 0"
            )
        for steps in study.measures.sampling_steps if study.measures.samples else []:
            check_order(arm, sampling_changes(study.measures, arm.head, steps), reaches_grid)
    if study.measures.far_images and not any(reaching):
        raise ValueError(
            f"measures.far_images: {study.measures.far_images} given, but no head of the study predicts the whole "
            "grid; must be 0"
        )
    return study
