"""Everything that has to be known of a machine with a GPU, in one run: ``scripts/gpu_report.sh``.

    scripts/gpu_report.sh                 # at most nine minutes on an H100; writes gpu-report/report.md and report.json
    scripts/gpu_report.sh --dry           # the same parts at toy sizes, on any machine

The parts run one after another, each as a command with a time limit. A part that fails or takes too long is reported
with the end of its output, and the others still run. The exit code is 1 if any part did not succeed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import provenance

from heptapod.tools.bench.results import describe_hardware, hardware
from heptapod.utils.files import read_json, write_atomically, write_json

ROOT = Path(__file__).parents[1]
GRACE = 15.0
"""Seconds that a part has to end after its time limit."""
TAIL = 2000
"""Characters of the output of a failed part that the report shows."""


@dataclass(frozen=True)
class Part:
    """A command of the report."""

    name: str
    command: list[str]
    """Module and arguments."""
    seconds: float
    """Time limit."""
    result: Path | None = None
    """The JSON file that the command writes."""
    page: Path | None = None
    """The Markdown file that it writes."""
    may_stop: bool = False
    """At the time limit it is requested to save and stop, and has succeeded."""


TESTS = "tests/gpu tests/sampling/test_global.py -k gpu"


def parts(out: Path, data: str | None, dry: bool) -> list[Part]:
    """The parts of the report, in order. The time limits add up to less than nine minutes."""
    device = "--device cpu" if dry else "--device cuda"
    speed = "--sizes B L --grids 16 --batches 1 32 128 --steps 8 16 64 all --max-seconds 6"
    speed = "--sizes tiny --grids 4 --batches 1 2 --steps 2 all" if dry else speed
    sizes = [f"imagenet256_{size}_{kind}_cross" for size in ("b", "l") for kind in ("vq", "vae")]
    batch = "--train.batch-size 8 --rounds 1" if dry else "--train.batch-size 64 --train.accumulation 1 --rounds 5"
    recipe, source = ("demo", data or "mnist5k") if dry or not data else ("cifar10", data)
    steps = "--train.steps 4 --tokenizer.train.steps 4" if dry else ""
    count = 20 if dry else 2000

    def part(name: str, text: str, *paths: Path | str, seconds: float, **files: Any) -> Part:
        """``text`` with its {} replaced by paths, which may contain spaces."""
        rest = iter(map(str, paths))
        command = [next(rest) if word == "{}" else word for word in f"{text} {device}".split()]
        return Part(name, command, seconds, **files)

    def benchmark(name: str, kind: str, text: str, seconds: float) -> Part:
        folder = out / name.replace(" ", "_")
        files = {"result": folder / f"{kind}.json", "page": folder / f"{kind}.md"}
        return part(name, f"heptapod bench {kind} {text} --out {{}}", folder, seconds=seconds, **files)

    compiled = "--train.compile true"
    variants = "--models own next_token --max-seconds 8"
    models = "--models cross next_token --precisions float32 bfloat16 --repeats 2"
    real, run, evaluation = out / "reference.safetensors", out / "run", out / "evaluation"
    return [
        Part("tests", f"pytest -q --no-cov -p no:cacheprovider {TESTS}".split(), 75),
        benchmark("sampling", "sampling", f"{speed} {models}", 90),
        *(
            benchmark(f"training {name}", "training", f"{name} {variants} {batch} --train.compile false", 20)
            for name in (["demo"] if dry else sizes)
        ),
        *([] if dry else [benchmark("compiled training", "training", f"{sizes[0]} {variants} {batch} {compiled}", 60)]),
        part(
            f"train {recipe}", f"heptapod train {recipe} --data {{}} {steps} --out {{}}", source, run,
            seconds=135, result=run / "training.json", may_stop=True,
        ),
        part("reference", f"heptapod reference {{}} --count {count} --out {{}}", source, real, seconds=40),
        part(
            "evaluate",
            f"heptapod evaluate {{}} --reference {{}} --metrics kernel --count {count} --out {{}}",
            run, real, evaluation, seconds=40, result=evaluation / "evaluation.json",
        ),
    ]  # fmt: skip


def _stop(process: subprocess.Popen[str]) -> str:
    """Stops a part: SIGTERM, on which a training saves, and SIGKILL after ``GRACE`` seconds; returns its output."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            return process.communicate(timeout=GRACE)[0]
        except subprocess.TimeoutExpired:
            continue
    return "(its output cannot be read)"


