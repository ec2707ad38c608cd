"""What a study trains: arms, budgets, recipes, and the settings it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from heptapod.tools.ablation.load import load_study, study_names
from heptapod.tools.ablation.plan import steps_of
from heptapod.tools.ablation.recipes import arm_recipe
from heptapod.tools.ablation.study import Budget, HeadArm, Study, all_runs

HEADS: list[dict[str, Any]] = [
    {"kind": "next_token"},
    {"kind": "local", "window": 3, "densities": ["8/4"]},
    {"kind": "cross", "densities": ["all/3", "8/all"]},
]


def study(**changes: Any) -> Study:
    heads = [HeadArm(**head) for head in changes.pop("heads", HEADS)]
    return Study(codes="cache", heads=heads, token_orders=["raster", "random"], **changes)


def test_arms_are_all_combinations() -> None:
    names = [arm.name for arm in study().arms()]
    heads = ["next_token-all-1", "local3-8-4", "cross-all-3", "cross-8-all"]
    assert names == [f"{head}-{order}" for order in ("raster", "random") for head in heads]
    both = study(distributions=["categorical", "flow"], vectors="other")
    assert [arm.name for arm in both.arms()] == names + [f"{name}-flow" for name in names]


def test_runs_are_budget_by_budget_and_seed_by_seed() -> None:
    budgets = [Budget("time", 100, [0, 1], ["*-raster"]), Budget("steps", 50, [2], ["cross-all-*"])]
    runs = [(run.budget.equal, run.seed, run.arm.name) for run in all_runs(study(budgets=budgets))]
    raster = ["next_token-all-1-raster", "local3-8-4-raster", "cross-all-3-raster", "cross-8-all-raster"]
    assert runs == [
        *(("time", seed, name) for seed in (0, 1) for name in raster),
        ("steps", 2, "cross-all-3-raster"),
        ("steps", 2, "cross-all-3-random"),
    ]
    assert len({run.name for run in all_runs(study(budgets=budgets))}) == 10
    again = [*budgets, Budget("time", 100, [1, 2], ["cross-all-3-raster"])]
    assert len(all_runs(study(budgets=again))) == 11, "a run that two budgets name is one run"


def test_the_recipe_of_an_arm() -> None:
    changes = {"model": {"width": 32, "num_heads": 2, "depth": 3}, "train": {"learning_rate": 0.001}}
    made = study(changes=changes)
    local = arm_recipe(made, made.arms()[5], seed=7, steps=200, out="somewhere")
    assert (local.model.head.kind, local.model.head.window, local.model.head.depth) == ("local", 3, 2)
    assert (local.model.width, local.model.depth, local.train.learning_rate) == (32, 3, 0.001)
    assert (local.objective.prefixes_per_image, local.objective.targets_per_prefix) == (8, 4)
    assert (local.objective.token_order, local.data.path, local.seed) == ("random", "cache", 7)
    assert (local.train.steps, local.train.eval_every, local.train.warmup_steps) == (200, 20, 20)
    dense = arm_recipe(made, made.arms()[3])
    assert (dense.objective.prefixes_per_image, dense.objective.targets_per_prefix) == (8, "all")
    deep = study(heads=[{"kind": "cross", "densities": ["all/2"], "depth": 4, "backbone_depth": 1}])
    recipe = arm_recipe(deep, deep.arms()[0])
    assert (recipe.model.depth, recipe.model.head.depth, deep.arms()[0].name) == (1, 4, "cross-d4of1-all-2-raster")


def test_vectors_take_their_own_cache_and_distribution() -> None:
    made = study(distributions=["categorical", "diffusion"], vectors="vectors")
    first, last = (arm_recipe(made, made.arms()[i]) for i in (0, -1))
    assert (first.data.path, first.model.distribution.kind) == ("cache", "categorical")
    assert (last.data.path, last.model.distribution.kind) == ("vectors", "diffusion")


def test_kinds_with_the_same_settings_keep_the_changes_of_the_study() -> None:
    changes = {"model": {"distribution": {"mlp_width": 96, "mlp_depth": 1}}}
    made = study(distributions=["categorical", "diffusion", "flow"], vectors="vectors", changes=changes)
    found = {arm.distribution: arm_recipe(made, arm).model.distribution for arm in made.arms()}
    assert [(found[kind].mlp_width, found[kind].mlp_depth) for kind in ("diffusion", "flow")] == [(96, 1)] * 2


def test_far_settings_of_the_study_reach_every_density() -> None:
    made = study(heads=[{"kind": "cross", "densities": ["all/1", "all/3"]}], changes={"objective": {"far_weight": 0.5}})
    assert {arm_recipe(made, arm).objective.far_weight for arm in made.arms()} == {0.5}


def test_a_warm_up_longer_than_a_tenth_is_refused() -> None:
    made = study(changes={"train": {"warmup_steps": 30}})
    assert arm_recipe(made, made.arms()[0], steps=300).train.warmup_steps == 30
    with pytest.raises(ValueError, match="changes.train.warmup_steps: 30 given, but a run has 290 steps"):
        arm_recipe(made, made.arms()[0], steps=290)


def test_equal_time_and_equal_steps() -> None:
    made = study(budgets=[Budget("time", 100), Budget("steps", 100)])
    plan = {"arms": {arm.name: {"relative_time": 1 + number} for number, arm in enumerate(made.arms())}}
    steps = [steps_of(run, plan) for run in all_runs(made)]
    assert steps[:8] == [100, 50, 33, 25, 20, 17, 14, 12]
    assert steps[8:] == [100] * 8


def test_arms_have_names_and_changes_of_their_own() -> None:
    changes = {"objective": {"label_dropout": 0.3}, "model": {"depth": 2}}
    made = study(heads=[HEADS[0], {**HEADS[2], "name": "mine", "changes": changes}])
    assert [arm.name for arm in made.arms()][1] == "mine-all-3-raster"
    assert made.arms()[1].label == "mine all/3"
    recipes = [arm_recipe(made, arm) for arm in made.arms()[:2]]
    assert [recipe.objective.label_dropout for recipe in recipes] == [0.1, 0.3]
    assert (recipes[1].model.depth, recipes[1].objective.targets_per_prefix) == (2, 3)


def test_equal_epochs() -> None:
    run = all_runs(study(budgets=[Budget("epochs", epochs=3)]))[0]
    assert run.name.startswith("runs/epochs-3/")
    assert steps_of(run, {}, images=1000, batch_size=64) == 47
    with pytest.raises(ValueError, match="epochs: 3 given, which is 3 steps of 64"):
        steps_of(run, {}, images=60, batch_size=64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": [{"kind": "cross", "densities": ["3"]}]}, "densities: 3 given, must be S/L"),
        ({"heads": [{"kind": "cross", "densities": ["0/3"]}]}, "densities: 0/3 given, must be S/L"),
        ({"heads": [{"kind": "next_token", "densities": ["all/3"]}]}, "predicts one cell: S/1"),
        ({"heads": [HEADS[2], HEADS[2]]}, "cross-8-all-random is given twice"),
        ({"heads": []}, "heads: none given"),
        ({"distributions": ["flow"]}, "vectors: no cache given, but distributions has flow"),
        ({"budgets": [{"arms": ["glob*"]}]}, "budgets.arms: glob\\* fits no arm; there are next_token-all-1-raster"),
        ({"budgets": [{"steps": 3}]}, "steps: 3 given, must be at least 10"),
        ({"budgets": [{"seeds": [1, 1]}]}, "seeds: .* all different"),
        ({"measures": {"samples": 100}}, "reference: none given"),
        ({"measures": {"samples": 0, "probe_images": 5}}, "probe_images: 5 given, must be 0 .* or at least 20"),
        ({"changes": {"model": {"widht": 3}}}, "unknown setting 'model.widht'"),
        ({"changes": {"seed": 3}}, "changes.seed: given, but the study sets it"),
        ({"changes": {"objective": {"token_order": "mixed"}}}, "changes.objective.token_order: given"),
        ({"measures": {"samples": 0, "sampling_steps": []}}, "sampling_steps: \\[\\] given"),
        ({"measures": {"samples": 0, "temperature": -1}}, "temperature: -1.0 given, must be at least 0"),
        ({"recipe": "cifar11"}, "recipe: cifar11 is neither a file nor one of"),
        ({"heads": [{**HEADS[2], "changes": {"train": {"learning_rate": 0.1}}}]}, "name: none given, but the cross"),
        ({"heads": [{**HEADS[0], "name": "a/b"}]}, "name: a/b given, must consist of"),
        ({"heads": [{**HEADS[0], "name": "a", "changes": {"seed": 3}}]}, "heads.changes.seed: given for a"),
        ({"heads": [{**HEADS[0], "name": "a", "changes": {"data": {"limit": 9}}}]}, "heads.changes.data: given for a"),
        ({"heads": [{**HEADS[0], "name": "a", "changes": {"train": {"lr": 3}}}]}, "unknown setting 'train.lr'"),
        ({"heads": [{**HEADS[2], "sampling": {"3": {}}}]}, "heads.sampling: 3 given, must be one of"),
        ({"budgets": [{"equal": "epochs"}]}, "epochs: none given, with equal: epochs"),
        ({"budgets": [{"epochs": 3}]}, "epochs: 3 given, with equal: time"),
        ({"measures": {"samples": 0, "weights": "best"}}, "weights: best given"),
        ({"measures": {"samples": 0, "sampling": {"steps": 8}}}, "sampling.steps: given, but sampling_steps sets it"),
        (
            {"measures": {"samples": 20, "reference": "x", "sampling": {"token_order": "confidence"}}},
            "token_order: confidence given, but next_token-all-1-raster can be sampled as raster",
        ),
        (
            {"token_orders": ["raster"], "measures": {"samples": 0, "orders": 4}},
            "measures.orders: 4 given, .* one; must be 1",
        ),
        ({"measures": {"samples": 0, "orders": 0}}, "orders: 0 given, must be at least 1"),
        (
            {"vectors": "c", "distributions": ["diffusion"], "measures": {"samples": 0, "orders": 4}},
            "measures.orders: 4 given, but diffusion has no likelihood; must be 1",
        ),
        (
            {"vectors": "c", "distributions": ["diffusion"], "measures": {"samples": 0, "far_images": 4}},
            "measures.far_images: 4 given, but diffusion has no likelihood; must be 0",
        ),
        ({"measures": {"samples": 0, "far_images": 1}}, "far_images: 1 given, must be 0 .* or at least 2"),
        (
            {"heads": HEADS[:1], "measures": {"samples": 0, "far_images": 4}},
            "no head of the study predicts the whole grid",
        ),
        (
            {"heads": HEADS[:2], "measures": {"samples": 0, "far_images": 4}},
            "no head of the study predicts the whole grid",
        ),
        ({"changes": {"model": None}}, "changes.model: None given, must be settings by their names"),
        ({"heads": [{"kind": "cross", "settings": {"depth": 3}}]}, "settings.depth: given for cross"),
        (
            {"heads": [{**HEADS[0], "sampling": {"8": {"temperature": 0.5}}}]},
            "heads.sampling: 8 given for next_token, which is sampled at one cell per step only; must be 0",
        ),
        (
            {"changes": {"objective": {"far_weight": 0.5}}},
            "arm next_token-all-1-raster: far_weight: 0.5 given, but only",
        ),
        ({"changes": {"train": {"eval_every": 5}}}, "changes.train.eval_every: given, but the study sets it"),
        ({"haeds": []}, "did you mean 'heads'"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = tmp_path / "study.yaml"
    values = {"codes": "cache", "heads": HEADS, "token_orders": ["raster", "random"], "measures": {"samples": 0}}
    file.write_text(yaml.safe_dump({**values, **changes}))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_study(str(file))


def test_shipped_studies() -> None:
    assert {"cifar10", "digits", "imagenet64"} <= set(study_names())
    for name in study_names():
        assert all_runs(load_study(name))
    changed = load_study("cifar10", ["--measures.samples", "0", "--codes", "elsewhere"])
    assert (changed.measures.samples, changed.codes, changed.out) == (0, "elsewhere", "ablations/cifar10")
    with pytest.raises(FileNotFoundError, match="study: nothing is neither a file nor one of cifar10"):
        load_study("nothing")
