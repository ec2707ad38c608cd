"""Timing of a benchmark: a clock that waits for the device, and actions that take turns.

Speed of a shared machine drifts, and a benchmark reports ratios. Actions that are compared therefore run in turns, and
the fastest run of each counts. :class:`torch.utils.benchmark.Timer` finishes one statement before it starts the next:
of two equal actions on a busy machine its ratios spread five times as wide (standard deviation 0.022 instead of 0.004
over 20 trials of equal length). It also runs an action at least three times for one measurement, of actions that take
up to 40 s here. It is used where a single figure of a short action counts (:func:`median_seconds`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch.utils.benchmark import Timer

Key = TypeVar("Key")


def uses_process_time(device: torch.device) -> bool:
    """Whether :func:`clock` returns the CPU time of this process: on a CPU with one thread."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def clock(device: torch.device) -> float:
    """Seconds, after the device has finished its queued work.

    With one CPU thread it is the CPU time of this process, which does not count other work on the machine; otherwise
    wall time.
    """
    synchronize(device)
    return time.process_time() if uses_process_time(device) else time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Waits for the queued work of an accelerator."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def wall_seconds(action: Callable[[], object], device: torch.device) -> float:
    """Wall time of one run of an action, in seconds, with the device's work."""
    synchronize(device)
    started = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - started


def median_seconds(action: Callable[[], object], min_run_time: float = 0.05) -> float:
    """Median time of a short action in seconds, over ``min_run_time`` seconds, after a warm-up."""
    timer = Timer("action()", globals={"action": action}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=min_run_time).median


def in_turns(actions: Mapping[Key, Callable[[], float]], rounds: int | Mapping[Key, int]) -> dict[Key, list[float]]:
    """Runs actions in turns and collects what they return.

    Args:
        actions: functions that run something and return its seconds.
        rounds: runs of each action, of all or by key.

    Returns:
        The seconds of every run of each action.
    """
    counts = dict.fromkeys(actions, rounds) if isinstance(rounds, int) else rounds
    seconds: dict[Key, list[float]] = {key: [] for key in actions}
    for turn in range(max(counts.values(), default=0)):
        for key, action in actions.items():
            if turn < counts[key]:
                seconds[key].append(action())
    return seconds


@contextmanager
def num_threads(threads: int | None) -> Iterator[None]:
    """Runs the block with this number of CPU threads (None changes nothing) and restores the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
