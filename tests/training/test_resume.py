"""Runs that go on: with data that moved, and with more steps."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from heptapod import load_recipe
from heptapod.training.run import train_model, train_tokenizer
from heptapod.utils.files import read_json
from tests.conftest import write_classes
from tests.training.test_trainer import final_bytes

TINY: dict[str, Any] = {
    "device": "cpu",
    "data": {"image_size": 16},
    "tokenizer": {"model": {"kind": "pixel", "levels": 3}},
    "model": {"width": 16, "depth": 1, "num_heads": 2, "head": {"depth": 1}},
    "train": {
        "steps": 4, "batch_size": 4, "eval_every": 2, "eval_images": 4, "preview_every": 99, "save_every": 2,
        "warmup_steps": 1, "precision": "float32", "final_lr_ratio": 1.0,
    },
    "sampling": {"steps": 4},
}  # fmt: skip


def run(folder: Path, data: Path | str, *changes: str) -> dict[str, float]:
    return train_model(load_recipe(TINY, ["--data.path", str(data), "--out", str(folder), *changes]))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "photos", 6)


def test_the_same_folder_by_another_path_is_the_same_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    first = run(tmp_path / "run", photos)
    monkeypatch.chdir(tmp_path)
    for path in ("photos", "photos/", "./photos/../photos"):
        caplog.clear()
        assert run(tmp_path / "run", path) == first
        assert "model: already trained" in caplog.text


def test_data_that_moved_goes_on_and_other_data_do_not(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    run(tmp_path / "run", photos)
    before = final_bytes(tmp_path / "run")
    moved = photos.rename(tmp_path / "elsewhere")
    run(tmp_path / "run", moved)
    assert f"data.path: {moved} holds the same as {photos}" in caplog.text
    assert final_bytes(tmp_path / "run") == before
    assert read_json(tmp_path / "run" / "training.json")["step"] == 4
    assert read_json(tmp_path / "run" / "data.json")["path"] == str(moved)
    other = Path(shutil.copytree(moved, tmp_path / "other"))
    shutil.copy(other / "light" / "00.png", other / "dark" / "00.png")
    with pytest.raises(ValueError, match=r"that are not those \(of .*\) the run in .*run began with"):
        run(tmp_path / "run", other)
    assert (tmp_path / "run" / "training.json").is_file(), "nothing is lost"
    with pytest.raises(ValueError, match=r"holds a run with data\.validation_path = None, now .*other is given"):
        run(tmp_path / "run", moved, "--data.validation_path", str(other))


def test_a_finished_run_with_more_steps_trains_on(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    run(tmp_path / "whole", photos, "--train.steps", "8")
    run(tmp_path / "longer", photos)
    assert run(tmp_path / "longer", photos, "--train.steps", "8")["step"] == 8
    assert "train.steps: 8 in place of 4; the learning rate stays" in caplog.text
    assert final_bytes(tmp_path / "longer") == final_bytes(tmp_path / "whole")
    assert read_json(tmp_path / "longer" / "training.json")["step"] == 8
    with pytest.raises(ValueError, match=r"holds a run with train\.steps = 8, now 6 is given"):
        run(tmp_path / "longer", photos, "--train.steps", "6")


def test_a_cosine_that_becomes_longer_is_said(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    cosine = ["--train.final_lr_ratio", "0.01", "--train.learning_rate", "0.1"]
    run(tmp_path / "run", photos, *cosine)
    run(tmp_path / "run", photos, *cosine, "--train.steps", "7")
    assert "at step 4 the learning rate is now 0.0752, where it was 0.0258: the weights will be others" in caplog.text


def test_another_tokenizer_by_another_path_is_refused(photos: Path, tmp_path: Path) -> None:
    tokenizers = {}
    for name, seed in (("one", 0), ("two", 1)):
        vq = {"model": {"kind": "vq", "width": 8, "codebook_size": 8, "code_width": 2}, "train": {"steps": 1}}
        recipe = load_recipe(
            {**TINY, "tokenizer": vq, "seed": seed, "out": str(tmp_path / name)}, ["--data", str(photos)]
        )
        train_tokenizer(recipe)
        tokenizers[name] = tmp_path / name / "tokenizer" / "best"
    given = {name: ["--tokenizer.path", str(path)] for name, path in tokenizers.items()}
    run(tmp_path / "run", photos, *given["one"])
    copied = shutil.copytree(tokenizers["one"], tmp_path / "copied")
    assert run(tmp_path / "run", photos, "--tokenizer.path", str(copied))["step"] == 4
    with pytest.raises(
        ValueError, match=r"tokenizer\.path: .*two/tokenizer/best has the hash .* began with a tokenizer"
    ):
        run(tmp_path / "run", photos, *given["two"])


def test_a_tokenizer_trains_on_until_a_model_is_trained_on_its_tokens(photos: Path, tmp_path: Path) -> None:
    vq = {"model": {"kind": "vq", "width": 8, "codebook_size": 8, "code_width": 2}, "train": {"steps": 1}}
    values = {**TINY, "tokenizer": vq, "out": str(tmp_path / "run")}

    def recipe(steps: int) -> Any:
        return load_recipe(values, ["--data", str(photos), "--tokenizer.train.steps", str(steps)])

    train_tokenizer(recipe(1))
    train_tokenizer(recipe(2))
    assert read_json(tmp_path / "run" / "tokenizer" / "training.json")["step"] == 2
    train_model(recipe(2))
    with pytest.raises(ValueError, match=r"holds a run with tokenizer\.train\.steps = 2, now 3 is given"):
        train_tokenizer(recipe(3))


def test_more_minutes_train_a_finished_run_on(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    steps = run(tmp_path / "run", photos, "--train.minutes", "0.01")["step"]
    with pytest.raises(ValueError, match=r"train\.minutes = 0\.01, now 0\.005 is given"):
        run(tmp_path / "run", photos, "--train.minutes", "0.005")
    with pytest.raises(ValueError, match=r"train\.minutes = 0\.01, now None is given"):
        run(tmp_path / "run", photos)
    assert run(tmp_path / "run", photos, "--train.minutes", "0.01", "--train.steps", "77")["step"] == steps
    assert "model: already trained" in caplog.text, "steps have no effect"
    assert run(tmp_path / "run", photos, "--train.minutes", "0.02")["step"] > steps
    assert "train.minutes: 0.02 in place of 0.01" in caplog.text
