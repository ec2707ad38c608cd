"""Settings that once hung, filled the memory or ended in a traceback: one line now, at once."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from heptapod.cli import main
from heptapod.training.parallelize import Parallel
from heptapod.training.recipe import load_recipe
from tests.cases.paths import case

SECONDS = 5.0
"""The longest that a refusal takes, the machine being busy."""


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """The one line of a refused command."""
    started = time.monotonic()
    assert main(arguments) == 2
    assert time.monotonic() - started < SECONDS
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < 600
    return lines[0]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_aliases_that_stand_for_more_than_memory_holds(capsys: pytest.CaptureFixture[str]) -> None:
    file = case("fuzz/recipe-text-73fa40") / "r.yaml"
    message = refused(capsys, ["train", str(file), "--print-config"])
    assert "r.yaml: not a YAML file (line 6: more than 200,000 values, with aliases written out)" in message


def test_a_name_that_is_given_twice(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, ["train", str(case("fuzz/dup.yaml")), "--print-config"])
    assert "dup.yaml: not a YAML file (line 3: 'train' is given twice, first in line 1)" in message


def test_residual_blocks_beyond_reason(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, ["train", str(case("fuzz/recipe-train-5a5d63") / "r.yaml")])
    assert message.endswith("tokenizer.model.blocks: 2147483648 given, must be at least 1 and at most 100")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0cf757", "model.head.depth: 2147483648 given, must be at least 0 and at most 512"),
        ("6a01e6", "grid.width: '-0' given; input should be a valid integer"),
        (
            "cb741d",
            "tokenizer.width: 18446744073709551616 given, must be at least 8 and at most 16,384 and",
        ),
    ],
)
@pytest.mark.parametrize("command", ["sample", "info"])
def test_model_folders(capsys: pytest.CaptureFixture[str], command: str, name: str, message: str) -> None:
    folder = case(f"fuzz/model-config-{name}") / "m"
    assert message in refused(capsys, [command, str(folder)])


def test_a_depth_beyond_reason(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, ["plan", "demo", "--out", "plan.json", "--model.depth", "99999999999999999999"])
    assert message.endswith("model.depth: 99999999999999999999 given, must be at least 0 and at most 512")
    assert not Path("plan.json").exists()


def test_a_batch_beyond_reason(capsys: pytest.CaptureFixture[str]) -> None:
    model = Path("model")
    shutil.copytree(case("fuzz/model-config-0cf757") / "m", model)
    model.chmod(0o700)
    (model / "config.json").chmod(0o600)
    config = json.loads((model / "config.json").read_text())
    config["model"]["head"]["depth"] = 1
    (model / "config.json").write_text(json.dumps(config))
    arguments = ["sample", str(model), "--out", "o.png", "--count", "1", "--labels", "0", "--batch_size"]
    message = refused(capsys, [*arguments, "99999999999999999999"])
    assert message.endswith("batch_size: 99999999999999999999 given, must be at least 1 and at most 65,536")
    assert not Path("o.png").exists()


def test_compiling_says_that_it_takes_time(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It was taken for a hang; the first step takes about 110 s on one busy core."""
    train = load_recipe(str(case("fuzz/recipe-train-eec9e3") / "r.yaml")).tokenizer.train
    assert train.compile is True
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_: None)
    monkeypatch.setenv("CXX", "true")
    task: Any = SimpleNamespace(module=torch.nn.Linear(2, 2), losses=None, parts=[])
    caplog.set_level("INFO", "heptapod")
    Parallel(task, train, torch.device("cpu"))
    assert "compiling: the first steps take a minute or more" in caplog.text
    monkeypatch.setenv("CXX", "missing")
    with pytest.raises(ValueError, match="compile: a CPU needs a C\\+\\+ compiler, and missing is not there"):
        Parallel(task, train, torch.device("cpu"))
