"""``heptapod doctor``: what it says of this installation and this machine."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch

from heptapod.cli import main
from heptapod.tools import doctor
from heptapod.training.recipe import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SIDE", {"cpu": 64})
    monkeypatch.setattr(doctor, "RECIPES", {"demo": doctor.RECIPES["demo"]})


def test_what_it_measures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "--json", "--device", "cpu", "--out", str(tmp_path / "not" / "there")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"] == torch.__version__
    assert found["gflops"]["float32"] > 0
    assert found["machine"]["free_disk_gib"] > 0
    assert not found["machine"]["compiles_blocks"]
    demo, recipe = found["training"]["demo"], load_recipe("demo")
    steps = demo["images_per_second"] * 60 * demo["minutes"] / recipe.train.batch_size
    assert demo["steps"] == int(steps)
    assert demo["share_of_recipe"] == pytest.approx(steps / recipe.train.steps)
    assert demo["cells"] == 49
    assert not (tmp_path / "not").exists(), "nothing is written"


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(doctor, "missing_extras", lambda: {"studio": ["fastapi", "uvicorn"]})
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "no instructions for it" in text
    assert "lacks fastapi, uvicorn: pip install 'heptapod[studio]'" in text
    assert "30 minutes of demo" in text


def test_a_training_that_fails_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(doctor, "training", fails)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor", "--device", "cpu"]) == 0
    assert "failed: CUDA out of memory" in capsys.readouterr().out


def test_missing_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "pyarrow":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor.missing_extras() == {"parquet": ["pyarrow"]}


def test_an_unknown_device_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "nothing"]) == 2
    assert "device: nothing given" in capsys.readouterr().err
