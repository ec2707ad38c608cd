"""Runs a command and keeps the JSON that it writes, with the command, the commit and the machine.

    python benchmarks/record.py likelihood_digits likelihood/likelihood.json heptapod likelihood runs/demo/last …

The first argument names the file in ``benchmarks/results``, from which the docs take their figures
(``tests/figures``).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from heptapod.tools.bench.results import describe_hardware, hardware
from heptapod.utils.files import read_json, write_json

ROOT = Path(__file__).parents[1]


def commit() -> str:
    """The commit of the code that runs; COMMIT where this is no clone."""
    if given := os.environ.get("COMMIT"):
        return given
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def provenance(command: str) -> dict[str, str]:
    """Where a results file comes from."""
    return {"command": command, "commit": commit(), "machine": describe_hardware(hardware())}


def main(name: str, written: str, *command: str) -> None:
    program = [sys.executable, "-m", "heptapod"] if command[0] == "heptapod" else [sys.executable]
    subprocess.run([*program, *command[1:]], check=True)
    results = {"provenance": provenance(shlex.join(command)), **read_json(Path(written))}
    write_json(ROOT / "benchmarks" / "results" / f"{name}.json", results)


if __name__ == "__main__":
    main(*sys.argv[1:])
