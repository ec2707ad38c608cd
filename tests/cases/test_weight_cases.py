"""Weights that once were saved unreadable, or made images without a word: see ../shared/cases."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from heptapod import Heptapod
from heptapod.utils.weights import NonFiniteError
from tests.cases.paths import case
from tests.small import CODES, small_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    small_model(CODES).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(monkeypatch: pytest.MonkeyPatch, script: Path, *arguments: Path) -> None:
    monkeypatch.setattr("sys.argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script))


def test_16_a_compiled_model_is_saved_as_it_is_loaded(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip#639, timm#2003."""
    run(monkeypatch, case("16-compiled-save") / "save_compiled.py", saved, tmp_path / "out")
    for name in ("config.json", "model.safetensors", "tokenizer/model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (saved / name).read_bytes()
    before, after = Heptapod.from_pretrained(saved), Heptapod.from_pretrained(tmp_path / "out")
    assert torch.equal(before.generate_tokens([2], seed=1), after.generate_tokens([2], seed=1))


def test_20_a_tiny_temperature_and_spoiled_weights_are_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """diffusers#6815, mar#29."""
    original = (case("20-nan-weights") / "nan.py").read_text()
    script = tmp_path / "nan.py"
    script.write_text(original.replace("[3]", "[2]"))  # a class that the model has
    with pytest.raises(
        ValueError, match=r"temperature: 1e-40 given; must be 0 \(the most likely code\) or at least 0\.0001"
    ):
        run(monkeypatch, script, saved)
    script.write_text(script.read_text().replace("1e-40", "1e-4"))
    with pytest.raises(NonFiniteError, match=r"sampling: .* not finite: token_embedding\.weight of its weights holds"):
        run(monkeypatch, script, saved)
    assert capsys.readouterr().out.count("tensor(") == 1, "the images before the weights were spoiled"
