"""Damaged checkpoints and caches that once ended in tracebacks: the cases fuzz/checkpoint-* and fuzz/cache-*."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from heptapod.cli.app import main
from heptapod.training.checkpoint import checkpoints, find_checkpoint
from heptapod.utils.files import sha256
from tests.cases.paths import case
from tests.cli.test_cli import TINY, fails, write_classes

SHORT = ["--train.steps", "4", "--train.save_every", "2", "--train.eval_every", "2", "--train.batch_size", "4"]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Trains a tiny model for four steps, with checkpoints of the second and the fourth."""
    write_classes(tmp_path / "images", 6)
    tokens = ["--tokenizer.model.kind", "pixel", "--tokenizer.model.levels", "3"]
    data = ["--data.path", str(tmp_path / "images"), "--data.image_size", "4", "--data.validation_fraction", "0.25"]
    return ["train", "cifar10", "--out", str(tmp_path / "run"), *data, *tokens, *TINY[10:], *SHORT]


@pytest.mark.parametrize("name", ["checkpoint-41b998", "checkpoint-7aaf11"])
def test_a_damaged_state_is_skipped_for_the_checkpoint_before(
    command: list[str], tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage = json.loads((case(f"fuzz/{name}") / "state.json").read_text())
    assert main(command) == 0
    first, last = checkpoints(tmp_path / "run" / "checkpoints")
    weights = sha256(tmp_path / "run" / "last" / "model.safetensors")
    state = json.loads((last / "state.json").read_text())
    if name.endswith("41b998"):
        state["best_val_loss"] = damage["best_val_loss"]
        problem = "best_val_loss: {} given"
    else:
        state["files"] = damage["files"]
        problem = "files"
    (last / "state.json").write_text(json.dumps(state))
    (tmp_path / "run" / "training.json").unlink()
    capsys.readouterr()
    assert main(command) == 0
    errors = capsys.readouterr().err
    assert f"{last} is damaged (state.json: {problem}" in errors
    assert "it is skipped and renamed to damaged-step-00000004" in errors
    assert "resuming from step 2" in errors
    assert sha256(tmp_path / "run" / "last" / "model.safetensors") == weights
    shutil.copy(last.with_name("damaged-step-00000004") / "state.json", first / "state.json")
    assert main([*command, "--train.resume", "2"]) == 2
    *_, warning, error = capsys.readouterr().err.splitlines()
    assert f"{first} is damaged" in warning
    assert error.startswith("heptapod: error: train.resume: 2 given, but the steps with a checkpoint")
    assert find_checkpoint(tmp_path / "run" / "checkpoints") == last


def test_metadata_of_another_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = case("fuzz/cache-28809e") / "c"
    command = ["train", "cifar10", "--data", str(cache), "--out", str(tmp_path / "run"), *TINY[10:]]
    fails(capsys, command, "shards/00000.safetensors: damaged, not a shard of a cache (size")
    assert not (tmp_path / "run").exists()


def test_codes_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = shutil.copytree(case("fuzz/cache-bfcb9a") / "c", tmp_path / "c")
    fails(capsys, ["info", str(cache)], "damaged, its tokens are no codes of 0 to 15")
    fails(capsys, ["info", str(cache), "--verify"], "shards/00001.safetensors: damaged (its checksum", 1)
    command = ["train", "cifar10", "--data", str(cache), "--out", str(tmp_path / "run"), *TINY[10:]]
    command += ["--data.image_size", "28"]
    fails(capsys, command, "its tokens are no codes of 0 to 15")
    assert not (tmp_path / "run").exists()


def test_a_grid_of_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = shutil.copytree(case("fuzz/cache-eb0fb6") / "c", tmp_path / "c")
    fails(capsys, ["info", str(cache)], "index.json: grid")
