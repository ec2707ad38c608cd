"""Trains a small tokenizer in this process's share of a group; run by test_parallel.py, once per process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from heptapod.data import ImageSet
from heptapod.distributed import process_group
from heptapod.tokenizers import LossesConfig, VQConfig
from heptapod.tokenizers.store import build_trainable
from heptapod.training.config import TrainConfig
from heptapod.training.tokenizer_task import TokenizerTask
from heptapod.training.trainer import Trainer
from heptapod.utils.config import from_dict
from heptapod.utils.files import write_tensors


def images_of(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    pixels = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return ImageSet(pixels, torch.zeros(count, dtype=torch.long), [str(i) for i in range(count)], ["one"])


class Recorded(TokenizerTask):
    """Keeps the codebook of every step."""

    def after_step(self, statistics: Any, step: int) -> dict[str, torch.Tensor]:
        values = super().after_step(statistics, step)
        self.codebooks = [*getattr(self, "codebooks", []), self.module.tokenizer.codebook.vectors.clone()]  # type: ignore[attr-defined,operator]
        return values


def main(folder: Path, settings: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    with process_group.init_process_group():
        model = VQConfig(
            width=8, codebook_size=settings.get("codes", 16), code_width=4, dead_below=settings.get("dead_below", 0.1)
        )
        losses = from_dict(LossesConfig, settings.get("losses", {}))
        config = TrainConfig(
            steps=settings["steps"], batch_size=8, learning_rate=1e-3, warmup_steps=2, precision="float32",
            ema_decay=0.9, log_every=1, eval_every=1000, preview_every=1000, save_every=1000,
        )  # fmt: skip
        tokenizer = build_trainable(model, 0)
        task = Recorded(tokenizer, losses, images_of(40), images_of(8), 0)
        task.module.to(getattr(torch, settings["dtype"]))
        figures = Trainer(task, config, folder / "run", 0, torch.device("cpu")).run()
        tensors = {f"codebook/{step}": vectors for step, vectors in enumerate(task.codebooks)}
        tensors |= {f"model/{name}": tensor for name, tensor in task.module.state_dict().items()}
        write_tensors(folder / f"rank{process_group.rank()}.safetensors", tensors)
        (folder / f"rank{process_group.rank()}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
