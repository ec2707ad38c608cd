"""Runs each input in a forked process that has loaded everything, and judges how it ended."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.inputs import INPUTS, kind_of

SECONDS = 20.0
PEAK_MIB = 2048
HARD_LIMIT = 6 << 30
"""Bytes of address space beyond what is in use, so that a runaway input spares the machine."""
LONGEST_LINE = 600
CODES = (0, 2)
TRACEBACK = 77


@dataclass
class Outcome:
    """How an input ended."""

    number: int
    kind: str
    arguments: list[str]
    code: int
    seconds: float
    peak_mib: float
    output: str
    fault: str
    """Empty if all is well."""


@dataclass
class _Running:
    number: int
    folder: Path
    started: float
    killed: bool = False


def make_base(root: Path) -> None:
    """Makes the base files, in a process of its own: this one stays without threads, as forking needs."""
    child = os.fork()
    if child == 0:
        from tests.fuzz.base import make

        status = 1
        try:
            os.chdir(root)
            with (root / "base.log").open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                make(root)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"the base could not be made:\n{(root / 'base.log').read_text()[-2000:]}")
    (root / "base.log").unlink()


def fork_inputs(base: Path, numbers: list[int], kind: str, jobs: int, keep: Path | None) -> list[Outcome]:
    """Runs inputs, ``jobs`` at a time.

    Args:
        base: folder of the base files.
        numbers: of the inputs.
        kind: only inputs of this kind; empty: all.
        jobs: processes at a time.
        keep: where the folders of failed inputs are left.
    """
    _load_everything()
    waiting = [number for number in reversed(numbers) if not kind or kind_of(number) == kind]
    running: dict[int, _Running] = {}
    outcomes: list[Outcome] = []
    total = len(waiting)
    with tempfile.TemporaryDirectory() as root:
        while waiting or running:
            while waiting and len(running) < jobs:
                number = waiting.pop()
                folder = Path(root) / str(number)
                running[_start(base, folder, number)] = _Running(number, folder, time.monotonic())
            ended, status, usage = _wait(running)
            job = running.pop(ended)
            outcomes.append(_judge(job, status, usage.ru_maxrss / 1024))
            if outcomes[-1].fault and keep is not None:
                shutil.copytree(job.folder, keep / str(job.number), symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(job.folder, ignore_errors=True)
            if len(outcomes) % 100 == 0:
                print(
                    f"{len(outcomes)}/{total}, {sum(bool(o.fault) for o in outcomes)} failed",
                    file=sys.stderr,
                    flush=True,
                )
    return outcomes


def _load_everything() -> None:
    """Imports all modules of the package and the libraries that they load late."""
    import torch

    import heptapod

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(heptapod.__path__, "heptapod."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _start(base: Path, folder: Path, number: int) -> int:
    folder.mkdir()
    for source in base.iterdir():
        (folder / source.name).symlink_to(source)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        output = os.open(folder / "output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os._exit(_run(folder, number))
    finally:
        os._exit(TRACEBACK)


def _run(folder: Path, number: int) -> int:
    from heptapod.cli import main

    os.chdir(folder)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    prepare, _ = INPUTS[kind_of(number)]
    try:
        arguments = prepare(random.Random(number), folder)
        (folder / "arguments.txt").write_text("\0".join(arguments))
        resource.setrlimit(resource.RLIMIT_AS, (in_use + HARD_LIMIT, in_use + HARD_LIMIT))
        code = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        return code
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return TRACEBACK


def _wait(running: dict[int, _Running]) -> tuple[int, int, resource.struct_rusage]:
    """Waits for the next process to end; kills those that have run too long."""
    while True:
        for child, job in running.items():
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                return ended, status, usage
            if time.monotonic() - job.started > SECONDS and not job.killed:
                job.killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
        time.sleep(0.002)


def _judge(job: _Running, status: int, peak: float) -> Outcome:
    seconds = time.monotonic() - job.started
    output = (job.folder / "output.txt").read_text(errors="replace") if (job.folder / "output.txt").exists() else ""
    listed = job.folder / "arguments.txt"
    arguments = listed.read_text().split("\0") if listed.exists() else []
    code = os.waitstatus_to_exitcode(status)
    written = [name for name in ("out", "out.png", "out.json") if (job.folder / name).exists()]
    errors = [line for line in output.splitlines() if line.startswith("heptapod: error:")]
    fault = ""
    if job.killed:
        fault = f"more than {SECONDS:.0f} s"
    elif code not in CODES:
        fault = "traceback" if code == TRACEBACK else f"exit code {code}"
    elif peak > PEAK_MIB:
        fault = f"{peak:.0f} MiB"
    elif code and "Traceback (most recent call last)" in output:
        fault = "traceback printed"
    elif code and (len(errors) != 1 or not output.rstrip().splitlines()[-1].startswith("heptapod: error:")):
        fault = "no single line of error at the end"
    elif code and len(errors[0]) > LONGEST_LINE:
        fault = f"an error of {len(errors[0])} characters"
    elif code and written and not _resumable(arguments):
        fault = f"{', '.join(written)} written in spite of the error"
    return Outcome(job.number, kind_of(job.number), arguments, code, seconds, peak, output[-3000:], fault)


def _resumable(arguments: list[str]) -> bool:
    """Whether the command keeps what it has, to resume from it."""
    return bool(arguments) and arguments[0] in ("train", "train-tokenizer", "tokenize")
