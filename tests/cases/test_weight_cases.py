"""Weights that once were saved unreadable, or made images without a word: see ../shared/cases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from heptapod import Heptapod
from tests.cases.paths import case
from tests.small import CODES, small_model


def run(script: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_model(CODES).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_16_a_compiled_model_is_saved_as_it_is_loaded(saved: Path, tmp_path: Path) -> None:
    """open_clip#639, timm#2003."""
    result = run(case("16-compiled-save") / "save_compiled.py", saved, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    for name in ("config.json", "model.safetensors", "tokenizer/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (saved / name).read_bytes()
    before, after = Heptapod.from_pretrained(saved), Heptapod.from_pretrained(tmp_path / "out")
    assert torch.equal(before.generate_tokens([2], seed=1), after.generate_tokens([2], seed=1))


def test_20_a_tiny_temperature_and_spoiled_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    """diffusers#6815, mar#29."""
    script = case("20-nan-weights") / "nan.py"
    result = run(script, saved)
    assert result.returncode != 0
    assert "temperature: 1e-40 given; must be 0 (the most likely code) or at least 0.0001" in result.stderr
    warm = tmp_path / "warm.py"
    warm.write_text(script.read_text().replace("1e-40", "1e-4").replace("[3]", "[2]"))
    result = run(warm, saved)
    assert result.returncode != 0
    assert "sampling: the model's predictions are not finite: token_embedding.weight of its weights" in result.stderr
    assert result.stdout.count("tensor(") == 1, "the images before the weights were spoiled"
