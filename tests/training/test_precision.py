"""The arithmetic of a training: what auto is on a device, and in a run that is resumed."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import pytest
import torch

from heptapod import load_recipe
from heptapod.tools.ablation.plan import Plan, with_precision_of
from heptapod.tools.bench.config import TrainingBench
from heptapod.tools.bench.training import settings_of
from heptapod.tools.planning.gpus import find_gpu
from heptapod.tools.planning.memory import training_dtype
from heptapod.tools.planning.plan import Hardware, make_plan, to_json
from heptapod.training import precision
from heptapod.training.config import TrainConfig
from heptapod.training.precision import arithmetic, has_bfloat16, resolve_precision
from heptapod.training.recipe import Recipe
from heptapod.training.run import train_model, train_tokenizer
from heptapod.utils.config import from_dict, to_dict
from heptapod.utils.yaml_text import read_yaml
from tests.conftest import write_classes
from tests.tools.planning.steps import training_setup
from tests.training.test_resume import TINY
from tests.training.test_trainer import Stop, final_bytes, stop_at

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def cpu_with(monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
    """A CPU that has bfloat16, or has not."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: device != CPU or bfloat16)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "photos", 6)


def recipe(folder: Path, data: Path, asked: str = "auto", kind: str = "pixel") -> Recipe:
    vq = {"kind": "vq", "width": 8, "codebook_size": 8, "code_width": 2}
    tokenizer = {"model": vq, "train": {"steps": 1}} if kind == "vq" else TINY["tokenizer"]
    train = {**TINY["train"], "precision": asked}
    return load_recipe({**TINY, "tokenizer": tokenizer, "train": train, "data": {**TINY["data"], "path": str(data)},
                        "out": str(folder)}, [])  # fmt: skip


def recorded(folder: Path) -> tuple[str, str]:
    values = read_yaml(folder / "config.yaml")
    return values["train"]["precision"], values["tokenizer"]["train"]["precision"]


def test_auto_is_the_arithmetic_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainConfig().precision == "auto"
    for capable, expected in ((True, "bfloat16"), (False, "float32")):
        cpu_with(monkeypatch, capable)
        assert arithmetic(TrainConfig(), CPU) == expected
        assert arithmetic(TrainConfig(), GPU) == "bfloat16"
        assert arithmetic(TrainConfig(precision="bfloat16"), CPU) == "bfloat16"
        assert arithmetic(TrainConfig(precision="float32"), GPU) == "float32"


def test_what_a_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_bfloat16(CPU) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert has_bfloat16(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not has_bfloat16(GPU)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_bfloat16(CPU)


@pytest.mark.parametrize("began", ["float32", "bfloat16"])
def test_a_resumed_run_keeps_its_arithmetic_to_the_bit(
    began: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heptapod")
    train_model(recipe(tmp_path / "whole", photos, began))
    caplog.clear()
    cpu_with(monkeypatch, began == "bfloat16")
    with monkeypatch.context() as patched, pytest.raises(Stop):
        stop_at(patched, 3)
        train_model(recipe(tmp_path / "run", photos))
    assert recorded(tmp_path / "run") == (began, began)
    chosen = "train.precision: float32; this CPU has no instructions for bfloat16"
    assert caplog.text.count(chosen) == (began == "float32")
    cpu_with(monkeypatch, began != "bfloat16")  # another machine
    train_model(recipe(tmp_path / "run", photos))
    assert ("train.precision: bfloat16, but this CPU" in caplog.text) == (began == "bfloat16")
    assert recorded(tmp_path / "run") == (began, began)
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "whole")
    other = "float32" if began == "bfloat16" else "bfloat16"
    with pytest.raises(ValueError, match=rf"holds a run with train\.precision = '?{began}'?, now '?{other}'? is given"):
        train_model(recipe(tmp_path / "run", photos, other))


def test_a_tokenizer_keeps_its_arithmetic(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_with(monkeypatch, False)
    train_tokenizer(recipe(tmp_path / "run", photos, kind="vq"))
    assert recorded(tmp_path / "run" / "tokenizer")[1] == "float32"
    cpu_with(monkeypatch, True)
    found = resolve_precision(recipe(tmp_path / "run", photos, kind="vq"), CPU)
    assert (found.train.precision, found.tokenizer.train.precision) == ("bfloat16", "float32")
    train_tokenizer(recipe(tmp_path / "run", photos, kind="vq"))  # is the same run


def test_bfloat16_on_a_cpu_without_it_is_warned_of(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu_with(monkeypatch, False)
    train_model(recipe(tmp_path / "run", photos, "bfloat16"))
    warned = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    assert [text.partition(",")[0] for text in warned] == ["train.precision: bfloat16"]
    assert recorded(tmp_path / "run") == ("bfloat16", "float32")


def test_plans_are_of_gpus_and_benchmarks_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--model.depth", "1", "--model.head.depth", "1", "--device", "cpu"]
    setup = training_setup("cross", *small)
    assert setup.recipe.train.precision == "auto"
    for capable, expected in ((True, "bfloat16"), (False, "float32")):
        cpu_with(monkeypatch, capable)
        assert settings_of(TrainingBench(), setup)["precision"] == expected
        assert training_dtype(setup, "cpu") == getattr(torch, expected)
        assert training_dtype(setup) == torch.bfloat16
    given = training_setup("cross", *small, "--train.precision", "bfloat16")
    auto, bfloat16 = (to_json(make_plan(what, Hardware(find_gpu("h100")))) for what in (setup, given))
    assert auto == bfloat16
    assert auto["training"]["precision"] == "bfloat16"


def test_all_runs_of_a_study_compute_alike(photos: Path, tmp_path: Path) -> None:
    arm = {"parameters": 1, "relative_time": 1.0, "seconds_per_step": 1.0}
    before = to_dict(from_dict(Plan, {"arms": {"a": arm}, "first": "a", "hardware": {}}))  # of 0.1
    assert with_precision_of(before, recipe(tmp_path, photos)).train.precision == "bfloat16"
    for asked, expected in (("auto", "float32"), ("bfloat16", "bfloat16")):
        of_plan = with_precision_of({**before, "precision": "float32"}, recipe(tmp_path, photos, asked))
        assert of_plan.train.precision == expected
