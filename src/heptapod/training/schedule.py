"""How far a training is and when it ends: by its steps, or by the clock (``train.minutes``)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from heptapod.training.config import TrainConfig
from heptapod.training.optim import learning_rate

FIRST_EVALUATION = 0.05
"""Share of the time at which the first evaluation and preview run at the latest, so that their time is known."""
RECENT = 3
"""Measurements of a part that are kept; the shortest counts, so that a stall or a compilation does not."""


class Schedule:
    """Learning rate and end of a training.

    By the clock they follow the time of rank 0, which all ranks learn with the outcome of a step, see :meth:`agree`.
    The training ends early enough for the last evaluation, preview and checkpoint.

    Args:
        config: the loop's settings.
        seconds: of the training so far, before it was resumed.
        durations: of its parts so far, see :attr:`durations`.
        finished: minutes of a training that has come to its end.
    """

    def __init__(
        self,
        config: TrainConfig,
        seconds: float = 0.0,
        durations: Mapping[str, Sequence[float]] | None = None,
        finished: float | None = None,
    ) -> None:
        self.config = config
        self.durations = {part: list(values) for part, values in (durations or {}).items()}
        """Seconds of the last steps, evaluations, previews and checkpoints."""
        self.finished = finished
        self.budget = None if config.minutes is None else 60 * config.minutes
        """Seconds of the whole training; None if its steps count."""
        self._started = time.monotonic() - seconds
        self._agreed, self._needed = seconds, seconds + self._parts()  # equal on all ranks

    @property
    def seconds(self) -> float:
        """Seconds of training so far, by the clock of this rank."""
        return time.monotonic() - self._started

    @property
    def needed(self) -> float:
        """The same with those of another step, evaluation, preview and checkpoint."""
        return self.seconds + self._parts()

    def _parts(self) -> float:
        return sum(min(values) for values in self.durations.values())

    def agree(self, seconds: float, needed: float) -> None:
        """Takes :attr:`seconds` and :attr:`needed` of rank 0."""
        self._agreed, self._needed = seconds, needed

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step (counted from 0)."""
        if self.budget is None:
            return learning_rate(self.config, step)
        left = max(0.0, self.budget - self._needed)
        return learning_rate(self.config, step, self._agreed / max(self._agreed + left, 1e-9))

    def is_over(self, step: int) -> bool:
        """Whether nothing is left to do after this number of steps, when a training begins or is resumed."""
        if self.config.minutes is None:
            return step >= self.config.steps
        return self.finished is not None and self.finished >= self.config.minutes

    def is_last(self, step: int) -> bool:
        """Whether the training ends with this step (counted from 1)."""
        return step >= self.config.steps if self.budget is None else self._needed >= self.budget

    @property
    def has_time(self) -> bool:
        """Whether there is time for an evaluation and a preview before the last ones."""
        return self.budget is None or 2 * self._needed - self._agreed < self.budget

    @property
    def must_evaluate(self) -> bool:
        """Whether the time of an evaluation and a preview must be measured now."""
        is_known = "evaluation" in self.durations
        return self.budget is not None and not is_known and self._agreed >= FIRST_EVALUATION * self.budget

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measures a part of the training, for :attr:`needed`."""
        started = time.monotonic()
        yield
        self.durations[part] = [*self.durations.get(part, []), time.monotonic() - started][-RECENT:]
