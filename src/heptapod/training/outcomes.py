"""The outcome of an optimizer step, which a GPU reports without being waited for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcome:
    """What a step came to."""

    step: int
    """Optimizer steps before it."""
    names: list[str]
    """Images of its batch."""
    loss: float
    norm: float
    """Of the gradient, before clipping."""
    stops: float
    """Ranks that are requested to stop."""
    failures: float
    """Ranks that could not write a checkpoint."""
    seconds: float
    """Of the training so far, on rank 0."""
    needed: float
    """The same with those of another step, evaluation, preview and checkpoint."""


class StepOutcomes:
    """Holds the outcome of the last step until it is taken.

    Args:
        delayed: the values are on a GPU, which copies them to pinned memory while it computes.
    """

    def __init__(self, delayed: bool) -> None:
        self.delayed = delayed
        self._loss: float | None = None
        self._held: tuple[int, list[str], Tensor, torch.Event | None] | None = None

    def put(self, step: int, names: list[str], loss: Tensor, norm: Tensor, *others: Tensor) -> None:
        """Holds the outcome of a step; the last one must have been taken.

        Args:
            step: optimizer steps before it.
            names: images of its batch.
            loss: scalar, the loss of all ranks.
            norm: scalar, the norm of the gradient.
            others: scalars, the other values of an outcome in their order.
        """
        assert self._held is None
        values = torch.stack([loss, norm, *others])
        if not values.is_cuda:
            self._held = step, names, values, None
            return
        copied, done = torch.empty(values.shape, pin_memory=True), torch.Event(values.device)
        copied.copy_(values, non_blocking=True)
        done.record(torch.cuda.current_stream(values.device))
        self._held = step, names, copied, done

    def take(self) -> Outcome | None:
        """The outcome that is held, after waiting for it; None if none is."""
        if self._held is None:
            return None
        step, names, values, done = self._held
        self._held = None
        if done is not None:
            done.synchronize()
        self._loss, *others = values.tolist()
        return Outcome(step, names, self._loss, *others)

    def __str__(self) -> str:
        """The last loss that was taken, for the progress bar."""
        return "" if self._loss is None else f"loss {self._loss:.4g}"
