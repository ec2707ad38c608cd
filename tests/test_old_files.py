"""What earlier releases wrote is read as they read it: models, runs, caches, records, references.

The files are in tests/fixtures, written by tests/fixtures/make.py with the release that names them.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from heptapod import Heptapod
from heptapod.cli import main

ARCHIVE = Path(__file__).parent / "fixtures" / "v0_1.tar.xz"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh copy of the files, which is the current folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "v0_1"
    monkeypatch.chdir(folder)
    return folder


def images() -> torch.Tensor:
    paths = [f"images/{name}/{number}.png" for name in ("dark", "light") for number in (0, 1)]
    return torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in paths])


@pytest.mark.parametrize("kind", ["codes", "latents"])
def test_a_model_generates_and_judges_as_before(old: Path, kind: str) -> None:
    expected = json.loads(Path("expected.json").read_text())[kind]
    model = Heptapod.from_pretrained(kind)
    tokens = model.generate_tokens(["dark", 1], seed=3, steps=3, token_order="random")
    if kind == "codes":
        assert tokens.tolist() == expected["tokens"]
    else:
        assert torch.allclose(tokens, torch.tensor(expected["tokens"]), atol=1e-4)
    labels = ["dark", "dark", "light", "light"]
    nats = model.negative_log_likelihood(images(), labels, token_order="raster")
    assert torch.allclose(nats, torch.tensor(expected["negative_log_likelihood"]), atol=1e-4)


def test_the_first_format_of_a_model(old: Path) -> None:
    expected = json.loads(Path("expected.json").read_text())["codes"]
    tokens = Heptapod.from_pretrained("format_1").generate_tokens(["dark", 1], seed=3, steps=3, token_order="random")
    assert tokens.tolist() == expected["tokens"]


@pytest.mark.parametrize("name", ["sample_codes", "edit_codes", "studio_codes", "sample_latents"])
def test_a_record_makes_its_picture_again(old: Path, name: str) -> None:
    assert main(["sample", "--from", f"{name}.json", "--out", "again.png"]) == 0
    picture = f"{name}_images.png" if name.startswith("edit") else f"{name}.png"  # that of edit shows the original too
    again, before = np.array(Image.open("again.png")), np.array(Image.open(picture))
    assert again.shape == before.shape
    assert np.abs(again.astype(int) - before.astype(int)).max() <= (0 if "codes" in name else 1)


@pytest.mark.parametrize("kind", ["codes", "latents"])
def test_a_cache_is_verified_and_trained_from(old: Path, kind: str) -> None:
    assert main(["info", f"cache_{kind}", "--verify"]) == 0
    arguments = ["train", f"{kind}.yaml", "--data", f"cache_{kind}", "--data.flip", "False", "--out", "new"]
    assert main([*arguments, "--train.steps", "2", "--train.eval_every", "2"]) == 0
    assert Path("new/best/model.safetensors").is_file()


@pytest.mark.parametrize("stage", ["codes", "tokenizer"])
def test_a_stopped_run_is_resumed_to_the_same_weights(old: Path, stage: str) -> None:
    """The weights that the release itself reached without a stop; another processor may round differently."""
    metrics = Path("codes_half/metrics.jsonl" if stage == "codes" else "codes_tokenizer_half/tokenizer/metrics.jsonl")
    first = metrics.read_text().splitlines()[0]
    if stage == "codes":
        assert main(["train", "codes.yaml", "--out", "codes_half"]) == 0
        reached, expected = Path("codes_half/last"), Path("final_codes")
    else:
        assert main(["train-tokenizer", "codes.yaml", "--out", "codes_tokenizer_half"]) == 0
        reached, expected = Path("codes_tokenizer_half/tokenizer/last"), Path("final_tokenizer")
    assert metrics.read_text().splitlines()[0] == first, "resumed, not trained from the beginning"
    found, wanted = (load_file(folder / "model.safetensors") for folder in (reached, expected))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, atol=1e-6), name


def test_a_finished_run_stays_finished(old: Path) -> None:
    before = Path("codes/best/model.safetensors").read_bytes()
    assert main(["train", "codes.yaml", "--out", "codes"]) == 0
    assert Path("codes/best/model.safetensors").read_bytes() == before


def test_a_reference_is_read(old: Path) -> None:
    from heptapod.evaluation.reference import Reference

    reference: Any = Reference.load(Path("reference.safetensors"))
    assert reference.statistics.count == 16
    assert reference.statistics.num_features == 6


def test_the_archive_is_whole(old: Path) -> None:
    """A fixture that goes missing must not pass unnoticed."""
    names = {path.name for path in old.iterdir()}
    wanted = {"cache_codes", "cache_latents", "codes", "latents", "codes_half", "codes_tokenizer_half", "format_1"}
    assert wanted <= names
    shutil.rmtree(old)
