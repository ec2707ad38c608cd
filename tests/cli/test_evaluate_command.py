"""``heptapod evaluate`` and ``heptapod reference``, in this process: what they write, record and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from heptapod import Heptapod
from heptapod.cli import main
from heptapod.configs.data import DataConfig
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from heptapod.evaluation.features import CallableFeatures, FeatureExtractor
from heptapod.evaluation.reference import Reference
from heptapod.evaluation.streams import read_npz_entry
from heptapod.grid import GridSpec
from heptapod.models import HeptapodModel
from heptapod.tokenizers import VQConfig, build_tokenizer
from heptapod.utils.files import sha256
from tests.cli.test_cli import fails
from tests.conftest import write_classes

Make = Callable[..., HeptapodModel]


def colors(images: Tensor) -> Tensor:
    """Mean and spread of each channel: 6 features of float64 sums, the same in every batch."""
    x = images.double() / 255
    return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A cheap extractor in place of EfficientNet; the list tells the sizes of the batches that it saw."""
    seen: list[int] = []

    def function(images: Tensor) -> Tensor:
        seen.append(len(images))
        return colors(images)

    def fake(inception: str | None, device: str) -> FeatureExtractor:
        return CallableFeatures("colors", 6, function, lambda features: features[:, :4] * 9, 4)

    monkeypatch.setattr("heptapod.evaluation.features.open_extractor", fake)
    return seen


@pytest.fixture
def place(make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extracted: list[int]) -> Path:
    """The working folder: a random model of two classes (4×4 cells of 4×4 pixels), and 24 real images of its size."""
    monkeypatch.chdir(tmp_path)
    tokenizer = build_tokenizer(VQConfig(width=8, codebook_size=7, code_width=4))
    model = make_model("cross", GridSpec(4, 4, 7), num_classes=2)
    Heptapod(model, tokenizer, ["dark", "light"], "mixed").save_pretrained("model")
    write_classes(Path("real"), 12)
    return tmp_path


def run(*arguments: str, out: str = "out") -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--out", out]) == 0
    record: dict[str, Any] = json.loads(Path(out, "evaluation.json").read_text())
    assert record.pop("seconds") > 0
    return record


MODEL = ["model", "--reference", "real", "--count", "11", "--steps", "4", "--batch_size", "4", "--seed", "3"]


def test_two_runs_are_identical(place: Path) -> None:
    first = run(*MODEL)
    picture = Path("out/samples.png").read_bytes()
    assert run(*MODEL, out="again") == first
    assert Path("again/samples.png").read_bytes() == picture
    assert run(*MODEL[:-1], "4")["metrics"] != first["metrics"]


def test_the_record_tells_everything(place: Path) -> None:
    record = run(*MODEL, "--temperature", "0.9")
    names = ["precision", "recall", "density", "coverage"]
    distances = ["frechet_distance[colors]", "kernel_distance[colors]", "classifier_score[colors]"]
    assert list(record["metrics"]) == [*distances, *(f"{name}[colors]" for name in names)]
    assert record["left_out"] == {}
    made = record["generation"]
    expected = {"model": "model", "label_policy": "balanced", "count": 11, "seed": 3, "guidance": None, "batch_size": 4}
    assert {name: made[name] for name in expected} == expected
    assert (made["sampling"]["steps"], made["sampling"]["temperature"]) == (4, 0.9)
    assert made["sampling"]["token_order"] == "raster"
    assert made["model_sha256"] == sha256(Path("model/model.safetensors"))
    assert record["samples"]["count"] == 11
    assert record["samples"]["image_size"] == [16, 16]
    assert record["evaluator"]["name"] == "colors"
    reference = record["reference"]
    images = decode(open_source("real"), DataConfig("real"))
    assert (reference["count"], reference["source"]["sha256"]) == (24, images.sha256())
    assert record["versions"]["torch"] == torch.__version__
    assert Image.open("out/samples.png").size == (8 * (16 * 3 + 2) + 2, 2 * (16 * 3 + 2) + 2)


