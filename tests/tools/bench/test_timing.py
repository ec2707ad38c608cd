"""Timing in turns, and what torch's Timer loses for comparisons on a machine whose speed drifts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.utils.benchmark import Timer

from heptapod.tools.bench.timing import clock, in_turns, num_threads, uses_process_time, wall_seconds

CPU = torch.device("cpu")


class SlowingMachine:
    """A simulated clock on which every action takes 1% longer than the one before."""

    def __init__(self) -> None:
        self.now, self.duration, self.runs = 0.0, 1.0, 0

    def work(self) -> None:
        self.now += self.duration
        self.duration *= 1.01
        self.runs += 1

    def seconds(self, action: Callable[[], None]) -> float:
        started = self.now
        action()
        return self.now - started


def test_in_turns_runs_every_action_in_every_round() -> None:
    calls: list[str] = []

    def action(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    seconds = in_turns({name: partial(action, name) for name in "abc"}, {"a": 3, "b": 1, "c": 2})
    assert "".join(calls) == "abcaca"
    assert seconds == {"a": [1, 4, 6], "b": [2], "c": [3, 5]}
    assert in_turns({}, 3) == {}


def test_the_ratio_of_equal_actions_is_nearer_one_in_turns() -> None:
    machine = SlowingMachine()
    turns = in_turns({name: partial(machine.seconds, machine.work) for name in "ab"}, 10)
    assert min(turns["b"]) / min(turns["a"]) == pytest.approx(1.01)

    machine = SlowingMachine()
    timer = Timer("work()", globals={"work": machine.work}, timer=lambda: machine.now)
    first, second = (timer.timeit(10).median for _ in range(2))
    assert second / first > 1.1


def test_torch_timer_runs_an_action_three_times_for_one_measurement() -> None:
    """Rows take up to 40 s here and run twice."""
    machine = SlowingMachine()
    Timer("work()", globals={"work": machine.work}, timer=lambda: machine.now).timeit(1)
    assert machine.runs == 3


def test_with_one_thread_the_clock_counts_this_process_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.process_time", lambda: 1.0)
    monkeypatch.setattr("time.perf_counter", lambda: 2.0)
    before = torch.get_num_threads()
    with num_threads(1):
        assert uses_process_time(CPU)
        assert clock(CPU) == 1.0
    with num_threads(2):
        assert torch.get_num_threads() == 2
        assert clock(CPU) == 2.0
    assert torch.get_num_threads() == before
    assert wall_seconds(lambda: None, CPU) == 0.0
