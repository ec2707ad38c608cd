"""Damaged inputs end in a result or one line of error; see tests/fuzz/__main__.py for running more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("kept.json")

FAULTY = """
import sys, time
from pathlib import Path
from tests.fuzz import harness

def raises(rng, folder):
    raise RecursionError("a traceback")

def hangs(rng, folder):
    time.sleep(60)

def grows(rng, folder):
    kept = b"x" * (400 << 20)
    return ["info", "missing"]

def exits(rng, folder):
    sys.exit(3)

def fine(rng, folder):
    return ["info", "missing"]

harness.SECONDS, harness.PEAK_MIB = 3.0, 500
inputs = [raises, hangs, grows, exits, fine]
for number, prepare in enumerate(inputs):
    harness.INPUTS[f"kind{number}"] = (prepare, 0.0)
harness.kind_of = "kind{}".format
base = Path(sys.argv[1])
outcomes = harness.fork_inputs(base, list(range(len(inputs))), "", 2, None)
for outcome in sorted(outcomes, key=lambda outcome: outcome.number):
    print(outcome.fault)
"""


def _python(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    environment.pop("HEPTAPOD_TRACEBACK", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )


def test_the_harness_sees_every_fault(tmp_path: Path) -> None:
    process = _python("-c", FAULTY, str(tmp_path), timeout=120)
    assert process.returncode == 0, process.stderr
    raised, hung, grown, exited, fine = process.stdout.split("\n")[:5]
    assert (raised, hung, exited, fine) == ("traceback", "more than 3 s", "traceback", "")
    assert grown.endswith(" MiB")


def test_a_thousand_inputs() -> None:
    """The first thousand, and those in which more inputs found a fault."""
    kept = json.loads(KEPT.read_text())["numbers"]
    numbers = ",".join(map(str, [*range(1000), *kept]))
    process = _python("-m", "tests.fuzz", "--numbers", numbers, timeout=1200)
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-2000:]
    assert " 0 failed" in process.stdout


@pytest.mark.skipif("HEPTAPOD_LONG_TESTS" not in os.environ, reason="half an hour: HEPTAPOD_LONG_TESTS=1")
def test_ten_thousand_inputs() -> None:
    process = _python("-m", "tests.fuzz", "--count", "10000", timeout=6 * 3600)
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-2000:]
