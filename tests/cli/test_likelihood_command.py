"""``heptapod likelihood``, in this process: what it writes, records and refuses."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heptapod import Heptapod
from heptapod.cli import main
from heptapod.data import DataConfig
from heptapod.data.images import decode, split_rows
from heptapod.data.sources import open_source
from heptapod.distributions import DistributionConfig, flow
from heptapod.grid import GridSpec
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.tokenizers import ContinuousTokenizer, PixelConfig, VAEConfig, VQConfig, build_tokenizer
from heptapod.utils.images import confusion_picture, heat_map
from tests.cli.test_cli import fails_without_writing
from tests.conftest import randomized, write_classes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random models of codes (their classes in another order than the data's), vectors and pixels; images."""
    place = tmp_path_factory.mktemp("likelihood")
    with contextlib.chdir(place):
        write_classes(Path("images"), 6)
        codes = build_tokenizer(VQConfig(width=8, codebook_size=7, code_width=4))
        grid = GridSpec(4, 4, 7)
        save("model", small_model(grid, 3), codes, ["light", "owl", "dark"], "mixed")
        save("raster", small_model(grid, 3), codes, ["light", "owl", "dark"], "raster", label_dropout=0.0)
        save("plain", small_model(grid, 0), codes, [], "raster")
        vectors = build_tokenizer(VAEConfig(width=8, latent_channels=3))
        assert isinstance(vectors, ContinuousTokenizer)
        vectors.latent_std.fill_(2)
        for kind in ("flow", "diffusion"):
            save(kind, small_model(GridSpec(4, 4, channels=3), 2, kind), vectors, ["dark", "light"], "raster")
        save("pixel", small_model(GridSpec(4, 5, 6), 0), build_tokenizer(PixelConfig(levels=6)), [], "raster")
        levels = np.random.default_rng(0).integers(6, size=(4, 4, 5), dtype=np.uint8) * 51
        for name, off in (("exact", 0), ("off", 3)):
            Path(name).mkdir()
            for number, gray in enumerate(levels):
                Image.fromarray(gray // 2 + off if off else gray).save(f"{name}/{number}.png")
        shutil.copytree("images/dark", "others/cow")
        shutil.copytree("images/light", "others/light")
    return place


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    monkeypatch.chdir(folder)
    return folder


def small_model(grid: GridSpec, num_classes: int, kind: Any = "categorical") -> HeptapodModel:
    size = {} if grid.is_discrete else {"mlp_depth": 1, "mlp_width": 16}
    cells = DistributionConfig(kind, **size)  # type: ignore[arg-type]
    config = ModelConfig(width=16, depth=1, num_heads=1, head=HeadConfig("cross", 1), distribution=cells)
    return randomized(build_model(config, grid, num_classes, 0))


def save(folder: str, model: HeptapodModel, tokenizer: Any, names: list[str], order: Any, **more: Any) -> None:
    Heptapod(model, tokenizer, names, order, **more).save_pretrained(folder)


def run(*arguments: str, out: str = "out") -> dict[str, Any]:
    """Measures everything in images/; gives back what is in likelihood.json."""
    data = [] if "--data" in arguments else ["--data", "images"]
    split = [] if "--split" in arguments else ["--split", "all"]
    assert main(["likelihood", *arguments, *data, *split, "--out", out]) == 0
    record: dict[str, Any] = json.loads(Path(out, "likelihood.json").read_text())
    return record


def pixels_of(folder: str) -> torch.Tensor:
    return decode(open_source(folder), DataConfig()).in_memory()


def test_figures_are_those_of_the_pipeline(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run("model", "--token_order", "random", out="figures")
    assert '"bits_per_image"' in capsys.readouterr().out
    heptapod, images = Heptapod.from_pretrained("model"), pixels_of("images")
    nats = heptapod.negative_log_likelihood(images, ["dark"] * 6 + ["light"] * 6, token_order="random").double()
    summary = found["nats_per_token"]
    expected = [nats.mean(), nats.std() / math.sqrt(12), nats.min(), nats.max(), 12]
    assert list(summary) == ["mean", "standard_error", "min", "max", "count"]
    assert list(summary.values()) == pytest.approx([float(value) for value in expected], abs=1e-5)
    by_class = found["nats_per_token_of_class"]
    assert by_class["dark"]["mean"] == pytest.approx(float(nats[:6].mean()), abs=1e-5)
    assert by_class["light"]["mean"] == pytest.approx(float(nats[6:].mean()), abs=1e-5)
    assert found["bits_per_image"] == pytest.approx(float(nats.mean()) * 16 / math.log(2), abs=1e-4)
    assert (found["token_order"], found["labels"], found["exact"], found["orders"]) == ("random", True, True, 1)
    assert (found["data"]["count"], found["data"]["split"], len(found["data"]["sha256"])) == (12, "all", 64)
    assert found["bits_per_dimension"] is None
    assert "VQTokenizer loses detail" in found["bits_per_dimension_note"]
    assert "zero_shot" not in found
    assert not Path("figures/confusion.png").exists()
    without = run("model", "--token_order", "random", "--no_labels")
    assert without["labels"] is False
    assert without["nats_per_token"]["mean"] == pytest.approx(
        float(heptapod.negative_log_likelihood(images, token_order="random").mean()), abs=1e-5
    )
    assert without["nats_per_token"]["mean"] != pytest.approx(summary["mean"], abs=1e-3)


def test_two_runs_are_equal_and_no_batch_matters(place: Path) -> None:
    arguments = ["model", "--zero_shot", "--orders", "2", "--seed", "3"]
    first, second = run(*arguments, out="a"), run(*arguments, out="b")
    assert first.pop("seconds") > 0
    second.pop("seconds")
    assert first == second
    assert list(first) == list(second)
    for name in ("likelihood.png", "confusion.png"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    third = run(*arguments, "--batch_size", "5")
    assert third["nats_per_token"] == pytest.approx(first["nats_per_token"], abs=1e-5)
    assert third["zero_shot"]["confusion"] == first["zero_shot"]["confusion"]
    assert third["zero_shot"]["negative_log_posterior"] == pytest.approx(
        first["zero_shot"]["negative_log_posterior"], abs=1e-3
    )
    other = run("model", "--orders", "2", "--seed", "4")
    assert other["nats_per_token"]["mean"] != pytest.approx(first["nats_per_token"]["mean"], abs=1e-5)


def test_zero_shot_finds_the_most_likely_class(place: Path) -> None:
    found = run("model", "--zero_shot", "--token_order", "raster")["zero_shot"]
    heptapod, images = Heptapod.from_pretrained("model"), pixels_of("images")
    nats = torch.stack(
        [heptapod.negative_log_likelihood(images, [c] * 12, token_order="raster") for c in range(3)]
    )  # fmt: skip
    answers, truth = nats.argmin(0), torch.tensor([2] * 6 + [0] * 6)
    assert found["classes"] == ["light", "owl", "dark"]
    assert found["accuracy"] == float((answers == truth).double().mean())
    assert found["chance"] == pytest.approx(1 / 3)
    assert [sum(row) for row in found["confusion"]] == [6, 0, 6]
    for c, name in ((0, "light"), (2, "dark")):
        assert found["confusion"][c] == [int((answers[truth == c] == k).sum()) for k in range(3)]
        assert found["accuracy_of_class"][name] == found["confusion"][c][c] / 6
    assert found["accuracy_of_class"]["owl"] is None


def test_only_some_classes(place: Path) -> None:
    """Named or numbered, in any order; the images of others are left out."""
    found = run("model", "--classes", "dark", "0", "--zero_shot")
    assert (found["data"]["count"], found["zero_shot"]["classes"]) == (12, ["dark", "light"])
    assert [len(row) for row in found["zero_shot"]["confusion"]] == [2, 2]
    one = run("model", "--classes", "light")
    assert (one["data"]["count"], list(one["nats_per_token_of_class"])) == (6, ["light"])
    assert one["nats_per_token"] == one["nats_per_token_of_class"]["light"]
    known = run("model", "--data", "others", "--classes", "light")
    assert known["data"]["count"] == 6, "a class the model does not know is no matter if it is not asked for"


def test_splits_and_counts(place: Path) -> None:
    sizes = {split: run("model", "--split", split)["data"]["count"] for split in ("held_out", "train", "all")}
    assert sizes == {"held_out": 1, "train": 11, "all": 12}
    source = open_source("images")
    held_out = decode(source, DataConfig(), split_rows(source.is_held_out(), DataConfig())[1])
    assert run("model", "--split", "held_out")["data"]["sha256"] == held_out.sha256(), "those that training holds out"
    some = [run("model", "--count", "5", "--seed", seed)["data"] for seed in ("1", "1", "2")]
    assert [data["count"] for data in some] == [5, 5, 5]
    assert some[0]["sha256"] == some[1]["sha256"] != some[2]["sha256"]


def test_vectors_count_the_normalization(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents of standard deviation 2 have C·log 2 nats more than what is normalized."""
    monkeypatch.setattr(flow, "LIKELIHOOD_STEPS", 4)
    found = run("flow", "--zero_shot")
    assert found["exact"] is False
    assert "VAETokenizer loses detail" in found["bits_per_dimension_note"]
    heptapod, images = Heptapod.from_pretrained("flow"), pixels_of("images")
    labels = torch.tensor([0] * 6 + [1] * 6)
    with torch.no_grad():
        tokens = heptapod.tokenizer.encode(images.float() / 127.5 - 1)
    nats = torch.stack([negative_log_likelihood(heptapod.model, tokens, torch.full((12,), c)) for c in range(2)])
    own = nats.gather(0, labels[None]).mean()
    assert found["nats_per_token"]["mean"] == pytest.approx(float(own) + 3 * math.log(2), abs=1e-3)
    assert found["zero_shot"]["accuracy"] == float((nats.argmin(0) == labels).double().mean())


def test_bits_per_dimension_of_pixels(place: Path) -> None:
    found = run("pixel", "--data", "exact")
    assert found["labels"] is False, "a model without classes takes none"
    assert found["dimensions_per_image"] == 20, "gray counts once"
    nats = Heptapod.from_pretrained("pixel").negative_log_likelihood(pixels_of("exact")).double()
    assert found["bits_per_dimension"] == pytest.approx(float(nats.mean()) / math.log(2), abs=1e-5)
    off = run("pixel", "--data", "off")
    assert off["bits_per_dimension"] is None
    assert "not all pixels lie on the levels" in off["bits_per_dimension_note"]


def test_the_picture_shows_the_extremes(place: Path) -> None:
    run("pixel", "--data", "exact")
    images = pixels_of("exact")
    nats = Heptapod.from_pretrained("pixel").negative_log_likelihood(images)
    picture = np.asarray(Image.open("out/likelihood.png").convert("RGB"))
    zoom, images = 12, images[nats.argsort()].permute(0, 2, 3, 1)  # 4×5 pixels enlarged to 48×60
    shown = picture[:, -4 * (5 * zoom + 2) :]
    for row, order in enumerate(([0, 1, 2, 3], [3, 2, 1, 0])):
        for column, which in enumerate(order):
            top, left = 2 + row * (4 * zoom + 2), column * (5 * zoom + 2)
            part = shown[top : top + 4 * zoom : zoom, left : left + 5 * zoom : zoom]
            assert (part == images[which].numpy()).all()


def test_a_warning_without_the_label_that_was_always_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("raster", "--no_labels")
    assert "never trained without a label" in capsys.readouterr().err
    run("raster")
    assert capsys.readouterr().err == ""


def test_confusion_picture() -> None:
    """The colors are shares of the row, an empty row is 0; names where there is room, any number of classes."""
    counts = torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 9]])
    picture = np.asarray(confusion_picture(counts, ["a", "b", "c"]))
    cell = 48
    top, left = 44, int((picture[50] != 255).any(1).argmax())
    middles = picture[top + cell // 2 : top + 3 * cell : cell, left + cell // 2 : left + 3 * cell : cell]
    shares = torch.tensor([[0.75, 0.25, 0], [0, 0, 0], [0, 0, 1]])
    assert (middles == heat_map(shares, 1.0).permute(1, 2, 0).numpy()).all()
    large = confusion_picture(torch.eye(600, dtype=torch.long), [str(i) for i in range(600)])
    assert min(large.size) >= 600


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such folder"),
        (["model", "--data", "nothing"], "data: nothing does not exist"),
        (["diffusion"], "DiffusionDistribution has no likelihood; flow and categorical distributions have"),
        (["raster", "--token_order", "random"], "token_order: random given, but the model was trained on raster order"),
        (["raster", "--orders", "2"], "orders: 2 given, but there is only one raster order"),
        (["model", "--orders", "0"], "orders: 0 given, must be at least 1"),
        (["model", "--batch_size", "0"], "batch_size: 0 given, must be at least 1"),
        (["model", "--count", "0"], "count: 0 given, must be at least 1"),
        (["model", "--seed", "-1"], "seed: -1 given, must be at least 0"),
        (["model", "--memory_gib", "0"], "memory_gib: 0.0 given, must be above 0"),
        (["model", "--out", "exact/0.png"], "out: exact/0.png given, but exact/0.png is a file; a folder is needed"),
        (["model", "--device", "cuda:99"], "device: cuda:99 given"),
        (["model", "--classes", "cow"], "label: 'cow' is no class of this model (light, owl, dark)"),
        (["model", "--classes", "dark", "2"], "classes: dark given more than once"),
        (["model", "--classes", "owl"], "classes: owl given, but the all images of images hold none of them"),
        (["model", "--classes", "dark", "--zero_shot"], "classes: dark given, zero-shot needs at least 2"),
        (["plain", "--zero_shot"], "zero_shot: given, but this model was trained without classes"),
        (["plain", "--classes", "dark"], "classes: given, but this model was trained without classes"),
        (
            ["model", "--data", "exact"],
            "data: images of 4×5 pixels (height×width), the model's are 16×16; give --image",
        ),
        (["model", "--data", "images/dark"], "data: 6 of 6 images have no class; give --no_labels and no --zero_shot"),
        (
            ["model", "--data", "others"],
            "data: 1 of 2 classes are none of the model's (cow; the model has light, owl, dark): name them alike",
        ),
        (["model", "--no_labels", "--zero_shot", "--data", "others"], "data: 1 of 2 classes are none of the model's"),
    ],
)
def test_mistakes(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """One line, exit code 2, nothing written."""
    data = [] if "--data" in arguments else ["--data", "images"]
    fails_without_writing(capsys, ["likelihood", *arguments, *data, "--split", "all"], message, place)
