"""``heptapod evaluate`` and ``heptapod reference``, in this process: what they write, record and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from heptapod import Heptapod
from heptapod.cli import main
from heptapod.evaluation.features import CallableFeatures, FeatureExtractor
from heptapod.models import HeptapodModel
from heptapod.tokenizers import GridSpec, VQConfig, build_tokenizer

from ..conftest import write_classes

Make = Callable[..., HeptapodModel]


def colours(images: Tensor) -> Tensor:
    """Mean and spread of each channel: 6 features of float64 sums, the same in every batch."""
    x = images.double() / 255
    return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A cheap extractor in place of EfficientNet; the list tells the sizes of the batches that it saw."""
    seen: list[int] = []

    def function(images: Tensor) -> Tensor:
        seen.append(len(images))
        return colours(images)

    def fake(inception: str | None, device: str) -> FeatureExtractor:
        return CallableFeatures("colours", 6, function, lambda features: features[:, :4] * 9, 4)

    monkeypatch.setattr("heptapod.commands.evaluate.open_extractor", fake)
    monkeypatch.setattr("heptapod.commands.reference.open_extractor", fake)
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


def test_npz_is_a_cache_of_the_samples(place: Path) -> None:
    first = run(*MODEL, "--npz", "samples.npz")
    again = run("--samples", "samples.npz", "--reference", "real", "--seed", "3", out="again")
    assert again["samples"].pop("source") == {"kind": "npz", "path": "samples.npz"}
    assert first["samples"].pop("source") is None
    assert again == first
