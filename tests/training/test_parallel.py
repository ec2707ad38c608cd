"""Two data-parallel processes: codebooks equal to the bit, weights those of one process with the whole batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from heptapod.distributed import process_group
from heptapod.training.logging import read_metrics
from heptapod.utils.files import read_tensors

WORKER = Path(__file__).with_name("parallel_worker.py")
ADVERSARIAL = {"adversarial_weight": 0.5, "adversarial_start": 4, "discriminator_width": 8, "discriminator_layers": 2}


def run(folder: Path, processes: int, **settings: Any) -> list[dict[str, torch.Tensor]]:
    """The tensors that each process ends with."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "PYTHONPATH": str(WORKER.parents[2]), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), json.dumps(settings)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    return [read_tensors(folder / f"rank{rank}.safetensors") for rank in range(processes)]


def test_codebooks_stay_equal_to_the_bit_over_200_steps(tmp_path: Path) -> None:
    one, other = run(tmp_path, 2, steps=200, dtype="float32", dead_below=0.5, codes=64)
    assert sum(name.startswith("codebook/") for name in one) == 200
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    moved = [not torch.equal(one[f"codebook/{step}"], one[f"codebook/{step + 1}"]) for step in range(199)]
    assert all(moved)
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert sum(line["codes_restarted"] for line in lines) > 0, "restarts are drawn alike too"


@pytest.mark.parametrize("losses", [{}, ADVERSARIAL], ids=["pixels", "adversarial"])
def test_two_processes_are_one_with_the_joint_batch(tmp_path: Path, losses: dict[str, Any]) -> None:
    settings = {"steps": 20, "dtype": "float64", "losses": losses}
    (alone,) = run(tmp_path / "one", 1, **settings)
    for together in run(tmp_path / "two", 2, **settings):
        for name, tensor in alone.items():
            assert torch.allclose(together[name].double(), tensor.double(), rtol=1e-9, atol=1e-10), name
    one, two = (
        [line["loss"] for line in read_metrics(tmp_path / name / "run" / "metrics.jsonl") if "loss" in line]
        for name in ("one", "two")
    )
    assert one == pytest.approx(two, rel=1e-6)


def test_alone_nothing_is_exchanged() -> None:
    tensor = torch.ones(3)
    assert process_group.all_gather(tensor) == [tensor]
    process_group.all_reduce_sum([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert (process_group.rank(), process_group.world_size(), process_group.is_main_process()) == (0, 1, True)
