"""``scripts/gpu_report.sh``: in its dry form here; nothing but a GPU can run it in earnest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_report import GRACE, Part, page, parts, run_part  # type: ignore[import-not-found]  # noqa: E402


@pytest.mark.parametrize("data", [None, "cifar10/train.parquet"])
def test_the_parts_take_less_than_nine_minutes(tmp_path: Path, data: str | None) -> None:
    planned = parts(tmp_path / "a folder", data, dry=False)
    assert str(tmp_path / "a folder" / "run") in planned[-1].command
    assert sum(part.seconds for part in planned) + GRACE < 9 * 60
    assert len({part.name for part in planned}) == len(planned)


def test_a_failing_part_is_reported_with_its_output() -> None:
    failing = Part("failing", ["heptapod", "info", "nowhere"], 60)
    slow = Part("slow", ["http.server", "0"], 1)
    stopped = Part("stopped", ["http.server", "0"], 1, may_stop=True)
    planned = [failing, slow, stopped]
    found = {part.name: run_part(part) for part in planned}
    assert [found[part.name]["error"] for part in planned] == [
        "exit code 2",
        "longer than 1 s, then exit code -15",
        None,
    ]
    report = {"dry": True, "machine": "one", "provenance": {"commit": "abc"}, "parts": found}
    text = page(report, planned)
    assert "nowhere: no such file or folder" in text
    assert "## stopped\n\nstopped after" in text


def test_a_dry_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [ROOT / "scripts" / "gpu_report.sh", "--dry", "--out", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report["parts"]) == ["tests", "sampling", "training demo", "train demo", "reference", "evaluate"]
    assert "kernel_distance" in (tmp_path / "report.md").read_text()
