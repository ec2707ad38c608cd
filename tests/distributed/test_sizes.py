"""A model of full size is spread over 64 processes and takes a step, with tensors that have no numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.launch import environment

WORKER = Path(__file__).with_name("fake_worker.py")


@pytest.mark.parametrize(
    ("recipe", "total"), [("imagenet256_h_vae", 939_628_064), ("imagenet256_h_vq_cross", 830_357_504)]
)
def test_size_h_takes_a_step(recipe: str, total: int) -> None:
    command = [sys.executable, str(WORKER), recipe, "64"]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts["total"] == total
    assert facts["with_gradient"] == facts["parameters"], "every parameter has a gradient, and only a share of it"
    assert facts["losses"] == [2, 2, 4]
    # Rows are dealt out, so the first process may have a few more than its share of every parameter.
    assert facts["total"] / 64 <= facts["share"] < 1.01 * facts["total"] / 64
    assert facts["moments"] == 2 * facts["share"]
    assert facts["ema"] == facts["share"]