def test_images_are_those_of_generate(place: Path) -> None:
    run(*MODEL, "--npz", "samples.npz")
    pixels, labels = read_npz_entry(Path("samples.npz"), "arr_0"), read_npz_entry(Path("samples.npz"), "arr_1")
    assert pixels is not None
    assert labels is not None
    assert labels.tolist() == [*[0, 1] * 5, 0]
    heptapod = Heptapod.from_pretrained("model")
    expected = heptapod.generate(labels.tolist(), seed=3, batch_size=4, steps=4)
    assert all(np.array_equal(one, np.asarray(other)) for one, other in zip(pixels, expected, strict=True))
    run(*MODEL[:4], "5", *MODEL[5:], "--npz", "fewer.npz")
    fewer = read_npz_entry(Path("fewer.npz"), "arr_0")
    assert fewer is not None
    assert np.array_equal(fewer, pixels[:5])  # an image does not depend on how many there are


def test_npz_is_a_cache_of_the_samples(place: Path) -> None:
    first = run(*MODEL, "--npz", "samples.npz")
    content = Path("samples.npz").read_bytes()
    again = run("--samples", "samples.npz", "--reference", "real", "--seed", "3", out="again")
    assert again["samples"].pop("source") == {"kind": "npz", "path": "samples.npz"}
    assert first["samples"].pop("source") is None
    assert again == first
    run(*MODEL, "--npz", "samples.npz")
    assert Path("samples.npz").read_bytes() == content
    direct = run(*MODEL)
    direct["samples"].pop("source")
    assert direct == first
    itself = run(*MODEL[:2], "samples.npz", *MODEL[3:])["metrics"]  # as its own reference
    assert itself["frechet_distance[colors]"] == pytest.approx(0, abs=1e-12)
    assert itself["precision[colors]"] == itself["recall[colors]"] == 1


def test_policies_and_given_classes(place: Path) -> None:
    def labels(*arguments: str) -> tuple[list[int], dict[str, Any]]:
        record = run(*MODEL, *arguments, "--npz", "samples.npz")
        found = read_npz_entry(Path("samples.npz"), "arr_1")
        assert found is not None
        return found.tolist(), record["generation"]

    assert labels("--label_policy", "none") == ([-1] * 11, ANY)
    chosen, made = labels("--labels", "light", "1", "dark")
    assert chosen == [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1]
    assert (made["label_policy"], made["labels"]) == ("given", ["light", "1", "dark"])
    for path in sorted(Path("real/dark").glob("*.png"))[2:]:
        path.unlink()
    chosen, made = labels("--label_policy", "reference")  # 2 dark ones and 12 light ones
    assert (sorted(chosen), made["label_policy"]) == ([0, 0, *[1] * 9], "reference")
    assert labels("--label_policy", "random")[0] == labels("--label_policy", "random")[0]


def test_reference_file(place: Path, capsys: pytest.CaptureFixture[str], extracted: list[int]) -> None:
    assert main(["reference", "real", "--out", "real.safetensors", "--image_size", "16"]) == 0
    assert "real.safetensors: 24 images, 24 features of colors" in capsys.readouterr().out
    expected = run(*MODEL)
    extracted.clear()
    record = run(*MODEL[:2], "real.safetensors", *MODEL[3:])
    assert sum(extracted) == 11, "only the samples are looked at"
    assert record == expected
    assert Reference.load(Path("real.safetensors")).sha256() == record["reference"]["sha256"]


def test_samples_of_a_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run("--samples", "real", "--reference", "real")
    assert record["generation"] is None
    assert record["samples"]["sha256"] == record["reference"]["source"]["sha256"]
    assert record["metrics"]["frechet_distance[colors]"] == pytest.approx(0, abs=1e-12)
    assert record["metrics"]["precision[colors]"] == record["metrics"]["recall[colors]"] == 1
    assert "warning" not in capsys.readouterr().err
    assert run("--samples", "real", "--reference", "real", "--count", "13")["samples"]["count"] == 13
    run("--samples", "real", "--reference", "real", "--image_size", "8")
    assert "its images are 8×8 pixels, the samples 16×16" in capsys.readouterr().err


