"""The training benchmark: what it measures and what it makes of it. Nothing here depends on how fast a machine is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from heptapod.grid import GridSpec
from heptapod.models import HeptapodModel
from heptapod.models.heptapod import build_model
from heptapod.tools.bench.config import TrainingBench, TrainingVariant, parse_variant
from heptapod.tools.bench.training import Peak, SkippedModel, TrainingResult, measure_training
from heptapod.tools.bench.training_cases import (
    PHASES,
    Stopwatch,
    TrainingSteps,
    random_tokens,
    supervised_cells,
    variant_recipe,
    variant_setup,
)
from heptapod.tools.bench.training_memory import cpu_training_peaks
from heptapod.tools.bench.training_report import training_json, training_markdown, training_picture
from heptapod.tools.planning.budget import Budget
from heptapod.tools.planning.flops import training_flops
from heptapod.tools.planning.training_setup import SetupOverrides, TrainingSetup, resolve_setup
from heptapod.training.config import TrainConfig
from heptapod.training.precision import arithmetic
from heptapod.training.recipe import Recipe, load_recipe

CPU = torch.device("cpu")
ARITHMETIC = arithmetic(TrainConfig(), CPU)
SMALL = ["--model.width", "16", "--model.depth", "2", "--model.num_heads", "1", "--model.head.depth", "1"]
SMALL += ["--train.batch_size", "6", "--train.accumulation", "2", "--device", "cpu"]


def recipe(*settings: str) -> Recipe:
    return load_recipe("demo", [*SMALL, *settings])


def resolved(recipe: Recipe) -> Recipe:
    """With what the objective leaves unset filled in."""
    return dataclasses.replace(recipe, objective=recipe.objective.for_head(recipe.model.head.kind))


def training_setup(*settings: str, side: int = 4) -> TrainingSetup:
    return resolve_setup(recipe(*settings), SetupOverrides(f"{side}x{side}", codes=12, classes=3))


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    bench = TrainingBench(("own", "next_token", "global:2/all", "local:3/2"), rounds=2, threads=1, memory=False)
    return measure_training(bench, training_setup())


def test_rows_are_consistent(result: TrainingResult) -> None:
    assert [row.model for row in result.rows] == ["cross:all/1", "next_token", "global:2/all", "local:3/2"]
    assert result.peak.is_measured
    assert result.peak.dtype == ARITHMETIC
    assert result.clock == "process"
    for row in result.rows:
        variant = TrainingVariant(row.head, row.prefixes, row.targets)  # type: ignore[arg-type]
        own = variant_setup(training_setup(), variant)
        model = build_model(own.recipe.model, own.grid, own.num_classes, seed=0)
        assert row.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert row.flops_per_image == training_flops(own).total
        assert row.rounds == 2
        assert row.images_per_second == pytest.approx(6 / row.seconds_per_step)
        assert row.tokens_per_second == pytest.approx(16 * row.images_per_second)
        assert row.utilization * result.peak.flops_per_second == pytest.approx(
            row.flops_per_image * row.images_per_second
        )
        assert tuple(row.phases) == PHASES
        assert all(seconds > 0 for seconds in row.phases.values())
        assert sum(row.phases.values()) == pytest.approx(row.seconds_per_step, rel=0.05)
        assert row.peak_bytes is None
    budget = Budget(training_setup(), gpus=1, kernels="cpu")
    assert result.rows[0].planned_bytes == budget.memory(budget.configured_option).training


def test_report(result: TrainingResult, tmp_path: Path) -> None:
    bench = TrainingBench(("own", "next_token", "global:2/all", "local:3/2"), rounds=2, threads=1, memory=False)
    with_late = dataclasses.replace(result, skipped=[SkippedModel("global:4/all", 1234.0)])
    report = json.loads(json.dumps(training_json(bench, training_setup(), with_late)))
    ratios = {row["model"]: row["time_of_next_token"] for row in report["rows"]}
    baseline = result.rows[1].seconds_per_step
    assert ratios == {row.model: row.seconds_per_step / baseline for row in result.rows}
    text = training_markdown(report)
    assert text.count("| global:2/all |") == 2, "a row of speeds, and one of phases"
    assert f"measured peak: a 1024×1024 matrix product of this run, {ARITHMETIC}" in text
    assert "## Skipped" in text
    assert "1,234" in text
    pytest.importorskip("matplotlib")
    assert training_picture(report, tmp_path / "picture.png").stat().st_size > 10_000
    alone = dataclasses.replace(result, rows=result.rows[:1], peak=Peak(1e12, False, "float32", "h100"))
    text = training_markdown(json.loads(json.dumps(training_json(bench, training_setup(), alone))))
    assert "1,000 GFLOP/s (datasheet peak: h100, float32)" in text
    assert "## Skipped" not in text


def test_what_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heptapod.tools.bench.training.matmul_flops", lambda *_: 1e9)
    bench = TrainingBench(("next_token", "global:all/all"), rounds=1, threads=1, memory=False)
    what = training_setup("--train.batch_size", "256", "--train.accumulation", "1")
    setups = [variant_setup(what, parse_variant(name, what.recipe)) for name in bench.models]
    fast, slow = (256 * training_flops(one).total / 1e9 for one in setups)
    assert slow > 3 * fast
    result = measure_training(dataclasses.replace(bench, max_seconds=fast + slow), what)
    assert [row.model for row in result.rows] == ["next_token"]
    assert result.skipped == [SkippedModel("global:all/all", slow)]
    with pytest.raises(ValueError, match="train.batch_size: 256 given, of which a single step takes at least"):
        measure_training(dataclasses.replace(bench, max_seconds=1e-9), what)


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("own", TrainingVariant("cross", "all", 1)),
        ("next_token", TrainingVariant("next_token", "all", 1)),
        ("global:4/all", TrainingVariant("global", 4, "all")),
        ("cross:all/12", TrainingVariant("cross", "all", 12)),
    ],
)
def test_variants(text: str, variant: TrainingVariant) -> None:
    own = recipe()
    assert parse_variant(text, own) == variant
    changed = variant_recipe(own, variant)
    assert (changed.model.head.kind, changed.objective.prefixes_per_image, changed.objective.targets_per_prefix) == (
        variant.head, variant.prefixes, variant.targets,
    )  # fmt: skip
    assert (changed.model.width, changed.model.depth, changed.model.head.depth) == (16, 2, 1)
    assert text == variant.name or text == "own"
    if text == "own":
        assert resolved(changed) == resolved(own)


def test_a_recipe_of_another_head_and_sampling() -> None:
    own = recipe("--model.head.kind", "local", "--model.head.window", "3", "--objective.prefixes_per_image", "4")
    assert resolved(variant_recipe(own, parse_variant("own", own))) == resolved(own)
    assert variant_recipe(own, parse_variant("cross:2/2", own)).model.head.window is None
    own = recipe("--model.head.kind", "global", "--objective.prefixes_per_image", "4", "--sampling.approximate_head")
    assert variant_recipe(own, parse_variant("next_token", own)).model.head.kind == "next_token"


@pytest.mark.parametrize("text", ["global", "cross:3", "global:0/1", "next_token:all/1", "mar:1/1", "cross:-1/2"])
def test_variants_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match=f"models: {text} given, must be own, next_token"):
        TrainingBench((text,)).check(recipe())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ()}, "models: none given"),
        ({"rounds": 0}, "rounds: 0 given, must be at least 1"),
        ({"threads": 0}, "threads: 0 given, must be at least 1"),
        ({"max_seconds": 0.0}, "max_seconds: 0.0 given, must be above 0"),
    ],
)
def test_mistakes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TrainingBench(), **change).check(recipe())


def test_a_model_is_measured_once() -> None:
    names = ("own", "cross:all/1", "next_token", "next_token")
    assert [variant.name for variant in TrainingBench(names).check(recipe())] == ["cross:all/1", "next_token"]


def test_a_step_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and their average move, in micro-batches of the recipe's size."""
    what = training_setup()
    sizes: list[int] = []
    forward = HeptapodModel.forward

    def watched(model: HeptapodModel, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(tokens))
        return forward(model, tokens, *rest)

    monkeypatch.setattr(HeptapodModel, "forward", watched)
    steps = TrainingSteps(what.recipe, random_tokens(what.grid, what.num_classes, images=16), CPU)
    weights = [parameter.detach().clone() for parameter in steps.model.parameters()]
    average = {name: tensor.clone() for name, tensor in steps.average.tensors.items()}
    total, phases = steps.step(by_phase=True)
    assert sizes == [3, 3]
    assert 0 < sum(phases.values()) <= total
    assert any(not torch.equal(a, b) for a, b in zip(weights, steps.model.parameters(), strict=True))
    assert any(not torch.equal(average[name], tensor) for name, tensor in steps.average.tensors.items())
    total, phases = steps.step(by_phase=False)
    assert total > 0
    assert not any(phases.values()), "nothing waits for the device"


