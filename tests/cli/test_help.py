"""``COMMAND --help`` needs no torch, which takes seconds and hundreds of megabytes to import."""

from __future__ import annotations

import subprocess
import sys

from heptapod.cli.app import COMMANDS
from tests.distributed.launch import environment

PROGRAM = """
import contextlib, io, sys
from heptapod.cli import main
for command in sys.argv[1].split(","):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main([*command.split(), "--help"])
    assert status == 0, command
    assert "usage: heptapod" in printed.getvalue(), command
    loaded = [name for name in ("torch", "numpy", "PIL") if name in sys.modules]
    assert not loaded, (command, loaded)
"""
FURTHER = ["train demo", "train cifar10_vae", "plan demo", "bench sampling", "bench training", "ablate digits"]


def test_help_imports_no_torch() -> None:
    commands = ",".join([*COMMANDS, *FURTHER])
    result = subprocess.run([sys.executable, "-c", PROGRAM, commands], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_a_reader_that_has_seen_enough() -> None:
    """``heptapod help | head -1``, and the same with a command's help: nothing on standard error."""
    for arguments in (["help"], ["train", "demo", "--help"]):
        command = [sys.executable, "-m", "heptapod", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
            assert process.stdout is not None
            process.stdout.close()
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait() == 141
