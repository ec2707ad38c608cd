"""Trainings that follow the clock (``train.minutes``)."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from torch import nn

from heptapod.data import Batch
from heptapod.tools.ablation.recipes import arm_recipe
from heptapod.tools.ablation.study import Study
from heptapod.training import schedule
from heptapod.training.checkpoint import checkpoints, step_of
from heptapod.training.config import TrainConfig
from heptapod.training.outcomes import StepOutcomes
from heptapod.training.recipe import load_recipe
from heptapod.training.task import LossOutput
from heptapod.utils.config import from_dict
from heptapod.utils.logging import Progress
from tests.training.test_trainer import CONFIG, Line, Stop, run, stop_at

MINUTES = dataclasses.replace(CONFIG, minutes=1.0, eval_every=20, preview_every=40, save_every=10)
STEP, EVALUATION, PREVIEW = 0.5, 4.0, 1.0


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class TimedLine(Line):
    """Its steps, evaluations and previews take time on a clock; ``speeds`` are factors of the time of each step."""

    def __init__(self, clock: Clock, speeds: dict[int, float] | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.speeds = speeds or {}

    def losses(self, batch: Batch, step: int) -> LossOutput:
        self.clock.now += STEP * self.speeds.get(step, 1.0)
        return super().losses(batch, step)

    def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
        self.clock.now += EVALUATION
        return super().evaluate(module, max_images)

    def preview(self, module: nn.Module) -> Image.Image:
        self.clock.now += PREVIEW
        return super().preview(module)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=found.monotonic))
    return found


def rates(folder: Path) -> list[float]:
    """The learning rate of every step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["lr"] for line in lines if "lr" in line]


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("speeds", [{}, dict.fromkeys(range(30, 60), 4.0)])
def test_the_time_is_kept_whatever_the_speed(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speeds: dict[int, float], delayed: bool
) -> None:
    monkeypatch.setattr("heptapod.training.trainer.StepOutcomes", lambda **_: StepOutcomes(delayed))
    began, config = clock.now, MINUTES
    figures = run(tmp_path, config, TimedLine(clock, speeds))
    assert clock.now - began == pytest.approx(60, abs=3), "the last evaluation included"
    assert figures["step"] != config.steps
    found = rates(tmp_path)
    assert len(found) == figures["step"]
    assert found[0] == pytest.approx(config.learning_rate / config.warmup_steps)
    assert max(found) == pytest.approx(config.learning_rate, rel=0.01)
    assert found[-1] < 0.05 * config.learning_rate, "the cosine reaches its end"
    assert (tmp_path / "last" / "model.safetensors").is_file()
    assert step_of(checkpoints(tmp_path / "checkpoints")[-1]) == figures["step"]


def test_a_resumed_run_trains_for_the_rest_of_its_time(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = clock.now
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(patch, 36)
        run(tmp_path, MINUTES, TimedLine(clock))
    clock.now += 500  # nobody trains
    run(tmp_path, MINUTES, TimedLine(clock))
    lost = 6 * STEP  # since the checkpoint of step 30
    assert clock.now - began == pytest.approx(560 + lost, abs=2)
    found = rates(tmp_path)
    assert found[30] == pytest.approx(found[29], rel=0.05), "the learning rate goes on where it was"


def test_longer_than_before(clock: Clock, tmp_path: Path) -> None:
    run(tmp_path, MINUTES, TimedLine(clock))
    steps = len(rates(tmp_path))
    began = clock.now
    figures = run(tmp_path, dataclasses.replace(MINUTES, minutes=2.0), TimedLine(clock))
    assert clock.now - began == pytest.approx(60, abs=2)
    assert figures["step"] > steps
    assert rates(tmp_path)[steps] > 10 * rates(tmp_path)[steps - 1], "the cosine of the longer time"


def test_a_run_killed_in_its_last_evaluation_ends_as_it_should(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = TimedLine(clock)
    evaluate = killed.evaluate

    def dying(module: nn.Module, max_images: int) -> dict[str, float]:
        if clock.now - began > 50:
            raise Stop
        return evaluate(module, max_images)

    began = clock.now
    monkeypatch.setattr(killed, "evaluate", dying)
    with pytest.raises(Stop):
        run(tmp_path, MINUTES, killed)
    assert not (tmp_path / "last").exists()
    figures = run(tmp_path, MINUTES, TimedLine(clock))
    assert (tmp_path / "last" / "model.safetensors").is_file()
    assert figures["seconds"] == pytest.approx(60, abs=3)


def test_a_finished_run_stays_as_it_is(clock: Clock, tmp_path: Path) -> None:
    steps = run(tmp_path, MINUTES, TimedLine(clock))["step"]
    began = clock.now
    assert run(tmp_path, MINUTES, TimedLine(clock))["step"] == steps
    assert clock.now == began


def test_an_evaluation_is_measured_early(clock: Clock, tmp_path: Path) -> None:
    """With the intervals of a long training the first evaluation would be the last."""
    config = dataclasses.replace(MINUTES, eval_every=100_000, preview_every=100_000)
    began = clock.now
    run(tmp_path, config, TimedLine(clock))
    assert clock.now - began == pytest.approx(60, abs=3)


def test_a_slow_first_step_does_not_end_the_training(clock: Clock, tmp_path: Path) -> None:
    """As with compilation: 20 s."""
    began = clock.now
    figures = run(tmp_path, MINUTES, TimedLine(clock, {0: 40.0}))
    assert clock.now - began == pytest.approx(60, abs=3)
    assert figures["step"] > 40


def test_a_warm_up_is_a_part_of_the_cosine(clock: Clock, tmp_path: Path) -> None:
    run(tmp_path, dataclasses.replace(MINUTES, warmup_steps=50), TimedLine(clock))
    found = rates(tmp_path)
    largest = max(abs(b - a) for a, b in itertools.pairwise(found))
    assert largest < 0.35 * max(found), "an evaluation takes a tenth of the time"
    assert found[-1] < 0.05 * max(found)


def test_the_first_budget_is_agreed_by_all_ranks(clock: Clock) -> None:
    """Ranks read the clock at different times."""
    durations = {"step": [3.0, 1.0, 2.0], "evaluation": [4.0]}
    one = schedule.Schedule(TrainConfig(minutes=1.0), 50.0, durations)
    clock.now += 7
    other = schedule.Schedule(TrainConfig(minutes=1.0), 50.0, durations)
    assert one.learning_rate(5) == other.learning_rate(5)
    assert not one.is_last(5)
    one.agree(55.5, 60.5)
    assert one.is_last(5)


def test_what_follows_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train\.minutes: 5 given, but objective\.far_warmup"):
        load_recipe("demo", ["--train.minutes", "5", "--objective.far_warmup", "0.1"])
    with pytest.raises(ValueError, match=r"tokenizer\.train\.minutes: 5 given, but tokenizer\.losses\.advers"):
        load_recipe("tokenizer_imagenet256_vq_f16", ["--tokenizer.train.minutes", "5"])


def test_the_progress_counts_seconds(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(Progress, "advance", lambda self, count, note, rate: done.append(count))
    run(tmp_path, MINUTES, TimedLine(clock))
    assert all(count >= 0 for count in done)


def test_runs_of_a_study_have_steps(tmp_path: Path) -> None:
    study = from_dict(
        Study, {"recipe": str(tmp_path / "r.yaml"), "codes": "cache", "measures": {"samples": 0}}, "study"
    )
    (tmp_path / "r.yaml").write_text("{train: {minutes: 3}}")
    assert arm_recipe(study, study.arms()[0], steps=200).train.minutes is None
