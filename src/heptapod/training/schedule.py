"""How far a training is and when it ends: by its steps, or by the clock (``train.minutes``)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from heptapod.training.config import TrainConfig
from heptapod.training.optim import learning_rate


class Schedule:
    """Learning rate and end of a training.

    By the clock they follow the time of rank 0, which all ranks learn with the outcome of a step, see :meth:`agree`.
    The training ends early enough for the last evaluation, preview and checkpoint.

    Args:
        config: the loop's settings.
        seconds: of the training so far, before it was resumed.
    """

    def __init__(self, config: TrainConfig, seconds: float) -> None:
        self.config = config
        self._budget = None if config.minutes is None else 60 * config.minutes
        self._started = time.monotonic() - seconds
        self._agreed = self._needed = seconds
        self._durations: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training so far, by the clock of this rank."""
        return time.monotonic() - self._started

    @property
    def needed(self) -> float:
        """The same with those of another step, evaluation, preview and checkpoint, each as long as it last took."""
        return self.seconds + sum(self._durations.values())

    def agree(self, seconds: float, needed: float) -> None:
        """Takes :attr:`seconds` and :attr:`needed` of rank 0."""
        self._agreed, self._needed = seconds, needed

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step (counted from 0)."""
        if self._budget is None:
            return learning_rate(self.config, step)
        left = max(0.0, self._budget - self._needed)
        return learning_rate(self.config, step, self._agreed / max(self._agreed + left, 1e-9))

    def is_over(self, step: int) -> bool:
        """Whether the training ends after this number of steps."""
        return step >= self.config.steps if self._budget is None else self._needed >= self._budget

    @property
    def has_time(self) -> bool:
        """Whether there is time for an evaluation and a preview before the last ones."""
        return self._budget is None or 2 * self._needed - self._agreed < self._budget

    def expected_steps(self, step: int) -> int:
        """Steps of the whole training; by the clock an estimate after this number of steps."""
        if self._budget is None:
            return self.config.steps
        return max(step, round(step * self._budget / max(self._agreed, 1e-3)))

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measures a part of the training, for :attr:`needed`."""
        started = time.monotonic()
        yield
        self._durations[part] = time.monotonic() - started
