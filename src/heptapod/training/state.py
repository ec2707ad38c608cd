"""The state of training, and its way into checkpoints and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from heptapod.training.checkpoint import Tensors, load_checkpoint, tensor_shapes
from heptapod.training.optim import EMA, empty_optimizer_tensors, optimizer_tensors

OPTIMIZER = "optimizer"


@dataclass
class TrainState:
    """Weights, their average, the optimizer and the step; each rank may hold a share of the tensors.

    Randomness has no state: it is keyed by (seed, epoch, image), and the place in the data follows from the
    step.
    """

    module: nn.Module
    """The trained module."""
    ema: EMA
    """The average of its weights."""
    optimizer: torch.optim.Optimizer
    """The optimizer."""
    step: int = 0
    """Optimizer steps done."""
    best: float = float("inf")
    """Lowest held-out loss so far."""
    figures: dict[str, float] = field(default_factory=dict)
    """The last held-out figures."""
    seconds: float = 0.0
    """Seconds of training."""
    durations: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of the parts of a training that follows the clock, see :class:`heptapod.training.schedule.Schedule`."""
    finished: float | None = None
    """Minutes of a training that followed the clock to its end."""
    resumed_from: int | None = None
    """The step that train.resume named, if it named one."""

    def tensors(self) -> Tensors:
        """The tensors of a checkpoint, in place: reading a checkpoint into them restores the state."""
        return {**self._weights(), OPTIMIZER: optimizer_tensors(self.module, self.optimizer)}

    def values(self) -> dict[str, Any]:
        """The values of a checkpoint besides tensors and step."""
        return {
            "resumed_from": self.resumed_from,
            "best_val_loss": self.best if self.best < float("inf") else None,
            "figures": self.figures,
            "seconds": self.seconds,
            "durations": self.durations,
            "finished": self.finished,
        }

    def restore(self, path: Path, resume: int | Literal["latest"]) -> bool:
        """Restores a checkpoint.

        Returns:
            Whether it is the checkpoint of the requested step, not a later one of a run resumed from there.

        Raises:
            ValueError: if it is of another architecture.
        """
        shapes = {
            name.removeprefix(f"{OPTIMIZER}/"): shape
            for name, shape in tensor_shapes(path).items()
            if name.startswith(f"{OPTIMIZER}/")
        }
        optimizer = empty_optimizer_tensors(self.module, self.optimizer, shapes)
        saved = load_checkpoint(path, {**self._weights(), OPTIMIZER: optimizer})
        self.step, self.figures, self.seconds = saved.step, saved.figures, saved.seconds
        self.durations, self.finished = saved.durations, saved.finished
        self.best = float("inf") if saved.best_val_loss is None else saved.best_val_loss
        goes_back = self.step == resume
        self.resumed_from = self.step if goes_back else saved.resumed_from
        return goes_back

    def is_finite(self) -> bool:
        """Whether this rank's share of weights and optimizer state is finite."""
        tensors = [tensor for part in self.tensors().values() for tensor in part.values()]
        return all(bool(_local(tensor).isfinite().all()) for tensor in tensors if tensor.is_floating_point())

    def _weights(self) -> Tensors:
        tensors: Tensors = {"model": self.module.state_dict()}
        return {**tensors, "ema": self.ema.tensors} if self.ema.decay else tensors


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