def run_part(part: Part) -> dict[str, Any]:
    """Runs a part and returns what came of it; ``error`` is None where it succeeded."""
    print(f"{part.name}: {shlex.join(part.command)}", file=sys.stderr, flush=True)
    started, error = time.perf_counter(), None
    # A session of its own, so that a part ends with all processes that it started.
    process = subprocess.Popen(
        [sys.executable, "-m", *part.command],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=part.seconds)
        error = f"exit code {process.returncode}" if process.returncode else None
    except subprocess.TimeoutExpired:
        output = _stop(process)
        stopped = part.may_stop and process.returncode in (0, 143, -signal.SIGTERM)
        error = None if stopped else f"longer than {part.seconds:.0f} s, then exit code {process.returncode}"
    result = part.result if part.result is not None and error is None and part.result.is_file() else None
    return {
        "command": shlex.join(part.command),
        "seconds": time.perf_counter() - started,
        "error": error,
        "output": output[-TAIL:],
        "result": result and read_json(result),
    }


def page(report: dict[str, Any], planned: list[Part]) -> str:
    """The report as Markdown."""
    rows = [
        f"| {name} | {found['seconds']:.0f} | {found['error'] or 'succeeded'} |"
        for name, found in report["parts"].items()
    ]
    text = [
        "# GPU report" + (" (dry run: toy sizes, no figure means anything)" if report["dry"] else ""),
        f"{report['machine']}. Commit {report['provenance']['commit']}, torch {torch.__version__}.",
        "| part | seconds | outcome |\n|---|---|---|\n" + "\n".join(rows),
    ]
    for part in planned:
        found = report["parts"][part.name]
        if found["error"]:
            text.append(f"## {part.name}: {found['error']}\n\n```\n{found['output']}\n```")
        elif part.page is not None:
            text.append(part.page.read_text(encoding="utf-8").replace("\n## ", "\n### ").replace("# ", "## ", 1))
        elif part.name == "tests":
            text.append(f"## Tests\n\n```\n{found['output'].strip().splitlines()[-1]}\n```")
        elif part.name == "evaluate":
            figures = found["result"]["metrics"]
            text.append(f"## Quality\n\n{found['command']}:\n\n```\n{json.dumps(figures, indent=2)}\n```")
        elif part.may_stop:
            figures = found["result"]
            done = f"{figures['step']:,} steps, held-out loss {figures['best_val_loss']:.4f}" if figures else "stopped"
            text.append(f"## {part.name}\n\n{done} after {found['seconds']:.0f} s.")
    return "\n\n".join(text) + "\n"


def main() -> int:
    """Runs all parts and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="folder to write (gpu-report)")
    parser.add_argument("--data", help="images to train cifar10 on; without, the demo trains on built-in digits")
    parser.add_argument("--dry", action="store_true", help="toy sizes on the CPU, to try the script itself")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        parser.error("no GPU is visible to torch; --dry tries the script without one")
    if importlib.util.find_spec("pytest") is None:
        parser.error("pytest is not installed: pip install 'heptapod[dev]', or make .venv")
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"--out {options.out} is not empty; choose another folder, or remove it")
    options.out.mkdir(parents=True, exist_ok=True)
    data = options.data and (str(Path(options.data).resolve()) if Path(options.data).exists() else options.data)
    planned = parts(options.out.resolve(), data, options.dry)
    device = torch.device("cpu" if options.dry else "cuda")
    report: dict[str, Any] = {
        "provenance": provenance("scripts/gpu_report.sh" + " --dry" * options.dry),
        "machine": describe_hardware(hardware(device)),
        "dry": options.dry,
        "parts": {},
    }
    for part in planned:
        report["parts"][part.name] = run_part(part)
        write_json(options.out / "report.json", report)  # what is known so far survives an interruption
    text = page(report, planned)
    write_atomically(options.out / "report.md", lambda path: path.write_text(text, encoding="utf-8"))
    failed = [name for name, found in report["parts"].items() if found["error"]]
    print(text if not failed else f"failed: {', '.join(failed)}")
    print(f"{options.out / 'report.md'}, {options.out / 'report.json'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
