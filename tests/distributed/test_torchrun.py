"""Runs started by torchrun: kills, SIGTERM, hosts that lose each other, and mistakes that are told once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heptapod.training.checkpoint import checkpoints, find_checkpoint, problem_of
from heptapod.utils.files import locked, read_json, sha256
from tests.distributed.launch import environment, free_port, torchrun

RECIPE = """
data: {{path: {images}, image_size: 4, validation_fraction: 0.2}}
tokenizer: {{model: {{kind: pixel, levels: 5}}}}
model: {{width: 16, depth: 1, num_heads: 1, head: {{depth: 1}}}}
objective: {{token_order: mixed, prefixes_per_image: 8}}
train: {{steps: 200, batch_size: 8, precision: float32, eval_every: 100, preview_every: 200, save_every: 10,
  timeout: 30}}
"""


@pytest.fixture
def recipe(image_folder: Path, tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(images=image_folder))
    return str(path)


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(out: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Waits for a checkpoint of this step or a later one."""
    while not any(path.name >= f"step-{step:08d}" for path in checkpoints(out / "checkpoints")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return [int(pid) for pid in listed.stdout.split()]


def final_hash(out: Path) -> str:
    return sha256(out / "last" / "model.safetensors")


def test_a_killed_worker_and_a_terminated_job(recipe: str, tmp_path: Path) -> None:
    def command(out: str, restarts: int = 0) -> list[str]:
        return torchrun("train", recipe, "--out", str(tmp_path / out), restarts=restarts)

    subprocess.run(command("whole"), env=environment(), check=True, capture_output=True, timeout=120)
    figures = read_json(tmp_path / "whole" / "training.json")

    broken = start(command("broken", restarts=1))
    wait_for_step(tmp_path / "broken", 30, broken)
    os.kill(workers_of(broken)[1], signal.SIGKILL)
    wait_for_step(tmp_path / "broken", 120, broken)  # started again, and gone on
    broken.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, errors = broken.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert "resuming from step" in errors
    assert "stopped by SIGTERM after step" in errors
    last = checkpoints(tmp_path / "broken" / "checkpoints")[-1]
    assert problem_of(last) is None
    subprocess.run(command("broken"), env=environment(), check=True, capture_output=True, timeout=120)
    assert read_json(tmp_path / "broken" / "training.json")["val_loss"] == figures["val_loss"]
    assert final_hash(tmp_path / "broken") == final_hash(tmp_path / "whole")


def test_a_terminated_single_process(recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "heptapod", "train", recipe, "--out", str(out), "--train.save_every", "100"]
    process = start(command)
    wait_for_step(out, 100, process)
    process.terminate()
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, time.monotonic() - began < 10) == (143, True)
    step = read_json(checkpoints(out / "checkpoints")[-1] / "state.json")["step"]
    assert f"stopped by SIGTERM after step {step}, which is saved" in errors


def test_ctrl_c_reaches_every_rank(recipe: str, tmp_path: Path) -> None:
    """As a terminal sends it: to torchrun and to its workers, to which torchrun then passes it on once more."""
    command = torchrun("train", recipe, "--out", str(tmp_path / "run"), "--train.save_every", "50")
    listening = [sys.executable, "-c", "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
                 "os.execvp(sys.argv[1], sys.argv[1:])", *command]  # fmt: skip
    process = subprocess.Popen(
        listening, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for_step(tmp_path / "run", 50, process)
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 10, "no rank hangs until torchrun kills it"
    step = read_json(checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json")["step"]
    assert errors.count("Ctrl+C: saving a checkpoint") == 1, errors
    assert errors.count(f"stopped by Ctrl+C after step {step}, which is saved") == 1, errors
    assert 'File "' + str(Path(__file__).parents[2] / "src") not in errors, "no traceback of heptapod"


def test_a_second_run_is_refused_once(recipe: str, tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        command = torchrun("train", recipe, "--out", str(tmp_path / "run"))
        result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode != 0
    told = [line for line in result.stderr.splitlines() if line.startswith("heptapod: error")]
    assert len(told) == 1, result.stderr
    assert f"run: another process is writing there (process {os.getpid()} on " in told[0]
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


def test_a_mistake_is_told_once(recipe: str, tmp_path: Path) -> None:
    """Others are in tests/commands/test_together.py."""
    missing = ["--data.path", "nowhere/shard-000.tar"]
    command = torchrun("train", recipe, "--out", str(tmp_path / "run"), *missing)
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode != 0
    told = [line for line in result.stderr.splitlines() if line.startswith("heptapod: error")]
    assert len(told) == 1, result.stderr
    assert "nowhere/shard-000.tar" in told[0]
    assert not checkpoints(tmp_path / "run" / "checkpoints")


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable; each has its own loopback and one interface, "wire"."""
    names = tuple(f"heptapod{os.getpid()}{side}" for side in "ab")
    commands = [
        *(["ip", "netns", "add", name] for name in names),
        ["ip", "link", "add", "wire", "netns", names[0], "type", "veth", "peer", "name", "wire", "netns", names[1]],
        *(["ip", "-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", "wire"] for n, name in enumerate(names, 1)),
        *(["ip", "-n", name, "link", "set", dev, "up"] for name in names for dev in ("lo", "wire")),
    ]
    try:
        for command in commands:
            if shutil.which("ip") is None or subprocess.run(command, capture_output=True, check=False).returncode:
                pytest.skip("network namespaces need root and iproute2")
        yield names[0], names[1]
    finally:
        for name in names:
            if shutil.which("ip"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_two_hosts_until_the_cable_is_cut(recipe: str, tmp_path: Path, hosts: tuple[str, str]) -> None:
    out, port, timeout = tmp_path / "run", str(free_port()), 8
    arguments = ["train", recipe, "--out", str(out), "--train.steps", "100000", "--train.timeout", str(timeout)]
    shared = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    processes = [
        subprocess.Popen(
            ["ip", "netns", "exec", host, sys.executable, "-m", "heptapod", *arguments],
            env=environment(**shared, RANK=str(rank), GLOO_SOCKET_IFNAME="wire"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, host in enumerate(hosts)
    ]  # fmt: skip
    wait_for_step(out, 30, processes[0])
    subprocess.run(["ip", "-n", hosts[1], "link", "set", "wire", "down"], check=True)
    began = time.monotonic()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2, errors
        assert "another process is gone, or did not answer in time (train.timeout)" in errors
        assert "Traceback" not in errors
    assert time.monotonic() - began < 2 * timeout
    found = find_checkpoint(out / "checkpoints")
    assert found is not None
    assert found.name >= "step-00000030"
