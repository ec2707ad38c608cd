"""Peak memory of an action, of sampling for one.

On Linux it is the growth of the resident set, measured in a process of its own: there the allocator gives every large
block back as soon as it is free and the matrix library keeps no scratch buffers, so that no row hides memory that an
earlier one has left behind. The same settings would slow a timed run down. On a GPU torch counts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from heptapod.tools.bench.cases import Case, Model, build, run, warm_up
from heptapod.utils.logging import say

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 16
"""Bytes from which a block is the system's, not the allocator's."""
_PROC = Path("/proc/self")


def cpu_peaks(cases: Sequence[Case], vocabulary: int, threads: int) -> list[int | None]:
    """Peak bytes above the weights of every row, each run once; None where this system cannot tell."""
    if not sys.platform.startswith("linux") or not cases:
        return [None] * len(cases)
    asked = {"cases": [dataclasses.asdict(case) for case in cases], "vocabulary": vocabulary, "threads": threads}
    return ask_process("heptapod.tools.bench.memory", asked, len(cases))


def ask_process(module: str, asked: dict[str, Any], count: int) -> list[int | None]:
    """Has another process measure peaks.

    Args:
        module: run as a program that reads ``asked`` from standard input and writes a line of JSON for each peak.
        asked: what to measure.
        count: peaks that are expected; those that did not come are None.
    """
    command = [sys.executable, "-m", module]
    environment = {**os.environ, "MKL_DISABLE_FAST_MM": "1"}
    done = subprocess.run(
        command, input=json.dumps(asked), stdout=subprocess.PIPE, text=True, env=environment, check=False
    )
    peaks: list[int | None] = [json.loads(line) for line in done.stdout.splitlines()][:count]
    if done.returncode:
        say(f"peak memory: the process that measures it ended with code {done.returncode} after {len(peaks)} rows")
    return peaks + [None] * (count - len(peaks))


def cuda_peak(model: Model, case: Case, device: torch.device) -> int:
    """Peak bytes above what is held before, as torch counts them."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(model, case)
    return torch.cuda.max_memory_allocated(device) - before


def main() -> None:
    """Reads the rows from standard input and writes the peak of each as a line of JSON."""
    asked: dict[str, Any] = json.load(sys.stdin)
    give_blocks_back()
    torch.set_num_threads(asked["threads"])
    held: tuple[str, str] | None = None
    model: Model | None = None
    for case in (Case(**values) for values in asked["cases"]):
        if held != (case.size, case.model) or model is None:
            model = None  # before the next one is built
            model = build(case.size, case.model, asked["vocabulary"], torch.device("cpu"))
            held = (case.size, case.model)
            warm_up(model, case)
        print(json.dumps(peak_of(partial(run, model, case))), flush=True)


def give_blocks_back() -> None:
    """Has the allocator of this process return every large block to the system as soon as it is free."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)


def peak_of(action: Callable[[], object]) -> int | None:
    """Bytes by which the resident set of this process grows in an action; None where this system cannot tell."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    try:
        (_PROC / "clear_refs").write_text("5")  # the high-water mark starts again from here
        before = _resident("VmRSS")
        if _resident("VmHWM") > before + 16 * _LARGE:  # a system that takes the word and does nothing
            return None
        action()
        return max(_resident("VmHWM") - before, 0)
    except (OSError, KeyError):
        return None


def _resident(name: str) -> int:
    lines = (_PROC / "status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(values[name].split()[0]) * 1024


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
