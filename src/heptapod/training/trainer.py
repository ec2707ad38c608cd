"""The training loop: step, log, evaluate, save. What is trained is a :class:`TrainTask`."""

from __future__ import annotations

import logging
import math
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from heptapod.data.loader import Batch, BatchStream
from heptapod.distributed import process_group
from heptapod.distributed.errors import (
    InterruptedRunError,
    NonFiniteLossError,
    OtherProcessFailedError,
    TerminatedError,
)
from heptapod.training.checkpoint import CheckpointWriter, checkpoints, find_checkpoint, set_newer_aside, step_of
from heptapod.training.config import TrainConfig
from heptapod.training.logging import MetricsLog
from heptapod.training.optim import EMA, build_optimizer
from heptapod.training.outcomes import StepOutcomes
from heptapod.training.parallelize import Parallel, shards
from heptapod.training.precision import with_arithmetic
from heptapod.training.schedule import Schedule
from heptapod.training.state import TrainState
from heptapod.training.task import TrainTask
from heptapod.training.termination import SIGNALS, Termination
from heptapod.utils.files import remove_temporary
from heptapod.utils.images import save_png
from heptapod.utils.logging import Progress
from heptapod.utils.random import seeded_dropout

logger = logging.getLogger(__name__)


def check_processes(config: TrainConfig) -> None:
    """Rejects a batch that cannot be shared among the processes.

    Raises:
        ValueError: saying by what it must be divisible.
    """
    processes = process_group.world_size()
    if config.batch_size % (processes * config.accumulation):
        raise ValueError(
            f"train.batch_size: {config.batch_size} given, must be divisible by {processes} processes times "
            f"{config.accumulation} micro-batches (train.accumulation)"
        )


