"""Ctrl+C: one line, exit code 130, nothing lost; and two commands on one folder."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heptapod.cli.app import COMMANDS, main
from heptapod.utils.files import locked
from heptapod.utils.interrupts import INTERRUPTED
from tests.cli.test_cli import TINY, fails, write_classes
from tests.distributed.launch import environment

START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from heptapod.cli import main; print('started', flush=True); sys.exit(main())"
)
"""A command that listens to Ctrl+C, also where these tests run in the background."""


def start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START, *arguments]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends(process: subprocess.Popen[str]) -> list[str]:
    """The lines on standard error of a process that Ctrl+C has ended."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, errors
    assert "Traceback" not in errors
    return [line for line in errors.splitlines() if line.strip()]


def test_ctrl_c_during_imports_is_one_quiet_line() -> None:
    process = start(["info", "nowhere"])
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert ends(process) == ["interrupted"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_quietly(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: list[str]) -> None:
        raise KeyboardInterrupt

    module, _, function = COMMANDS[command][0].partition(":")
    monkeypatch.setattr(f"heptapod.cli.{module}.{function}", interrupted)
    assert main([command]) == INTERRUPTED
    lines = capsys.readouterr().err.splitlines()
    resumes = command in ("demo", "train", "train-tokenizer", "tokenize", "ablate")
    assert lines == ["interrupted" + ("; run the same command again to resume" if resumes else "")]


@pytest.fixture
def training(tmp_path: Path) -> list[str]:
    write_classes(tmp_path / "images", 8)
    data = ["--data", str(tmp_path / "images"), "--data.image_size", "4", "--data.validation_fraction", "0.25"]
    return ["cifar10", *data, "--out", str(tmp_path / "run")]


PIXEL = ["--tokenizer.model.kind", "pixel", "--tokenizer.model.levels", "3", *TINY[10:]]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def test_ctrl_c_saves(training: list[str], tmp_path: Path) -> None:
    long = ["--train.steps", "100000", "--train.save_every", "100000", "--train.eval_every", "100000"]
    process = start(["train", *training, *PIXEL, *long])
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    *_, told, last = ends(process)
    assert told == "Ctrl+C: saving a checkpoint after this step (once more to stop without it)"
    step = re.fullmatch(r"stopped by Ctrl\+C after step ([\d,]+), which is saved; run .* again to resume", last)
    assert step is not None, last
    saved = tmp_path / "run" / "checkpoints" / f"step-{int(step.group(1).replace(',', '')):08d}"
    assert (saved / "state.json").is_file()


@pytest.mark.parametrize("command", ["train", "train-tokenizer"])
def test_a_second_run_in_a_folder_is_refused(
    training: list[str], tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run" / ("tokenizer" if command == "train-tokenizer" else "")
    arguments = [command, *training, *(PIXEL if command == "train" else [])]
    with locked(folder):
        fails(capsys, arguments, f"{folder}: another process is writing there (process ")
        assert {path.name for path in folder.iterdir()} == {".lock", ".lock-owner"}
    assert not folder.exists()
