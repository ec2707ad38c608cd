"""Starts processes that train together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("worker.py")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def environment(**more: str) -> dict[str, str]:
    """That of a process with one thread that finds the package."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", **more}


def run_workers(folder: Path, scenarios: list[dict[str, Any]], processes: int = 2) -> None:
    """Runs scenarios (see worker.py) in a group of processes."""
    folder.mkdir(exist_ok=True)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), json.dumps(scenarios)],
            env=environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)), stderr=subprocess.PIPE, text=True,
        )
        for rank in range(processes)
    ]  # fmt: skip
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    for worker, error in zip(workers, errors, strict=True):
        assert worker.returncode == 0, error


def torchrun(*arguments: str, processes: int = 2, restarts: int = 0) -> list[str]:
    """The command that starts heptapod in several processes on this machine."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--max_restarts",
        str(restarts), "--master_addr", "127.0.0.1", "--master_port", str(free_port()), "-m", "heptapod", *arguments,
    ]  # fmt: skip
