"""``heptapod edit``, in this process: what it writes, records and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heptapod import Heptapod
from heptapod.cli import main
from heptapod.data.decoding import to_rgb
from heptapod.grid import GridSpec
from heptapod.models import HeptapodModel
from heptapod.tokenizers import VQConfig, build_tokenizer
from tests.cli.test_cli import fails, fails_without_writing

Make = Callable[..., HeptapodModel]


@pytest.fixture
def place(make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a random model (4×5 cells of 4×4 pixels), images and masks (the lower half, everything)."""
    monkeypatch.chdir(tmp_path)
    tokenizer = build_tokenizer(VQConfig(width=8, codebook_size=7, code_width=4))
    model = make_model("cross", GridSpec(4, 5, 7))
    Heptapod(model, tokenizer, ["cat", "dog", "owl"], "mixed").save_pretrained("model")
    rng = np.random.default_rng(0)
    for name, (height, width) in {"image": (16, 20), "big": (47, 50)}.items():
        Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).save(f"{name}.png")
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[height // 2 :] = 255
        Image.fromarray(mask).save(f"{name}-mask.png")
    for name, gray in {"black": 127, "white": 128}.items():
        Image.new("L", (20, 16), gray).save(f"{name}.png")
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(Path("image.png").read_bytes()[:300])
    return tmp_path


def run(*arguments: str) -> dict[str, Any]:
    """Edits with --out out.png; gives back the record."""
    assert main(["edit", "model", *arguments, "--out", "out.png"]) == 0
    record: dict[str, Any] = json.loads(Path("out.json").read_text())
    return record


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_inpainting(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = ["--mask", "image-mask.png", "--labels", "dog", "0", "--count", "3", "--seed", "7", "--steps", "4"]
    arguments = ["edit", "model", "image.png", *mask, "--composite"]
    assert main([*arguments, "--out", "pictures"]) == 0
    assert "6 images in" in capsys.readouterr().out
    record = json.loads(Path("pictures/edited.json").read_text())
    expected = {
        "image": "image.png", "mask": "image-mask.png", "canvas": None, "cells": 20, "image_size": [16, 20],
        "kept_cells": 10, "kept_cells_identical": True, "largest_pixel_difference_outside_mask": 0,
        "labels": [1, 1, 1, 0, 0, 0], "seeds": [7, 8, 9, 10, 11, 12], "guidance": None,
    }  # fmt: skip
    assert {name: record[name] for name in expected} == expected
    assert record["sampling"]["steps"] == 4
    one_each = sorted(Path("pictures").glob("0*.png"))
    assert [path.name for path in one_each] == [f"{i:05d}.png" for i in range(6)]
    original = pixels("image.png")
    for path in one_each:
        assert (pixels(path)[:8] == original[:8]).all()
        assert (pixels(path)[8:] != original[8:]).any()
    assert main([*arguments, "--out", "again.png"]) == 0
    assert Path("again.png").read_bytes() == Path("pictures/edited.png").read_bytes()
    plain = run("image.png", *mask)
    assert plain["kept_cells_identical"] is True
    assert plain["largest_pixel_difference_outside_mask"] > 0


def test_the_picture_shows_the_original_hatched_then_the_results(place: Path) -> None:
    run("image.png", "--mask", "image-mask.png", "--labels", "dog", "cat", "--count", "2", "--composite")
    picture, original = pixels("out.png"), pixels("image.png")
    shown = picture[:, -(3 * (20 * 3 + 2)) :]  # three columns of images enlarged three times, after the names
    assert picture.shape[0] == 2 * (16 * 3 + 2) + 2
    assert (shown[2:26:3, 0:60:3] == original[:8]).all()
    hatched = shown[26:50:3, 0:60:3]
    assert (hatched != original[8:]).any()
    assert hatched.min() > 70
    assert hatched.max() < 210
    assert (shown[2:26:3, 62:122:3] == original[:8]).all()


def test_outpainting(place: Path) -> None:
    record = run("image.png", "--canvas", "24x28", "--at", "4,8", "--count", "2", "--composite")
    assert (record["canvas"], record["at"]) == ([24, 28], [4, 8])
    assert (record["cells"], record["kept_cells"], record["kept_cells_identical"]) == (42, 20, True)
    assert record["largest_pixel_difference_outside_mask"] == 0
    assert record["labels"] == [-1, -1]
    assert run("image.png", "--canvas", "24x28", "--count", "1")["at"] == [4, 4]


def test_variations(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = run("image.png", "--keep_cells", "5", "--count", "1", "--token_order", "confidence", "--top_k", "3")
    assert (record["kept_cells"], record["kept_cells_identical"]) == (5, True)
    assert (record["sampling"]["token_order"], record["sampling"]["top_k"]) == ("confidence", 3)
    assert capsys.readouterr().err == ""
    record = run("image.png", "--keep_cells", "5", "--count", "1", "--schedule", "1,4,10")
    assert (record["sampling"]["schedule"], record["keep_cells"]) == ([1, 4, 10], 5)


def test_resize_brings_image_and_mask_to_the_models_size(place: Path) -> None:
    arguments = ["edit", "model", "big.png", "--mask", "big-mask.png", "--resize", "--composite", "--count", "1"]
    assert main([*arguments, "--out", "resized"]) == 0
    record = json.loads(Path("resized/edited.json").read_text())
    assert record["resize"] is True
    assert (record["cells"], record["largest_pixel_difference_outside_mask"]) == (20, 0)
    result = pixels("resized/00000.png")
    assert result.shape == (16, 20, 3)
    # The middle 40 of 47 rows are shown, 2.5 to 1: of these the mask covers the lower half.
    assert record["kept_cells"] == 10
    square = to_rgb(Image.open("big.png").crop((0, 3, 50, 43)).resize((20, 16), Image.Resampling.BICUBIC), 0)
    assert np.abs(result[:7] - square.transpose(1, 2, 0)[:7].astype(int)).mean() < 12
    assert run("big.png", "--canvas", "20x24", "--resize", "--count", "1")["kept_cells"] == 20


def test_files_of_other_kinds(place: Path) -> None:
    """A mask with transparency or of one bit; an image that EXIF turns upright."""
    Image.open("image-mask.png").convert("1").save("bits.png")
    see_through = np.zeros((16, 20, 4), dtype=np.uint8)
    see_through[..., 3] = 255 - np.asarray(Image.open("image-mask.png"))
    Image.fromarray(see_through).save("clear.png")
    records = [run("image.png", "--mask", name, "--count", "1") for name in ("image-mask.png", "bits.png", "clear.png")]
    assert [record["kept_cells"] for record in records] == [10, 10, 10]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("image.png").rotate(90, expand=True).save("turned.png", exif=exif)
    assert run("turned.png", "--mask", "image-mask.png", "--count", "1")["kept_cells"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image.png"], "mask, canvas, keep_cells: none given, must be exactly one of them"),
        (["image.png", "--mask", "white.png", "--keep_cells", "3"], "mask and keep_cells given, must be exactly one"),
        (["image.png", "--mask", "image-mask.png", "--at", "0,0"], "at: 0,0 given, but it is the place on a canvas"),
        (["missing.png", "--keep_cells", "3"], "image: missing.png does not exist"),
        (["text.png", "--keep_cells", "3"], "image: text.png cannot be read: not an image Pillow can read"),
        (["cut.png", "--keep_cells", "3"], "image: cut.png cannot be read: "),
        (["model", "--keep_cells", "3"], "image: model cannot be read: "),
        (["image.png", "--mask", "missing.png"], "mask: missing.png does not exist"),
        (["image.png", "--mask", "text.png"], "mask: text.png cannot be read: not an image Pillow can read"),
        (
            ["image.png", "--mask", "big-mask.png"],
            "mask: big-mask.png is 47×50 pixels (height×width), must be of the size of image.png, 16×20",
        ),
        (["image.png", "--mask", "black.png"], "mask: it keeps every pixel, so there is nothing to repaint"),
        (["image.png", "--mask", "white.png"], "there is nothing to keep; sample a new image instead (heptapod sample"),
        (
            ["big.png", "--mask", "big-mask.png"],
            "image: big.png is 47×50 pixels (height×width), but both sides must be multiples of 4 (the tokenizer's "
            "factor): crop it, or give --resize to bring it to the model's 16×20",
        ),
        (["image.png", "--canvas", "12x40"], "canvas: 12×40 given, must be at least the image's 16×20"),
        (["image.png", "--canvas", "18x40"], "canvas: 18×40 given, both sides must be multiples of 4"),
        (["image.png", "--canvas", "16x20"], "canvas: 16×20 given, just the image's size"),
        (["image.png", "--canvas", "large"], "canvas: large given, must be HEIGHTxWIDTH in pixels"),
        (["image.png", "--canvas", "24x24", "--at", "12,0"], "at: 12,0 given, but an image of 16×20 on a canvas of"),
        (["image.png", "--canvas", "24x24", "--at=-4,0"], "at: -4,0 given"),
        (["image.png", "--canvas", "24x24", "--at", "2,0"], "at: 2,0 given, both must be multiples of 4"),
        (["image.png", "--canvas", "24x24", "--at", "4"], "at: 4 given, must be TOP,LEFT in pixels"),
        (["image.png", "--keep_cells", "0"], "keep_cells: 0 given, must be between 1 and 19"),
        (["image.png", "--keep_cells", "20"], "keep_cells: 20 given, must be between 1 and 19"),
        (["image.png", "--keep_cells", "3", "--count", "0"], "count: 0 given, must be at least 1"),
        (
            ["image.png", "--keep_cells", "3", "--labels", "cow"],
            "label: 'cow' is no class of this model (cat, dog, owl",
        ),
        (["image.png", "--keep_cells", "3", "--labels", "3"], "label: 3 given, must be between 0 and 2"),
        (["image.png", "--keep_cells", "3", "--steps", "18"], "steps: 18 given, must be between 1 and 17 (the cells"),
        (["image.png", "--keep_cells", "3", "--schedule", "1,2"], "needs positive numbers with sum 17 (the cells"),
        (["image.png", "--keep_cells", "3", "--top_p", "2"], "top_p: 2.0 given"),
        (["image.png", "--keep_cells", "3", "--seed", "-1"], "seed: -1 given"),
        (["image.png", "--keep_cells", "3", "--batch_size", "0"], "batch_size: 0 given"),
        (["image.png", "--keep_cells", "3", "--cell_steps", "3"], "cell_steps: 3 given"),
        (["image.png", "--keep_cells", "3", "--device", "cuda:99"], "device: cuda:99 given"),
        (["image.png", "--keep_cells", "3", "--out", "x.jpg"], "out: x.jpg given, pictures are written as .png"),
        (["image.png", "--keep_cells", "3", "--out", "image.png"], "would write over the image image.png"),
        (["image.png", "--mask", "image-mask.png", "--out", "./image-mask.png"], "would write over the mask"),
    ],
)
def test_mistakes(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """One line, exit code 2, nothing written."""
    out = [] if "--out" in arguments else ["--out", "out.png"]
    fails_without_writing(capsys, ["edit", "model", *arguments, *out], message, place)


def test_no_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["edit", "missing", "image.png", "--keep_cells", "3"], "missing: no such folder")
