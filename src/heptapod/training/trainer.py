"""The training loop: step, log, evaluate, save. What is trained is a :class:`TrainTask`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heptapod import parallel
from heptapod.data.loader import Batch, BatchStream
from heptapod.files import load_strictly, remove_temporary
from heptapod.pictures import save_png
from heptapod.progress import Progress
from heptapod.training import checkpoint
from heptapod.training.config import TrainConfig
from heptapod.training.logging import MetricsLog
from heptapod.training.optim import (
    EMA,
    build_optimizer,
    learning_rate,
    load_optimizer_tensors,
    optimizer_tensors,
)
from heptapod.training.task import TrainTask


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became infinite or not a number; the weights are those before the step."""


def check_processes(config: TrainConfig) -> None:
    """Refuses a batch that cannot be shared among the processes.

    Raises:
        ValueError: saying by what it must be divisible.
    """
    processes = parallel.world_size()
    if config.batch_size % (processes * config.accumulation):
        raise ValueError(
            f"train.batch_size: {config.batch_size} given, must be divisible by {processes} processes times "
            f"{config.accumulation} micro-batches (train.accumulation)"
        )


class Trainer:
    """Trains a task in a run folder, going on from its last checkpoint if it has one.

    Several processes (torchrun) share every batch; the weights are those of one process with the whole batch, and the
    first process writes the files.

    Args:
        task: what is trained.
        config: the loop's settings.
        folder: the run folder.
        seed: keys all randomness.
        device: where to train.
    """

    def __init__(self, task: TrainTask, config: TrainConfig, folder: Path, seed: int, device: torch.device) -> None:
        check_processes(config)
        self.task = task
        self.config = config
        self.folder = folder
        self.seed = seed
        self.device = device
        share, ahead = (parallel.rank(), parallel.world_size()), task.train_items.is_slow or device.type != "cpu"
        self.stream = BatchStream(task.train_items, config.batch_size, seed, share, ahead)
        self.module = task.module.to(device)
        self.optimizer = build_optimizer(self.module, config)
        self.ema = EMA(task.averaged, config.ema_decay)
        self.step = 0
        self.best = float("inf")
        self.seconds = 0.0
        self.figures: dict[str, float] = {}
        if parallel.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            remove_temporary(folder / "checkpoints")
        parallel.barrier()
        if found := checkpoint.checkpoints(folder / "checkpoints"):
            self._restore(found[-1])
        if config.compile:
            self.module.compile()

    def run(self) -> dict[str, float]:
        """Trains to the end.

        Returns:
            The last held-out figures, with ``best_val_loss``, ``seconds`` and ``step``.

        Raises:
            NonFiniteLossError: before the update that would have spoiled the weights.
            OSError: if a checkpoint cannot be written.
        """
        config, started = self.config, time.monotonic() - self.seconds
        log = MetricsLog(self.folder, self.step, config.tensorboard) if parallel.is_main() else None
        title = f"training {self.task.name}"
        with Progress(title, config.steps, "images", self.step) as progress:
            if self.step:
                progress.say(f"{title}: going on from step {self.step:,}")
            while self.step < config.steps:
                values = self._train_step()
                self.step += 1
                self.seconds = time.monotonic() - started
                final = self.step == config.steps
                progress.advance(1, f"loss {values['loss']:.4g} {self._held_out()}", config.batch_size)
                if log is not None and (self.step % config.log_every == 0 or final):
                    numbers = {name: float(value) for name, value in values.items()}
                    log.write(self.step, {**numbers, "seconds": self.seconds})
                if self.step % config.eval_every == 0 or final:
                    self._evaluate(log, progress)
                if parallel.is_main() and (self.step % config.preview_every == 0 or final):
                    self._preview()
                if parallel.is_main() and (self.step % config.save_every == 0 or final):
                    self._save()
        if log is not None:
            log.close()
        parallel.barrier()
        return {**self.figures, "best_val_loss": self.best, "seconds": self.seconds, "step": self.step}

    def _train_step(self) -> dict[str, Any]:
        """One optimizer step on the next batch of the stream."""
        config = self.config
        self.module.train()
        batch = self.stream.at(self.step)
        lr = learning_rate(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss, metrics, statistics = self._accumulate(batch)
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        parallel.sum_in_place([*gradients, loss, *metrics.values()])
        limit = config.grad_clip or float("inf")
        trained = [[p for p in part.parameters() if p.grad is not None] for part in self.task.parts]
        norm = torch.stack([torch.nn.utils.clip_grad_norm_(part, limit) for part in trained if part]).norm()
        loss_value, norm_value = torch.stack([loss, norm]).tolist()  # the one wait for the device in a step
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            raise NonFiniteLossError(
                f"step {self.step + 1}: loss {loss_value}, gradient norm {norm_value}; stopped before the update. "
                f"Images of the batch: {', '.join(batch.names)}"
            )
        self.optimizer.step()
        extra = self.task.after_step(statistics, self.step)
        self.ema.update(self.task.averaged, self.step)
        return {"loss": loss_value, **metrics, "grad_norm": norm_value, "lr": lr, **extra}

    def _accumulate(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Any]:
        """This process's share of the gradients of the batch's mean loss, micro-batch by micro-batch."""
        size = self.config.batch_size  # of all processes together
        loss = torch.zeros((), device=self.device)
        metrics: dict[str, Tensor] = {}
        statistics: Any = None
        for micro in batch.to(self.device).split(self.config.accumulation):
            with self._autocast():
                output = self.task.losses(micro, self.step)
            part = output.loss.sum() / size
            part.backward()
            loss += part.detach()
            for name, value in output.metrics.items():
                metrics[name] = metrics.get(name, torch.zeros((), device=self.device)) + value.detach().sum() / size
            if output.statistics is not None:
                statistics = output.statistics if statistics is None else statistics + output.statistics
        return loss, metrics, statistics

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _evaluate(self, log: MetricsLog | None, progress: Progress) -> None:
        with torch.inference_mode(), self._autocast():
            self.figures = self.task.evaluate(self.ema.module.eval(), self.config.eval_images)
        improved = self.figures["val_loss"] < self.best or not self.task.selects_best
        self.best = self.figures["val_loss"] if improved else self.best
        if log is None:
            return
        log.write(self.step, self.figures)
        text = ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        progress.say(f"  step {self.step:,}: {text}")
        metadata = {"step": str(self.step), **{name: repr(value) for name, value in self.figures.items()}}
        if improved:
            self.task.export(self.ema.module, self.folder / "best", metadata)
        if self.step == self.config.steps:
            self.task.export(self.ema.module, self.folder / "last", metadata)

    def _preview(self) -> None:
        with torch.inference_mode():
            picture = self.task.preview(self.ema.module.eval())
        save_png(picture, self.folder / "samples" / f"step-{self.step:08d}.png")

    def _held_out(self) -> str:
        return f"held-out {self.figures['val_loss']:.4g}" if self.figures else ""

    def _save(self) -> None:
        tensors = {
            "model": self.module.state_dict(),
            "optimizer": optimizer_tensors(self.module, self.optimizer),
        }
        if self.ema.decay:
            tensors["ema"] = self.ema.module.state_dict()
        state = {
            "seed": self.seed,
            "items_read": self.step * self.config.batch_size,
            "best_val_loss": self.best if self.best < float("inf") else None,
            "figures": self.figures,
            "seconds": self.seconds,
        }
        checkpoint.save_checkpoint(self.folder / "checkpoints", self.step, tensors, state, self.config.keep_last)

    def _restore(self, path: Path) -> None:
        tensors, state = checkpoint.load_checkpoint(path)
        load_strictly(self.module, tensors["model"], path / "model.safetensors")
        load_optimizer_tensors(self.module, self.optimizer, tensors["optimizer"])
        if self.ema.decay:
            load_strictly(self.ema.module, tensors["ema"], path / "ema.safetensors")
        self.step = state["step"]
        self.best = float("inf") if state["best_val_loss"] is None else state["best_val_loss"]
        self.figures = state["figures"]
        self.seconds = state["seconds"]
