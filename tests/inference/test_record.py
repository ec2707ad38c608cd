"""Records make the same pixels again; what does not fit is refused by name."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from heptapod import Heptapod, edit
from heptapod.cli import main
from heptapod.grid import GridSpec
from heptapod.inference.pretrained import model_sha256
from heptapod.inference.record import (
    Composite,
    KnownCells,
    Record,
    composite_of,
    from_values,
    known_cells,
    known_of,
    read_composite,
    read_record,
    reproduce,
    to_values,
)
from heptapod.utils.config import to_dict
from tests.small import CODES, VECTORS, small_model


@pytest.fixture
def heptapod() -> Heptapod:
    return small_model(CODES)


@pytest.fixture
def place(heptapod: Heptapod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    heptapod.save_pretrained(tmp_path / "model")
    image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


def record_of(heptapod: Heptapod, **changes: Any) -> Record:
    values = {"model": "", "labels": [1], "seeds": [5], "sampling": {}, "image_size": heptapod.image_size}
    return Record(**{**values, **changes})


def test_one_image_of_a_batch_alone(heptapod: Heptapod) -> None:
    together = heptapod.decode(heptapod.generate_tokens([1, 2, 0], seed=[5, 9, 7], steps=6, temperature=0.8))
    sampling = to_dict(heptapod.sampling_config(steps=6, temperature=0.8))
    alone = record_of(heptapod, labels=[2], seeds=[9], sampling=sampling, batch_size=3)
    assert torch.equal(reproduce(heptapod, alone), together[1:2])


def test_known_cells_and_pixels_put_back(heptapod: Heptapod) -> None:
    image = torch.randint(0, 256, (3, 16, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(16, 20, dtype=torch.bool)
    mask[5:9, 2:13] = True
    done = edit(heptapod, image, mask, "dog", count=2, seed=3, composite=True)
    again = record_of(
        heptapod, labels=[1, 1], seeds=[3, 4], sampling=to_dict(done.sampling),
        known=known_of(done.original_tokens, done.kept), composite=composite_of(image, mask),
    )  # fmt: skip
    assert torch.equal(reproduce(heptapod, again), done.images)
    with pytest.warns(UserWarning, match="trained on 16×20 "):
        larger = reproduce(heptapod, record_of(heptapod, image_size=(8, 8), labels=[-1]))
    assert larger.shape == (1, 3, 8, 8)


def test_the_command_line_makes_what_it_made(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of sample and of edit, in-painting and out-painting."""
    assert main(["sample", "model", "--labels", "dog", "owl", "--count", "2", "--steps", "5", "--out", "first"]) == 0
    assert main(["sample", "--from", "first/samples.json", "--out", "again"]) == 0
    for number in range(4):
        assert (pixels(f"first/{number:05d}.png") == pixels(f"again/{number:05d}.png")).all()
    Image.fromarray(np.pad(np.full((8, 20), 255, np.uint8), ((8, 0), (0, 0)))).save("mask.png")
    for task in (["--mask", "mask.png", "--composite"], ["--canvas", "24x28"], ["--keep_cells", "7"]):
        assert main(["edit", "model", "image.png", *task, "--count", "1", "--out", "edited"]) == 0
        assert main(["sample", "model", "--from", "edited/edited.json", "--out", "one.png"]) == 0
        assert (pixels("edited/00000.png") == pixels("one.png")).all(), task
    assert "1 images of edited/edited.json" in capsys.readouterr().out
    record = read_record(Path("first/samples.json"))
    assert record.model_sha256 == model_sha256(Path("model"))


@pytest.mark.parametrize("count", [0, 3])
def test_values_come_back_bit_for_bit(count: int) -> None:
    vectors = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    text = json.loads(json.dumps(to_values(vectors)))
    assert torch.equal(from_values(text, count, VECTORS), vectors)
    codes = torch.arange(count)
    assert torch.equal(from_values(json.loads(json.dumps(to_values(codes))), count, CODES), codes)


