"""Peak memory of an action, such as sampling.

On Linux this is the growth of the resident set, measured in a separate process. There the allocator returns every large
block as soon as it is free and the matrix library keeps no scratch buffers, so that no row hides memory that an earlier
one left behind. These settings would slow a timed run down. On a GPU, torch counts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from heptapod.tools.bench.cases import Case, Model, build, run, warm_up

logger = logging.getLogger(__name__)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE = 1 << 16
"""Blocks of at least this many bytes come from the system, not from the allocator's heap."""
_PROC = Path("/proc/self")


def cpu_peaks(cases: Sequence[Case], vocabulary: int, threads: int) -> list[int | None]:
    """Peak bytes above the weights of every row, each run once; None where the system does not report it."""
    if not sys.platform.startswith("linux") or not cases:
        return [None] * len(cases)
    request = {"cases": [dataclasses.asdict(case) for case in cases], "vocabulary": vocabulary, "threads": threads}
    return peaks_in_process("heptapod.tools.bench.memory", request, len(cases))


def peaks_in_process(module: str, request: dict[str, Any], count: int) -> list[int | None]:
    """Measures peaks in a separate process.

    Args:
        module: run as a program that reads ``request`` from standard input and writes a line of JSON for each peak.
        request: the cases, and the number of threads.
        count: number of expected peaks; missing ones are None.
    """
    command = [sys.executable, "-m", module]
    environment = {**os.environ, "MKL_DISABLE_FAST_MM": "1"}
    done = subprocess.run(
        command, input=json.dumps(request), stdout=subprocess.PIPE, text=True, env=environment, check=False
    )
    peaks: list[int | None] = [json.loads(line) for line in done.stdout.splitlines()][:count]
    if done.returncode:
        logger.info(f"peak memory: its process exited with code {done.returncode} after {len(peaks)} rows")
    return peaks + [None] * (count - len(peaks))


def cuda_peak(action: Callable[[], object], device: torch.device) -> int:
    """Peak bytes of an action above the memory allocated before it, as torch counts them."""
    gc.collect()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    action()
    return torch.cuda.max_memory_allocated(device) - before


def serve(peaks: Callable[[dict[str, Any]], Iterator[int | None]]) -> None:
    """The program of :func:`peaks_in_process`: reads the request and writes each peak as a line of JSON.

    Args:
        peaks: measures the peaks of a request, one at a time.
    """
    try:
        request: dict[str, Any] = json.load(sys.stdin)
        return_large_blocks()
        torch.set_num_threads(request["threads"])
        for peak in peaks(request):
            print(json.dumps(peak), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)


def sampling_peaks(request: dict[str, Any]) -> Iterator[int | None]:
    """The peak of every case of a request; a model is built once for consecutive cases."""
    built: tuple[str, str, str] | None = None
    model: Model | None = None
    for case in (Case(**values) for values in request["cases"]):
        if built != (case.size, case.model, case.precision) or model is None:
            model = None  # freed before the next one is built
            model = build(case.size, case.model, request["vocabulary"], torch.device("cpu"), case.precision)
            built = (case.size, case.model, case.precision)
            warm_up(model, case)
        yield peak_of(partial(run, model, case))


def return_large_blocks() -> None:
    """Makes the allocator of this process return every large block to the system as soon as it is free."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)


def peak_of(action: Callable[[], object]) -> int | None:
    """Growth of this process's resident set in an action, in bytes; None where the system does not report it."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    try:
        (_PROC / "clear_refs").write_text("5")  # resets the high-water mark
        before = _resident("VmRSS")
        if _resident("VmHWM") > before + 16 * _LARGE:  # the system accepts the write without effect
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
    serve(sampling_peaks)
