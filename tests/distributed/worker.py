"""Trains small models in this process's share of a group: every scenario of a list, one after another."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image

from heptapod.configs.objective import ObjectiveConfig
from heptapod.data.loader import Batch
from heptapod.data.tokens import TokenSet
from heptapod.distributed import process_group
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import HeptapodModel, build_model
from heptapod.training import schedule
from heptapod.training.config import TrainConfig
from heptapod.training.model_task import ModelTask
from heptapod.training.task import LossOutput
from heptapod.training.trainer import Trainer
from heptapod.utils.files import write_tensors

GRID = GridSpec(3, 3, 8)
IMAGES = 52  # not a multiple of the batch: epochs begin within batches


class Stop(Exception):
    """Stands for a kill: nothing is saved."""


class Recorded(ModelTask):
    """Writes down which images every process sees, and breaks off where it is told to."""

    seen: list[tuple[int, int, int]]
    stop_at: int | None = None

    def losses(self, batch: Batch, step: int) -> LossOutput:
        if step == self.stop_at:
            raise Stop
        self.seen += [(step, epoch, index) for _, epoch, index in batch.keys]
        return super().losses(batch, step)


def tokens_of(count: int, seed: int) -> TokenSet:
    """Images with something to learn: one code in most cells."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randint(8, (count, 1, 1), generator=generator)
    other = torch.randint(8, (count, 1, 9), generator=generator)
    tokens = torch.where(torch.rand(count, 1, 9, generator=generator) < 0.8, base, other).int()
    return TokenSet([tokens], base.flatten() % 2, [f"{i}" for i in range(count)], ["even", "odd"], GRID, [0])


def export(module: HeptapodModel, folder: Path, metadata: dict[str, str]) -> None:
    write_tensors(folder / "model.safetensors", module.state_dict(), metadata)


def train(folder: Path, scenario: dict[str, Any]) -> dict[str, Any]:
    """What a run gives: losses by step, images seen, final weights (the first process writes them)."""
    head = HeadConfig(scenario.get("head", "cross"), 2)
    model = build_model(ModelConfig(width=16, depth=2, num_heads=2, head=head), GRID, 2, seed=0)
    model.to(getattr(torch, scenario.get("dtype", "float32")))
    objective = ObjectiveConfig("random", scenario.get("prefixes", 4), 2 if head.kind != "next_token" else 1)
    picture = Image.new("RGB", (4, 4))
    config = TrainConfig(**{
        "steps": 50, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 5, "precision": "float32",
        "ema_decay": 0.9, "log_every": 1, "eval_every": 25, "preview_every": 25, "save_every": 1000,
        **scenario.get("train", {}),
    })  # fmt: skip
    held_out = tokens_of(11, 1)
    task = Recorded(model, tokens_of(IMAGES, 0), held_out, objective, config.steps, lambda module: picture, export)
    task.seen, task.stop_at = [], scenario.get("stop_at")
    if scenario.get("skewed") and process_group.rank():  # another clock: ahead and slow
        schedule.time = SimpleNamespace(monotonic=lambda: 7 + time.monotonic() / 3)  # type: ignore[assignment]
    try:
        Trainer(task, config, folder, seed=0, device=torch.device("cpu")).run()
    except Stop:
        process_group.barrier()
    finally:
        schedule.time = time
    return {"seen": task.seen}


def main(folder: Path, scenarios: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    with process_group.init_process_group(60):
        for scenario in scenarios:
            run = folder / scenario["name"]
            result = train(run, scenario)
            (run / f"rank{process_group.rank()}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
