"""The command line, in this process: what it prints, writes and refuses."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from heptapod.cli.app import COMMANDS, main
from heptapod.data import DataConfig, load_images
from heptapod.inference.pipeline import Heptapod
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.sampling import SamplingConfig
from heptapod.training.recipe import recipe_names
from heptapod.utils.files import read_tensors
from tests.conftest import write_classes

TINY_TOKENIZER = [
    "--tokenizer.model.width", "8", "--tokenizer.model.codebook_size", "8", "--tokenizer.model.code_width", "4",
    "--tokenizer.train.steps", "6", "--tokenizer.train.batch_size", "8",
]  # fmt: skip
TINY_MODEL = [
    "--model.width", "16", "--model.depth", "1",
    "--model.num_heads", "1", "--model.head.depth", "1", "--train.steps", "6", "--train.batch_size", "8",
    "--train.precision", "float32", "--train.eval_every", "3", "--train.log_every", "1",
]  # fmt: skip
TINY = [*TINY_TOKENIZER, *TINY_MODEL]


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, line_count: int = 1) -> None:
    """Exit code 2 and one line on standard error that says what is wrong."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    assert message in lines[-1], err
    assert lines[-1].startswith("heptapod: error: ")
    assert len(lines) == line_count, err
    assert "Traceback" not in err
    assert not out