def test_stopwatch(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 3.0, 6.0])
    monkeypatch.setattr("heptapod.tools.bench.training_cases.clock", lambda _: next(times))
    watch = Stopwatch(CPU, by_phase=True)
    for phase in ("data", "forward", "data"):
        watch.mark(phase)
    expected = {"data": 4.0, "supervision": 0.0, "forward": 2.0, "backward": 0.0, "optimizer": 0.0, "EMA": 0.0}
    assert watch.seconds == expected


def test_tokens_stand_in_for_data() -> None:
    codes = random_tokens(GridSpec(3, 5, 70_000), 4, images=200)
    items = codes.items(torch.arange(200), [])
    assert items.shape == (200, 15)
    assert int(items.min()) >= 0 and int(items.max()) < 70_000  # noqa: PT018
    assert set(codes.labels.tolist()) == {0, 1, 2, 3}
    vectors = random_tokens(GridSpec(3, 5, channels=6), 0, images=7)
    assert vectors.items(torch.arange(7), []).shape == (7, 15, 6)
    assert vectors.class_names == []


def test_supervised_cells_are_counted() -> None:
    grid = GridSpec(4, 4, 12)
    names = ("next_token", "cross:all/3", "global:all/all")
    of = {name: variant_recipe(recipe(), parse_variant(name, recipe())) for name in names}
    assert supervised_cells(of["next_token"], grid) == 16
    assert supervised_cells(of["cross:all/3"], grid) == 3 * 14 + 2 + 1, "the last two prefixes have fewer cells left"
    assert supervised_cells(of["global:all/all"], grid) == 16 * 17 / 2
    local = variant_recipe(recipe(), parse_variant("local:all/all", recipe()))
    assert 16 < supervised_cells(local, grid) < 16 * 17 / 2


def test_the_peak_of_memory_is_near_the_plan() -> None:
    """Of a step that takes far more than a process needs anyway; the matrix library has buffers of its own."""
    large = ["--model.width", "128", "--train.batch_size", "64", "--train.accumulation", "1"]
    setups = [training_setup(*large, "--train.precision", "float32", side=side) for side in (4, 8)]
    small, whole = cpu_training_peaks(setups, 1)
    if small is None or whole is None:
        pytest.skip("this system does not tell the peak of a resident set")
    budgets = [Budget(what, gpus=1, kernels="cpu") for what in setups]
    planned = [budget.memory(budget.configured_option).training for budget in budgets]
    assert planned[1] > 2**27
    assert 0.9 * planned[1] < whole < 1.3 * planned[1]
    assert 0.8 * (planned[1] - planned[0]) < whole - small < 1.3 * (planned[1] - planned[0])
