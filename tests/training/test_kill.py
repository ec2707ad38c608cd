"""SIGKILL at random moments, resumed each time by the same command: the weights of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from heptapod.training.checkpoint import checkpoints, flat, read_checkpoint
from heptapod.utils.files import sha256

KILLS = 10
STEPS = 300


def command(folder: Path, out: Path) -> list[str]:
    return [
        sys.executable, "-m", "heptapod", "train", str(folder / "recipe.yaml"), "--out", str(out),
    ]  # fmt: skip


RECIPE = """
data: {{path: {images}, flip: true, validation_fraction: 0.2}}
tokenizer:
  model: {{kind: vq, factor: 4, codebook_size: 16, width: 8, code_width: 4}}
  train: {{steps: 40, batch_size: 8, precision: float32, ema_decay: 0.9, eval_every: 10, save_every: 4}}
model: {{width: 16, depth: 1, num_heads: 1, head: {{depth: 1}}}}
objective: {{token_order: mixed, prefixes_per_image: 8}}
train: {{steps: {steps}, batch_size: 8, precision: float32, eval_every: 50, save_every: 3, log_every: 1}}
"""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def newest(out: Path) -> str:
    found = checkpoints(out / "checkpoints") or checkpoints(out / "tokenizer" / "checkpoints")
    return str(found[-1]) if found else ""


def test_killed_ten_times(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(images=image_folder, steps=STEPS))
    subprocess.run(command(tmp_path, tmp_path / "whole"), check=True, env=environment(), capture_output=True)

    broken, dice, killed = tmp_path / "broken", random.Random(0), 0
    while killed < KILLS:
        before = newest(broken)
        process = subprocess.Popen(
            command(tmp_path, broken), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # At least one checkpoint further each time, then a random moment: in a step, in a save, between stages.
        while newest(broken) == before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.15))
        assert process.poll() is None, f"the run ended after {killed} kills; it must be longer for this test"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run(command(tmp_path, broken), check=True, env=environment(), capture_output=True)

    for name in ("last/model.safetensors", "best/model.safetensors", "tokenizer/last/model.safetensors"):
        assert sha256(broken / name) == sha256(tmp_path / "whole" / name), name
    final = checkpoints(broken / "checkpoints")[-1]
    assert final.name == f"step-{STEPS:08d}"
    tensors, expected = (
        flat(read_checkpoint(tmp_path / run / "checkpoints" / final.name)) for run in ("broken", "whole")
    )
    assert tensors.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(tensors[name], expected[name])] == []
    assert not list(broken.rglob(".tmp-*"))