def fails_without_writing(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str, folder: Path) -> None:
    """The same, and every file of the folder is as it was."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    fails(capsys, arguments, message)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run on an image folder."""
    folder = tmp_path_factory.mktemp("cli")
    write_classes(folder / "images", 20)
    (folder / "images" / "dark" / "broken.png").write_bytes(b"x")
    arguments = ["train", "cifar10", "--data", str(folder / "images"), "--out", str(folder / "run"), *TINY]
    assert main([*arguments, "--data.image_size", "16"]) == 0
    return folder / "run"


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert "usage" in capsys.readouterr().out
    assert main(["train", "demo", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--model.head.depth" in text
    assert "targets-per-prefix" in text
    assert main(["--version"]) == 0


@pytest.mark.parametrize("name", recipe_names())
def test_print_config(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["train", name, "--model.head.depth", "4", "--print-config"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["model"]["head"]["depth"] == 4
    assert values["out"] == f"runs/{name}"


def test_train_writes_a_run(run_folder: Path) -> None:
    data = json.loads((run_folder / "data.json").read_text())
    assert data["unreadable_images"] == 1
    assert data["unreadable"][0].startswith("dark/broken.png: ")
    assert data["train_images"] + data["held_out_images"] == 40
    training = json.loads((run_folder / "training.json").read_text())
    assert training["step"] == 6
    assert training["val_nats_per_token"] > 0
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["train"]["steps"] == 6
    assert Image.open(run_folder / "samples" / "step-00000006.png").size[0] > 8 * 48


def test_the_same_command_again_has_nothing_to_do(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = str(run_folder.parent / "images")
    arguments = ["train", "cifar10", "--data", images, "--out", str(run_folder), *TINY, "--data.image_size", "16"]
    assert main(arguments) == 0
    assert "already trained" in capsys.readouterr().err
    fails(capsys, [*arguments, "--train.learning_rate", "0.5"], "holds a run with train.learning_rate = 0.003")
    fails(capsys, [*arguments, "--sampling.temperature", "0.3"], "holds a run with sampling.temperature = 0.95")


def test_other_images_are_another_run(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(run_folder.parent / "images", tmp_path / "images")
    arguments = ["train-tokenizer", "cifar10", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "run")]
    arguments += [*TINY_TOKENIZER, "--data.image_size", "16"]
    assert main(arguments) == 0
    assert "1 image(s) could not be read" in capsys.readouterr().err
    (tmp_path / "run" / "tokenizer" / "training.json").unlink()
    (tmp_path / "images" / "dark" / "broken.png").write_bytes((tmp_path / "images/dark/00.png").read_bytes())
    fails(capsys, arguments, "are not those (of 39 and 1) the run in")


def test_train_tokenizer_then_use_it(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = str(run_folder.parent / "images")
    common = ["cifar10", "--data", images, "--data.image_size", "16"]
    assert main(["train-tokenizer", *common, *TINY_TOKENIZER, "--out", str(tmp_path / "a")]) == 0
    assert json.loads((tmp_path / "a/tokenizer/training.json").read_text())["val_psnr"] > 0
    given = ["--tokenizer.path", str(tmp_path / "a")]
    assert main(["train", *common, *TINY_MODEL, "--out", str(tmp_path / "b"), *given]) == 0
    assert not (tmp_path / "b" / "tokenizer").exists()
    assert main(["sample", str(tmp_path / "b"), "--count", "1", "--out", str(tmp_path / "s.png")]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"]["trained"]["val_psnr"]
    assert main(["info", str(tmp_path / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"]["kind"] == "model"


def test_sample(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pictures"
    arguments = ["sample", str(run_folder), "--labels", "light", "0", "--count", "3", "--steps", "4", "--seed", "7"]
    assert main([*arguments, "--out", str(out), "--belief", str(tmp_path / "belief.png")]) == 0
    record = json.loads((out / "samples.json").read_text())
    assert record["labels"] == [1, 1, 1, 0, 0, 0]
    assert record["seeds"] == list(range(7, 13))
    assert record["sampling"]["steps"] == 4
    assert record["guidance"] is None
    assert sorted(path.name for path in out.glob("0*.png")) == [f"{i:05d}.png" for i in range(6)]
    assert Image.open(out / "00000.png").size == (16, 16)
    assert Image.open(tmp_path / "belief.png").size[0] > 5 * 112
    assert main([*arguments, "--out", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").read_bytes() == (out / "samples.png").read_bytes()


def test_a_record_holds_the_precision(run_folder: Path, tmp_path: Path) -> None:
    halves, again = tmp_path / "half", tmp_path / "again"
    assert main(["sample", str(run_folder), "--count", "1", "--precision", "bfloat16", "--out", str(halves)]) == 0
    record = json.loads((halves / "samples.json").read_text())
    assert record["precision"] == "bfloat16"
    assert main(["sample", "--from", str(halves / "samples.json"), "--out", str(again)]) == 0
    assert (again / "samples.png").read_bytes() == (halves / "samples.png").read_bytes()


def test_sample_another_size_with_a_trace(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "wide.png"
    arguments = ["sample", str(run_folder), "--count", "2", "--size", "8x24", "--schedule", "1,2,3,6"]
    assert main([*arguments, "--out", str(out), "--trace", str(tmp_path / "how.gif")]) == 0
    assert "trained on 16×16 (4×4 cells) only" in capsys.readouterr().err
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["image_size"] == [8, 24]
    assert record["sampling"]["schedule"] == [1, 2, 3, 6]
    with Image.open(tmp_path / "how.gif") as gif:
        assert gif.n_frames == 5
    assert Image.open(tmp_path / "how.png").size[0] > 4 * 112


def test_sample_compiled(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(HeptapodModel, "compile_blocks", lambda model: asked.append(model))
    arguments = ["sample", str(run_folder), "--count", "1", "--steps", "2", "--out", str(tmp_path / "x.png")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "x.json").read_text())["compiled"] is False
    assert not asked
    assert main([*arguments, "--compile"]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["compiled"] is True
    assert len(asked) == 1


def test_compiling_needs_a_compiler(
    run_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    fails(
        capsys, ["sample", str(run_folder), "--compile"], "compile: a CPU needs a C++ compiler, and no-such-compiler is"
    )


def test_saved_settings_can_be_undone(run_folder: Path, tmp_path: Path) -> None:
    model = Heptapod.from_pretrained(run_folder)
    config = ModelConfig(width=16, depth=1, num_heads=1, head=HeadConfig("global", 1))
    how = SamplingConfig(approximate_head=True, steps=2)
    net = build_model(config, model.model.grid, 2, 0)
    Heptapod(net, model.tokenizer, model.class_names, sampling=how).save_pretrained(tmp_path / "m")
    for flags, expected in (([], True), (["--approximate_head", "False"], False)):
        arguments = ["sample", str(tmp_path / "m"), "--count", "1", *flags, "--out", str(tmp_path / "x.png")]
        assert main(arguments) == 0
        assert json.loads((tmp_path / "x.json").read_text())["sampling"]["approximate_head"] is expected


def test_info(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = next((run_folder / "checkpoints").iterdir())
    expected = {
        run_folder: "run",
        run_folder / "best": "model",
        run_folder / "tokenizer": "run",
        run_folder / "tokenizer" / "best": "tokenizer",
        checkpoint: "checkpoint",
        run_folder / "best" / "model.safetensors": "tensors",
    }
    for path, kind in expected.items():
        capsys.readouterr()
        assert main(["info", str(path), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["kind"] == kind
        assert main(["info", str(path)]) == 0
    assert json.loads(json.dumps(facts))["shapes"]["token_embedding.weight"] == [8, 16]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "2"], "label: 2 given, must be between 0 and 1"),
        (["--labels", "cow"], "label: 'cow' is no class of this model (dark, light)"),
        (["--steps", "0"], "steps: 0 given, must be at least 1"),
        (["--steps", "17"], "steps: 17 given, must be between 1 and 16"),
        (["--temperature", "-1"], "temperature: -1.0 given"),
        (["--top_p", "2"], "top_p: 2.0 given"),
        (["--count", "0"], "count: 0 given"),
        (["--seed", "-3"], "seed: -3 given"),
        (["--batch_size", "0"], "batch_size: 0 given"),
        (["--out", "x.jpg"], "out: x.jpg given, pictures are written as .png"),
        (["--belief", "b.jpg"], "belief: b.jpg given"),
        (["--trace", "b.png"], "trace: b.png given, animations are written as .gif"),
        (["--size", "16"], "size: 16 given, must be HEIGHTxWIDTH in pixels"),
        (["--size", "16x15"], "image size 16×15 is not divisible by the tokenizer's factor 4; try 12 or 16"),
        (["--size", "0x16"], "image size 0×16: must be at least 4 pixels each way"),
        (["--schedule", "4,x"], "schedule: '4,x' given, must be cosine, constant or numbers like 1,2,4,8"),
        (["--schedule", "4,4"], "schedule: [4, 4] given, needs positive numbers with sum 16 (the cells to fill)"),
        (["--schedule", "0,16"], "schedule: [0, 16] given"),
        (["--trace", "x.gif", "--out", "x.png"], "trace: x.png would be written over out's picture; name another"),
        (["--trace", "y.gif", "--belief", "y.png"], "trace: y.png would be written over belief's picture"),
        (["--out", "d", "--belief", "d/00001.png"], "belief: d/00001.png would be written over out's picture"),
        (["--size", "4000x4000"], "size: 4000×4000 given, must have at most 65,536 cells"),
        (["--approximate_head", "True"], "approximate_head: given, but sampling with a CrossHead is exact"),
    ],
)
def test_sampling_mistakes(
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    arguments = ["sample", str(run_folder), "--out", str(tmp_path / "x.png"), *arguments]
    fails_without_writing(capsys, arguments, message, tmp_path)


def test_damaged_weights(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(run_folder / "best", tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    out = str(tmp_path / "x.png")
    fails(capsys, ["sample", str(tmp_path / "m"), "--out", out], "model.safetensors: truncated or damaged")
    fails(capsys, ["info", str(weights)], "model.safetensors: truncated or damaged")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["model"]["width"] = 32
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    shutil.copy(run_folder / "best" / "model.safetensors", weights)
    fails(capsys, ["sample", str(tmp_path / "m"), "--out", out], "weights of another architecture")
    assert not (tmp_path / "x.png").exists()


def test_wrong_flags_are_answered_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["sample", "x", "--stepz", "3"], "unknown setting 'stepz'; did you mean 'steps'?")
    fails(capsys, ["sample", "x", "--steps", "three"], "steps: 'three' given")
    fails(capsys, ["sample", "x", "--steps"], "steps: no value given; write --steps VALUE")
    fails(
        capsys,
        ["sample", "x", "--labels", "1", "--labels=0"],
        "labels: given twice; write all values after one --labels",
    )


def test_export_gives_the_weights_of_a_checkpoint(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(run_folder), "--out", str(tmp_path / "ema")]) == 0
    last = read_tensors(run_folder / "last" / "model.safetensors")
    found = read_tensors(tmp_path / "ema" / "model.safetensors")
    assert found.keys() == last.keys()
    assert all(torch.equal(found[name], last[name]) for name in last)
    assert main(["sample", str(tmp_path / "ema"), "--count", "1", "--out", str(tmp_path / "images")]) == 0
    assert main(["export", str(run_folder), "--weights", "model", "--out", str(tmp_path / "model")]) == 0
    trained = read_tensors(tmp_path / "model" / "model.safetensors")
    assert not all(torch.equal(trained[name], last[name]) for name in last)
    fails(
        capsys, ["export", str(run_folder), "--step", "5", "--out", str(tmp_path / "x")], "there are checkpoints of 6"
    )
    fails(capsys, ["export", str(tmp_path), "--out", str(tmp_path / "x")], "no checkpoints there")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "code",
    [
        "import heptapod",
        "from heptapod.cli import main; main(['--help'])",
        "from heptapod.cli import main; main(['--version'])",
    ],
)
def test_help_loads_no_torch(code: str) -> None:
    """In a new interpreter: names and commands are imported on use."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "heptapod" in imported
    assert not imported & {"torch", "numpy", "pydantic", "tyro", "rich"}


def test_embedding_code_sees_no_output(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The library prints nothing, and a command leaves the logger as it was."""
    logger = logging.getLogger("heptapod")
    before = (logger.level, list(logger.handlers))
    assert main(["train", "demo", "--print-config"]) == 0
    assert (logger.level, list(logger.handlers)) == before
    write_classes(tmp_path / "images", 4)
    (tmp_path / "images" / "dark" / "broken.png").write_bytes(b"x")
    capfd.readouterr()
    load_images(DataConfig(str(tmp_path / "images")))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train-tokenizer", "demo", "--train.steps", "4"],
            "unknown setting 'train.steps'; did you mean 'tokenizer.train.steps'?",
        ),
        (["train-tokenizer", "demo", "--model.depth", "4"], "unknown setting 'model.depth'"),
        (["plan", "demo", "--train.learning-rate", "1"], "unknown setting 'train.learning_rate'"),
        (["plan", "demo", "--tokenizer.train.steps", "1"], "unknown setting 'tokenizer.train.steps'"),
        (["bench", "training", "demo", "--sampling.steps", "1"], "unknown setting 'sampling.steps'"),
        (["info", "x", "--verifi"], "unknown setting 'verifi'; did you mean 'verify'?"),
        (["tokenize", "x", "--data", "y"], "out: none given; --out is required"),
        (["tokenize", "x", "y", "--data", "y", "--out", "z"], "unexpected argument 'y'"),
        (["train", "demo", "--train.beta1", "1"], "train.beta1: 1.0 given, must be at least 0 and below 1"),
        (
            ["train", "demo", "--objective.targets-per-prefix", "0"],
            "objective.targets_per_prefix: 0 given, must be at least 1 and at most 65,536 or 'all'",
        ),
    ],
)
def test_arguments_without_effect_or_out_of_range(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    fails(capsys, arguments, message)


def test_help_shows_limits_and_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "demo", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--train.batch-size INT Images per optimizer step. (at least 1 and at most 1,048,576; default: 64)" in text
    assert "--train.ema-decay FLOAT" in text
    assert "(at least 0 and below 1; default: 0.995)" in text
    assert main(["train-tokenizer", "demo", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--tokenizer.train.steps" in text
    assert "--train.steps" not in text
    assert "--model." not in text
