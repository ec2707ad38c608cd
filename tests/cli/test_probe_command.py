"""``heptapod probe``, and the same during training."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from heptapod.cli import main
from heptapod.training.folder import chosen_on
from heptapod.utils.files import read_json, write_json
from heptapod.utils.yaml_text import read_yaml
from tests.cli.test_cli import TINY_MODEL, TINY_TOKENIZER, fails
from tests.conftest import write_classes

pytest.importorskip("sklearn")
SHORT = [*TINY_MODEL, "--train.steps", "4", "--train.eval_every", "2", "--data.validation_fraction", "0.25"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of images, a tiny run on them with labels dropped, and a cache of its tokens."""
    folder = tmp_path_factory.mktemp("probe")
    write_classes(folder / "images", 30)
    run = ["--data", str(folder / "images"), "--out", str(folder / "run"), "--objective.label_dropout", "0.5"]
    assert main(["train", "demo", *run, *TINY_TOKENIZER, *SHORT]) == 0
    cache = ["--data", str(folder / "images"), "--out", str(folder / "cache")]
    assert main(["tokenize", str(folder / "run"), *cache]) == 0
    return folder


def figures(place: Path, out: Path, *arguments: str, data: str = "images") -> dict[str, Any]:
    assert main(["probe", str(place / "run"), "--data", str(place / data), "--out", str(out), *arguments]) == 0
    return read_json(out / "probe.json")


def without_seconds(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "seconds"}


