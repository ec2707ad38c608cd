"""Trainings that follow the clock (``train.minutes``)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from heptapod.data import Batch
from heptapod.training import schedule
from heptapod.training.checkpoint import checkpoints, step_of
from heptapod.training.config import TrainConfig
from heptapod.training.outcomes import StepOutcomes
from heptapod.training.recipe import load_recipe
from heptapod.training.task import LossOutput
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
    assert max(found) == pytest.approx(config.learning_rate)
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


def test_steps_expected(clock: Clock) -> None:
    by_clock = schedule.Schedule(TrainConfig(minutes=2.0), seconds=0.0)
    by_clock.agree(30.0, 30.0)
    assert by_clock.expected_steps(100) == 400
    assert schedule.Schedule(TrainConfig(steps=7), seconds=0.0).expected_steps(3) == 7


def test_schedules_of_the_objective_need_steps() -> None:
    with pytest.raises(ValueError, match=r"train\.minutes: 5 given, but objective\.far_warmup"):
        load_recipe("demo", ["--train.minutes", "5", "--objective.far_warmup", "0.1"])


def test_a_cpu_without_work_ends_at_once(tmp_path: Path) -> None:
    figures = run(tmp_path, dataclasses.replace(CONFIG, minutes=1e-4), Line())
    assert figures["step"] >= 1
    assert torch.tensor(figures["val_loss"]).isfinite()
