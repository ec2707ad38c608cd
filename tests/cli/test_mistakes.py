"""Mistakes on the command line: one line on standard error, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from heptapod.cli import main
from heptapod.distributed.errors import one_line
from tests.cli.test_cli import fails_without_writing

MISTAKES = [
    (["paint"], "unknown command 'paint'"),
    (["trian", "demo"], "unknown command 'trian'; did you mean 'train'?"),
    (["train", "demo", "--data", "a", "b"], "unexpected argument 'b': --data takes one value, and 'a' is it"),
    (["sample", "m", "--cfg-scale", "3"], "unknown setting 'cfg_scale': there is no guidance"),
    (["train", "demo", "--sampling.guidance_scale", "3"], "unknown setting 'sampling.guidance_scale': there is no"),
    (["train", "demo", "--seed", "1:30"], "seed: '1:30' given; input should be a valid integer"),
    (["train", "demo", "--data", "even", "--out", "/"], "out: / given, the root of the file system"),
    (["train", "demo", "--train.learning_rate", "nan"], "train.learning_rate: 'nan' given; input should be a valid"),
    (["train", "demo", "--tokenizer.model.latent_channels", "3"], "latent_channels': it belongs to kind vae"),
    (["train", "demo", "--data", "even", "--model.width", "65536", "--model.depth", "512"], "which needs at least"),
    (["train", "demo", "--data", "even", "--tokenizer.model.width", "16384"], "which needs at least"),
    (["train", "demo", "--data", "even", "--train.batch-size", "1048576"], "which needs at least"),
    (
        ["tokenize", "m", "--data", "even", "--out", "c", "--crop-scale", "2"],
        "crop_scale: 2.0 given, but with",
    ),
    (
        ["sample", "m", "--count", "99999999999999999999"],
        "count: 99999999999999999999 given, must be at least 1",
    ),
    (["sample", "m", "--out", "mine.yaml/x.png"], "out: mine.yaml given, but mine.yaml is a file"),
    (["train", "demmo"], "recipe: demmo is neither a file nor one of"),
    (["train", "--out", "x"], "a recipe comes first"),
    (["train", "demo", "--data", "missing"], "data.path: missing does not exist"),
    (["train", "demo", "--data", "empty"], "data.path: empty holds no images"),
    (["train", "demo", "--train.stepz", "4"], "unknown setting 'train.stepz'; did you mean 'train.steps'?"),
    (["train", "mine.yaml"], "mine.yaml: unknown setting 'train.stepz'; did you mean 'train.steps'?"),
    (["train", "demo", "--data", "odd"], "image size 30×30 is not divisible by the tokenizer's factor 4"),
    (["train-tokenizer", "demo", "--data", "odd"], "is not divisible by the tokenizer's factor 4"),
    (["train", "demo", "--data", "odd", "--tokenizer.path", "empty"], "tokenizer.path: empty holds no trained"),
    (["train", "demo", "--device", "cuda:99"], "device: cuda:99 given, but there is no such device"),
    (["train", "demo", "--sampling.temperature", "-1"], "sampling.temperature: -1.0 given"),
    (["train", "demo", "--tokenizer.model", "pixel"], "tokenizer.model: 'pixel' given"),
    (["train-tokenizer", "demo", "--tokenizer.path", "x"], "tokenizer.path: x given, but this trains a tokenizer"),
    (["demo", "--data", "even"], "the demo is about mnist5k"),
    (["train", "demo", "--data", "even", "--sampling.steps", "99"], "steps: 99 given, must be between 1 and 64"),
    (
        ["train", "demo", "--data", "even", "--sampling.steps", "9", "--model.head.kind", "local"],
        "local head's window of 5 reaches 2",
    ),
    (["sample", "missing"], "missing: no such folder"),
    (["sample", "empty"], "empty: no model there"),
    (["info", "missing"], "missing: no such file or folder"),
    (["info", "empty"], "empty: neither a model, a tokenizer, a cache, a run, a checkpoint nor a set of images"),
    (["plan", "--gpus", "4"], "a recipe comes first"),
    (["plan", "nothing"], "recipe: nothing is neither a file nor one of"),
    (["plan", "demo", "--gpu", "h1000"], "gpu: h1000 given, must be one of a100-40"),
    (["plan", "demo", "--gpus", "48"], "nearest batch_size is 48"),
    (["plan", "demo", "--out", "plan.txt"], "out: plan.txt given, must be a .json file"),
    (["plan", "demo", "--model.widht", "8"], "unknown setting 'model.widht'"),
    (["plan", "demo", "--channels", "4", "--grid", "4x4"], "model.distribution.kind: categorical given"),
    (["bench"], "benchmark: none given, must be sampling or training"),
    (["bench", "speed"], "benchmark: 'speed' given, must be sampling or training"),
    (["bench", "sampling", "--sizes", "huge"], "sizes: huge given, must be among tiny, B, L, H"),
    (["bench", "sampling", "--models", "mar"], "models: mar given, must be among cross"),
    (["bench", "sampling", "--steps", "some"], "steps: some given"),
    (["bench", "sampling", "--batches", "0"], "batches: 0 given, must be at least 1"),
    (["bench", "sampling", "--device", "cuda:99"], "device: cuda:99 given"),
    (["bench", "sampling", "--out", "x.csv"], "out: x.csv given, must be a folder or a .json file"),
    (["bench", "training", "--rounds", "2"], "a recipe comes first"),
    (
        ["bench", "training", "demo", "--models", "global"],
        "models: global given, must be own, next_token, or a head with",
    ),
    (["bench", "training", "demo", "--models", "cross:0/3"], "models: cross:0/3 given"),
    (["bench", "training", "demo", "--rounds", "0"], "rounds: 0 given, must be at least 1"),
    (["bench", "training", "demo", "--max_seconds", "0"], "max_seconds: 0.0 given, must be above 0"),
    (["bench", "training", "demo", "--train.bach_size", "2"], "unknown setting 'train.bach_size'"),
    (["bench", "training", "demo", "--device", "cuda:99"], "device: cuda:99 given"),
    (["bench", "training", "demo", "--out", "x.csv"], "out: x.csv given, must be a folder or a .json file"),
]
"""Arguments, and what the message says."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: no images, images of 30×30 and of 32×32 pixels, a recipe with a wrong name."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for folder, side in (("odd", 30), ("even", 32)):
        Path(folder).mkdir()
        for number in range(4):
            Image.new("RGB", (side, side)).save(f"{folder}/{number}.png")
    Path("mine.yaml").write_text("train: {stepz: 3}\n")
    return tmp_path


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    fails_without_writing(capsys, arguments, message, place)


def test_a_machine_without_torch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heptapod.cli.app.importlib.util.find_spec", lambda _: None)
    assert main(["info", "x"]) == 2
    assert "PyTorch is not installed: pip install torch --index-url" in capsys.readouterr().err


def test_a_message_is_no_longer_than_a_few_lines() -> None:
    text = one_line(ValueError("first words " + "x" * 100_000 + " last words"))
    assert len(text) <= 600
    assert text.startswith("first words")
    assert text.endswith("last words")