def test_probe_writes_what_it_finds(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(place, tmp_path / "a")
    text = capsys.readouterr().out
    layers = ["embedding", "backbone.1", "backbone.norm", "head.1", "head.norm"]
    assert list(found["layers"]) == list(found["random_model"]) == layers
    assert all(name in text for name in (*layers, "raw pixels", "random weights"))
    assert (found["data"]["train_images"], found["data"]["test_images"]) == (48, 12), "a fifth, where none is held out"
    assert found["pixels"]["pixels"]["linear"] == 1.0, "brightness tells these classes"
    assert found["pixels"]["pixels"]["num_features"] == 3 * 16 * 16
    assert found["model"]["label_dropout"] == 0.5
    assert found["model"]["read_in"] == "raster"
    best = found["layers"][found["best_layer"]]
    assert best["linear"] == found["best_linear"]
    assert best["linear_selection"] == max(each["linear_selection"] for each in found["layers"].values())
    assert found["linear_above_pixels"] == best["linear"] - 1.0
    with Image.open(tmp_path / "a" / "probe.png") as picture:
        assert picture.width > 400
    again = figures(place, tmp_path / "b")
    assert json.dumps(without_seconds(found)) == json.dumps(without_seconds(again))
    assert (tmp_path / "a" / "probe.png").read_bytes() == (tmp_path / "b" / "probe.png").read_bytes()


def test_a_cache_gives_what_its_images_give(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = ["--count", "32", "--test_count", "10", "--seed", "3"]
    images = figures(place, tmp_path / "images", *drawn, "--no_pixels")
    capsys.readouterr()
    cache = figures(place, tmp_path / "cache", *drawn, data="cache")
    assert "raw pixels are left out" in capsys.readouterr().err
    assert "pixels" not in cache
    for name in ("layers", "random_model", "best_layer"):
        assert images[name] == cache[name]
    for name in ("train_sha256", "test_sha256"):
        assert images["data"][name] == cache["data"][name], "the same images are drawn"
    other = figures(place, tmp_path / "other", "--count", "32", "--seed", "4", "--no_random_model", data="cache")
    assert other["data"]["train_sha256"] != cache["data"]["train_sha256"]
    assert "random_model" not in other


def test_other_test_images_and_some_layers(place: Path, tmp_path: Path) -> None:
    write_classes(tmp_path / "more", 9)
    some = ["--test_data", str(tmp_path / "more"), "--layers", "head.1", "backbone.1", "--no_pixels"]
    found = figures(place, tmp_path / "out", *some)
    assert list(found["layers"]) == ["backbone.1", "head.1"]
    assert (found["data"]["train_images"], found["data"]["test_images"]) == (60, 18)


def test_refusals(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]

    def refused(message: str, *arguments: str, data: Path = place / "images", lines: int = 1) -> None:
        fails(capsys, ["probe", str(place / "run"), "--data", str(data), *out, *arguments], message, lines)
        assert not (tmp_path / "out").exists()

    refused("count: 0 given, must be at least 1", "--count", "0")
    refused("24 training images, too few for the 20 nearest", "--count", "24")
    refused("seed: -1 given", "--seed", "-1")
    refused("layers: head.7 given, must be among embedding, backbone.1", "--layers", "head.7")
    refused("images of 8×8 pixels, the model was trained on 16×16; set image_size to 16", "--image_size", "8")
    refused("data: nowhere does not exist", data=Path("nowhere"))
    refused("memory_gib: 1e-06 given", "--memory_gib", "1e-6", data=place / "cache", lines=2)
    refused("a probe needs images with labels", data=place / "images" / "dark")
    write_classes(tmp_path / "few", 4)
    refused("training image(s) of the class", data=tmp_path / "few")
    write_classes(tmp_path / "one", 40)
    shutil.rmtree(tmp_path / "one" / "light")
    refused("all images are of the class dark; a probe needs two", data=tmp_path / "one")
    (tmp_path / "one" / "dark").rename(tmp_path / "one" / "gray")
    refused("has other classes than", "--test_data", str(tmp_path / "one"))


def test_models_that_always_saw_the_label_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "model"
    copy.mkdir()
    values = read_json(place / "run" / "best" / "config.json")
    values["tokenizer"] = str(place / "run" / "tokenizer" / "best")
    (copy / "model.safetensors").symlink_to(place / "run" / "best" / "model.safetensors")
    for dropout, message in ((0.0, "never trained without the label"), (None, "label_dropout: not known")):
        write_json(copy / "config.json", {**values, "label_dropout": dropout})
        fails(capsys, ["probe", str(copy), "--data", str(place / "images"), "--out", str(tmp_path / "out")], message)
    assert not (tmp_path / "out").exists()


def test_a_cache_of_another_tokenizer_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(place / "images"), "--out", str(tmp_path / "t"), "--seed", "1"]
    assert main(["train-tokenizer", "demo", *arguments, *TINY_TOKENIZER, "--tokenizer.train.steps", "2"]) == 0
    cache = ["--data", str(place / "images"), "--out", str(tmp_path / "c")]
    assert main(["tokenize", str(tmp_path / "t"), *cache]) == 0
    fails(capsys, ["probe", str(place / "run"), "--data", str(tmp_path / "c")], "its tokens mean something else")


def test_probes_during_training_change_no_weight(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = [
        "train", "demo", "--data", str(place / "images"), "--tokenizer.path", str(place / "run"), *SHORT,
        "--objective.label_dropout", "0.5", "--data.flip", "true",
    ]  # fmt: skip
    probed = ["--probe.images", "30", "--probe.test_images", "8"]
    assert main([*trained, "--out", str(tmp_path / "plain")]) == 0
    assert main([*trained, "--out", str(tmp_path / "probed"), *probed]) == 0
    for name in ("best", "last"):
        one, other = (load_file(tmp_path / run / name / "model.safetensors") for run in ("plain", "probed"))
        assert all(torch.equal(one[key], other[key]) for key in one)
    lines = [json.loads(line) for line in (tmp_path / "probed" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in evaluations] == [2, 4]
    for line in evaluations:
        assert 0 <= line["probe_linear_accuracy"] <= 1
        assert 0 <= line["probe_knn_accuracy"] <= 1
        assert line["probe_best_layer"] in range(5)
    assert "probe_linear_accuracy" in json.loads((tmp_path / "probed" / "training.json").read_text())
    # A run may go on with or without: it is the same run.
    assert main([*trained, "--out", str(tmp_path / "plain"), *probed]) == 0
    assert main([*trained, "--out", str(tmp_path / "probed")]) == 0
    assert read_yaml(tmp_path / "probed" / "config.yaml")["probe"]["images"] == 30

    capsys.readouterr()
    never = [*trained, "--out", str(tmp_path / "never"), *probed]
    fails(capsys, [*never, "--objective.label_dropout", "0"], "never trained without the label")
    few = [*trained, "--out", str(tmp_path / "never"), "--probe.images", "10"]
    fails(capsys, few, "probe.images: ")
    fails(capsys, [*trained, "--probe.images", "-1"], "probe.images: -1 given, must be at least 0")
    assert not (tmp_path / "never").exists()


def test_images_that_chose_the_weights_are_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the best weights of a run; not for the last ones, which nothing chose."""
    images, out = str(place / "images"), tmp_path / "out"
    chosen = {"path": images, "held_out_images": 15}

    def measured(model: Path, *arguments: str) -> tuple[Any, bool]:
        common = ["--data", images, "--token_order", "raster", "--count", "4", "--out", str(out)]
        assert main(["likelihood", str(model), *common, *arguments]) == 0
        return read_json(out / "likelihood.json")["model"][
            "chosen_on"
        ], "chose these weights" in capsys.readouterr().err

    assert measured(place / "run") == (chosen, True)
    assert measured(place / "run", "--split", "train") == (chosen, False), "reported, but these are other images"
    assert measured(place / "run" / "last") == (None, False)


def test_images_that_chose_the_weights_are_recognized_by_content(place: Path) -> None:
    held_out = read_json(place / "run" / "data.json")["sha256"][64:]
    with pytest.warns(UserWarning, match="chose these weights"):
        assert chosen_on(place / "run" / "best", "moved", held_out) is not None
    with warnings.catch_warnings(action="error"):
        assert chosen_on(place / "run" / "best", "moved", "0" * 64) is not None
        assert chosen_on(place / "run" / "last", "moved", held_out) is None