def test_few_samples(place: Path, capsys: pytest.CaptureFixture[str], extracted: list[int]) -> None:
    few = [*MODEL[:4], "6", *MODEL[5:]]
    record = run(*few)
    assert record["left_out"]["frechet_distance[colors]"] == {"reason": "needs 7 samples, 6 given", "needed": 7}
    assert set(record["left_out"]) == {"frechet_distance[colors]", "classifier_score[colors]"}
    extracted.clear()
    fails(capsys, ["evaluate", *few, "--metrics", "kernel", "score"], "metrics: score needs 10 samples, 6 given")
    assert extracted == [], "refused before the reference is read"
    assert main(["reference", "real", "--out", "few.safetensors", "--features_kept", "3"]) == 0
    extracted.clear()
    compared = ["evaluate", *MODEL, "--reference", "few.safetensors"]
    fails(capsys, [*compared, "--metrics", "kernel"], "metrics: kernel needs 4 features kept in the reference")
    assert extracted == [], "refused before sampling"
    chosen = run(*MODEL, "--metrics", "kernel")
    assert list(chosen["metrics"]) == ["kernel_distance[colors]"]
    assert chosen["left_out"]["recall[colors]"] == {"reason": "not asked for", "needed": None}


def test_mistakes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate, to = ["evaluate", *MODEL], ["--reference", "real", "--out", "new"]
    np.savez("moments.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    np.savez("floats.npz", arr_0=np.zeros((4, 8, 8, 3)))
    np.savez("small.npz", arr_0=np.zeros((24, 8, 8, 3), np.uint8))
    Path("broken.safetensors").write_bytes(b"broken")
    for arguments, message in (
        (["evaluate", *to], "model: give either the folder of a model or --samples"),
        ([*evaluate, "--samples", "real"], "model: give either"),
        (["evaluate", "none", *to], "none: no such folder"),
        (["evaluate", "--samples", "none", *to], "samples: none does not exist"),
        (["evaluate", "--samples", "floats.npz", *to], "arr_0 must be (M, h, w, 3) uint8"),
        (["evaluate", "--samples", "real", *to, "--steps", "3"], "steps: given together with --samples"),
        (["evaluate", "--samples", "real", *to, "--labels", "1"], "labels: given together with --samples"),
        (["evaluate", "--samples", "real", *to, "--npz", "a.npz"], "npz: a.npz given together with --samples"),
        (["evaluate", "--samples", "real", *to, "--count", "25"], "count: 25 given, but real holds 24 images"),
        ([*evaluate, "--npz", "samples.zip"], "npz: samples.zip given, must end in .npz"),
        ([*evaluate, "--count", "0"], "count: 0 given"),
        ([*evaluate, "--batch_size", "0"], "batch_size: 0 given"),
        ([*evaluate, "--seed", "-1"], "seed: -1 given"),
        ([*evaluate, "--reference", "a.safetensors", "--image_size", "8"], "but a.safetensors is made already"),
        (
            [*evaluate, "--reference", "small.npz"],
            "image_size: 16 given, but small.npz (reference) holds images of 8×8",
        ),
        ([*evaluate, "--steps", "99"], "steps: 99 given"),
        ([*evaluate, "--labels", "owl"], "label: 'owl' is no class"),
        ([*evaluate, "--labels", "1", "--label_policy", "random"], "label_policy: random given together with labels"),
        ([*evaluate, "--reference", "none"], "reference: none does not exist"),
        ([*evaluate, "--reference", "broken.safetensors"], "truncated or damaged"),
        ([*evaluate, "--reference", "moments.npz"], "moments of inception-v3 features only"),
        (["reference", "real", "--out", "real.npz"], "out: real.npz given, references are written as .safetensors"),
    ):
        fails(capsys, arguments, message)
    assert {path.name for path in place.iterdir()} == {
        "model", "real", "small.npz", "moments.npz", "floats.npz", "broken.safetensors"
    }  # fmt: skip