class Trainer:
    """Trains a task in a run folder, resuming from its last checkpoint if it has one.

    Several processes (torchrun) share every batch; the weights are those of one process with the whole batch, and the
    files are written by rank 0.

    Args:
        task: what is trained.
        config: the loop's settings.
        folder: the run folder, which all processes see.
        seed: keys all randomness.
        device: where to train.

    Raises:
        ValueError: if the batch cannot be shared, or the checkpoint asked for is not there or does not fit.
    """

    def __init__(self, task: TrainTask, config: TrainConfig, folder: Path, seed: int, device: torch.device) -> None:
        check_processes(config)
        config = with_arithmetic(config, device)
        self.task = task
        self.config = config
        self.folder = folder
        self.seed = seed
        self.device = device
        self.stream = BatchStream(
            task.train_items,
            config.batch_size,
            seed,
            share=(process_group.rank(), process_group.world_size()),
            ahead=task.train_items.is_slow or device.type != "cpu",
            accumulation=config.accumulation,
            prepare=task.prepare,
            pin=device.type == "cuda",
        )
        self.module = task.module.to(device)
        self.ema = EMA(task.averaged, config.ema_decay, shards(config))
        self.parallel = Parallel(task, config, device)
        if shards(config):
            self.ema.shard(task.averaged)
        self.state = TrainState(self.module, self.ema, build_optimizer(self.module, config))
        self._prepare_folder()
        checkpoint = process_group.broadcast_result(lambda: find_checkpoint(folder / "checkpoints", config.resume))
        if checkpoint and self.state.restore(checkpoint, config.resume) and process_group.is_main_process():
            (folder / "training.json").unlink(missing_ok=True)
            set_newer_aside(checkpoint)
        self.outcomes = StepOutcomes(delayed=device.type == "cuda" and not shards(config))
        self.schedule = Schedule(config, self.state.seconds, self.state.durations, self.state.finished)
        self.writer = CheckpointWriter(folder / "checkpoints", config.keep_last, config.timeout)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.state.step

    def run(self) -> dict[str, float]:
        """Trains to the end.

        Returns:
            The last held-out figures, with ``best_val_loss``, ``seconds`` and ``step``.

        Raises:
            NonFiniteLossError: before the update that would have spoiled the weights, or before such weights are saved.
            TerminatedError: when SIGTERM or SIGHUP came to any of the processes; a checkpoint of the last step is
                written.
            InterruptedRunError: the same after Ctrl+C; it is a KeyboardInterrupt.
            OSError: if a checkpoint cannot be written.
        """
        log = MetricsLog(self.folder, self.step, self.config.tensorboard) if process_group.is_main_process() else None
        title = f"training {self.task.name}"
        try:
            with self._progress(title) as progress, Termination() as termination:
                if self.step:
                    logger.info(f"{title}: resuming from step {self.step:,}")
                self._loop(log, progress, termination)
                self.writer.wait()
                self._obey(termination)
        finally:
            self.parallel.close()
            self.writer.close()
            if log is not None:
                log.close()
        process_group.barrier()
        return {
            **self.state.figures,
            "best_val_loss": self.state.best,
            "seconds": self.state.seconds,
            "step": self.step,
        }

    def _loop(self, log: MetricsLog | None, progress: Progress, termination: Termination) -> None:
        config, schedule = self.config, self.schedule
        final = schedule.is_over(self.step)
        while not final:
            with schedule.timed("step"):
                values, stops = self._train_step(termination.requested is not None)
            self.state.step += 1
            self.state.seconds = schedule.seconds
            final = schedule.is_last(self.step)
            logs, evaluates, previews, saves = (
                final or self.step % every == 0
                for every in (config.log_every, config.eval_every, config.preview_every, config.save_every)
            )
            if schedule.must_evaluate:
                evaluates = previews = True
            elif not (final or schedule.has_time):
                evaluates = previews = False
            if logs or evaluates or previews or saves or stops:
                stops |= self._settle()
            self._advance(progress)
            if log is not None and logs:
                numbers = {name: float(value) for name, value in values.items()}
                log.write(self.step, {**numbers, "seconds": self.state.seconds})
            if evaluates or previews:
                with self.ema.whole() as module, torch.inference_mode():
                    if evaluates:
                        with schedule.timed("evaluation"):
                            self._evaluate(module.eval(), log, progress, final)
                    if previews and process_group.is_main_process():
                        with schedule.timed("preview"):
                            picture = self.task.preview(module.eval())
                            save_png(picture, self.folder / "samples" / f"step-{self.step:08d}.png")
            if stops or saves:
                with schedule.timed("checkpoint"):
                    self._save(final)
            if stops:
                return

    def _progress(self, title: str) -> Progress:
        """The bar counts steps, or the seconds of a training that follows the clock."""
        budget = self.schedule.budget
        if budget is None:
            return Progress(title, self.config.steps, "images", self.step)
        return Progress(f"{title}, seconds", round(budget), "images", min(round(self.state.seconds), round(budget)))

    def _advance(self, progress: Progress) -> None:
        note, images = f"{self.outcomes} {self._held_out()}", self.config.batch_size
        if self.schedule.budget is None:
            progress.advance(1, note, images)
        else:
            done = min(round(self.state.seconds), progress.total) - progress.done
            progress.advance(done, f"step {self.step:,} {note}", self.step * images / max(self.state.seconds, 1e-3))

    def _train_step(self, stop_requested: bool = False) -> tuple[dict[str, Any], bool]:
        """One optimizer step on the next batch of the stream; figures, and whether a stop is requested on any rank.

        A GPU is not waited for: the outcome of a step is checked when the next one is queued, or by :meth:`_settle`,
        and always before anything is saved. The optimizer itself leaves the weights that it trains as they are where
        the loss is not finite.
        """
        config = self.config
        self.module.train()
        micros = self.stream.at(self.step)
        lr = self.schedule.learning_rate(self.step)
        for group in self.state.optimizer.param_groups:
            group["lr"] = lr
        self.state.optimizer.zero_grad(set_to_none=True)
        loss, metrics, statistics = self._accumulate(micros)
        stop, failed = torch.full_like(loss, stop_requested), torch.full_like(loss, self.writer.has_failed)
        clock = (self.schedule.seconds, self.schedule.needed) if process_group.is_main_process() else (0.0, 0.0)
        others = [stop, failed, *(torch.full_like(loss, value) for value in clock)]
        process_group.all_reduce_sum([loss, *others, *metrics.values()])
        limit = config.grad_clip or float("inf")
        trained = [[p for p in part.parameters() if p.grad is not None] for part in self.task.parts]
        norms = [torch.nn.utils.clip_grad_norm_(part, limit) for part in trained if part]
        norm = torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()
        stops = self._settle()
        self.outcomes.put(self.step, [name for micro in micros for name in micro.names], loss, norm, *others)
        if self.outcomes.delayed:
            # The fused optimizer skips its update where this is 1, as in mixed precision with scaled gradients.
            self.state.optimizer.found_inf = 1 - torch.stack([loss, norm]).isfinite().all().float()  # type: ignore[attr-defined]
        else:
            stops |= self._settle()
        self.state.optimizer.step()
        extra = self.task.after_step(statistics, self.step)
        self.ema.update(self.task.averaged, self.step)
        return {"loss": loss, **metrics, "grad_norm": norm, "lr": lr, **extra}, stops

    def _settle(self) -> bool:
        """Waits for the last step and checks its outcome; whether it requested a stop on any rank."""
        outcome = self.outcomes.take()
        if outcome is None:
            return False
        if outcome.failures:
            self.writer.wait()
            raise OtherProcessFailedError("another rank could not write its share of a checkpoint")
        if not (math.isfinite(outcome.loss) and math.isfinite(outcome.norm)):
            raise NonFiniteLossError(
                f"step {outcome.step + 1}: loss {outcome.loss}, gradient norm {outcome.norm}; stopped before the "
                f"update, {self._last_checkpoint()}. Images of the batch: {', '.join(outcome.names)}"
            )
        self.schedule.agree(outcome.seconds, outcome.needed)
        return outcome.stops > 0

    def _accumulate(self, micros: list[Batch]) -> tuple[Tensor, dict[str, Tensor], Any]:
        """Gradients of the batch's mean loss, micro-batch by micro-batch; this process's share of the figures."""
        size = self.config.batch_size  # of all processes together
        place = process_group.rank() * self.config.accumulation
        loss = torch.zeros((), device=self.device)
        metrics: dict[str, Tensor] = {}
        statistics: Any = None
        for number, micro in enumerate((micro.to(self.device) for micro in micros), 1):
            with self.parallel.gradients(last=number == len(micros)):
                with self._autocast(), seeded_dropout(self.device, self.seed, self.step, place + number):
                    output = self.parallel.losses(micro, self.step)
                part = output.loss.sum() / size
                (part * process_group.world_size()).backward()  # the mean over the processes follows
            loss += part.detach()
            for name, value in output.metrics.items():
                metrics[name] = metrics.get(name, torch.zeros((), device=self.device)) + value.detach().sum() / size
            if output.statistics is not None:
                statistics = output.statistics if statistics is None else statistics + output.statistics
        return loss, metrics, statistics

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _evaluate(self, module: nn.Module, log: MetricsLog | None, progress: Progress, final: bool) -> None:
        with self._autocast():
            self.state.figures = self.task.evaluate(module, self.config.eval_images)
        if not math.isfinite(self.state.figures["val_loss"]):
            raise NonFiniteLossError(
                f"step {self.step}: held-out loss {self.state.figures['val_loss']}; {self._last_checkpoint()}"
            )
        improved = self.state.figures["val_loss"] < self.state.best or not self.task.selects_best
        self.state.best = self.state.figures["val_loss"] if improved else self.state.best
        if log is None:
            return
        log.write(self.step, self.state.figures)
        text = ", ".join(f"{name} {value:.4g}" for name, value in self.state.figures.items())
        logger.info(f"  step {self.step:,}: {text}")
        metadata = {"step": str(self.step), **{name: repr(value) for name, value in self.state.figures.items()}}
        if improved:
            self.task.export(module, self.folder / "best", metadata)
        if final:
            self.task.export(module, self.folder / "last", metadata)

    def _held_out(self) -> str:
        return f"held-out {self.state.figures['val_loss']:.4g}" if self.state.figures else ""

    def _prepare_folder(self) -> None:
        if process_group.is_main_process():
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_temporary(self.folder / "checkpoints")
        process_group.barrier()
        if not self.folder.is_dir():
            raise ValueError(f"out: {self.folder} is not visible on all hosts; all ranks need one shared folder")

    def _obey(self, termination: Termination) -> None:
        """Raises if a signal came to any rank, be it in the last step: what follows the training must not start."""
        requested = torch.tensor(float(termination.requested is not None))
        process_group.all_reduce_sum([requested])
        if not requested:
            return
        number = termination.requested or signal.SIGTERM  # another rank received it
        error = InterruptedRunError if number == signal.SIGINT else TerminatedError
        raise error(
            f"stopped by {SIGNALS[number]} after step {self.step:,}, which is saved; run the same command again to "
            "resume"
        )

    def _save(self, final: bool) -> None:
        self.state.seconds = self.schedule.seconds
        self.state.durations = {} if self.schedule.budget is None else self.schedule.durations
        self.state.finished = self.config.minutes if final else None
        spoiled = torch.tensor(float(not self.state.is_finite()))
        process_group.all_reduce_sum([spoiled])
        if spoiled:
            raise NonFiniteLossError(
                f"step {self.step}: weights or optimizer state are not finite after the update (train.learning_rate "
                f"may be too high); not saved, {self._last_checkpoint()}"
            )
        values = {
            "seed": self.seed,
            "items_read": self.step * self.config.batch_size,
            "processes": process_group.world_size(),
        }
        self.writer.save(self.step, self.state.tensors(), {**values, **self.state.values()})

    def _last_checkpoint(self) -> str:
        """A half sentence about the last checkpoint."""
        with suppress(OSError):
            self.writer.wait()
        paths = checkpoints(self.writer.folder)
        return f"the checkpoint of step {step_of(paths[-1]):,} is intact" if paths else "there is no checkpoint yet"