NAN = base64.b64encode(np.array([1, 2, np.nan], "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("cells", "values", "grid", "message"),
    [
        ([0], "AAAA", CODES, "values: text given, must be a list of codes"),
        ([0], [1], VECTORS, "values: a list given, must be base64 of float32"),
        ([0], [16], CODES, "values: 16 given, must be between 0 and 15"),
        ([0], [-1], CODES, "values: -1 given, must be between 0 and 15"),
        ([0, 1], [1], CODES, "values: 1 given for 2 cells"),
        ([20], [1], CODES, "cells: 20 given, must be between 0 and 19"),
        ([3, 3], [1, 1], CODES, "cells: one is named twice"),
        ([0], "AAAAAAAAAAA=", VECTORS, "values: 2 numbers given, must be 1 × 3"),
        ([0], "AAA", VECTORS, "values: not base64 of float32"),
        ([0], "AAAAAA==", VECTORS, "values: 1 numbers given, must be 1 × 3"),
        ([0], NAN, VECTORS, "values: some are not finite"),
    ],
)
def test_known_cells_that_do_not_fit(cells: list[int], values: Any, grid: GridSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        known_cells(KnownCells(cells, values), grid, 1)


def test_no_known_cells_are_none() -> None:
    assert known_cells(KnownCells([], []), CODES, 1) is None


def test_pictures_that_do_not_fit() -> None:
    fine = composite_of(torch.zeros(3, 4, 5, dtype=torch.uint8), torch.eye(4, 5).bool())
    image, mask = read_composite(fine, (4, 5))
    assert image.shape == (3, 4, 5)
    assert torch.equal(mask, torch.eye(4, 5).bool())
    for wrong, message in (
        (Composite(fine.image, "!"), "composite.mask: not base64 of a PNG file"),
        (Composite("AAAA", fine.mask), "composite.image: not base64 of a PNG file"),
        (Composite(fine.image[:60], fine.mask), "composite.image: not base64 of a PNG file"),
    ):
        with pytest.raises(ValueError, match=message):
            read_composite(wrong, (4, 5))
    with pytest.raises(ValueError, match="composite.image: 4×5 pixels given, must be 8×5"):
        read_composite(fine, (8, 5))


CHANGES: dict[str, dict[str, Any]] = {
    "uneven": {"seeds": [1, 2]},
    "far": {"labels": [9]},
    "kind": {"labels": "cat"},
    "mixed": {"labels": [-1, 1], "seeds": [1, 2]},
    "odd": {"sampling": {"known": 1}},
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "none.json"], "from: none.json does not exist"),
        (["--from", "model/config.json"], "has no labels; it is not a record that heptapod wrote"),
        (["--from", "image.png"], "damaged, not JSON"),
        (["--from", "first.json", "--seed", "3"], "seed: given together with --from first.json"),
        (["--from", "first.json", "--steps", "3"], "steps: given together with --from first.json"),
        (["--from", "first.json", "--temperature", "0"], "temperature: given together with --from first.json"),
        (["--from", "mixed.json"], "labels: [-1, 1] given, must be all -1 (no label) or all classes"),
        (["--from", "odd.json"], "from: sampling: "),
        (["--from", "first.json", "--count", "1"], "count: given together with --from first.json"),
        (["other", "--from", "first.json"], "other: no such folder"),
        (["another", "--from", "first.json"], "made with other weights than those of another"),
        (["--from", "uneven.json"], "seeds: 2 given together with 1 labels"),
        (["--from", "far.json"], "label: 9 given, must be between 0 and 2"),
        (["--from", "kind.json"], "labels"),
        ([], "model: none given"),
    ],
)
@pytest.mark.usefixtures("place")
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["sample", "model", "--labels", "dog", "--count", "1", "--out", "first.png"]) == 0
    small_model(CODES, seed=1).save_pretrained("another")
    record = json.loads(Path("first.json").read_text())
    for name, change in CHANGES.items():
        Path(f"{name}.json").write_text(json.dumps({**record, **change}))
    capsys.readouterr()
    assert main(["sample", *arguments, "--out", "out.png"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("out.png").exists()
