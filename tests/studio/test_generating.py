"""Images over HTTP are those of the library, can be gone on with from any state, and are made again from their JSON."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from heptapod import Heptapod, edit, outpaint
from heptapod.cli import main
from heptapod.inference.cell_query import ask_cell
from heptapod.inference.record import from_values, png_base64
from heptapod.sampling import SamplingConfig
from heptapod.studio.models import Collection
from tests.small import CODES, VECTORS
from tests.studio.conftest import generated

MODELS = ["run", "vectors"]


def broken_png() -> str:
    """16×20 pixels, with a chunk of one byte after them that no decoder expects."""
    file = io.BytesIO()
    Image.new("RGB", (20, 16)).save(file, format="PNG")
    png, chunk = file.getvalue(), b"iCCPx"
    odd = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return base64.b64encode(png[:-12] + odd + png[-12:]).decode()


BROKEN_PNG = broken_png()


def pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def read_until(found: dict[str, Any], step: int, row: int = 0) -> tuple[list[int], list[Any]]:
    """Cells and values (of a model of codes) that were read at a state."""
    images = [event["images"][row] for event in found["step"][:step]]
    return [cell for image in images for cell in image["cells"]], [one for image in images for one in image["values"]]


@pytest.mark.parametrize("name", MODELS)
def test_the_images_are_those_of_the_library(client: httpx.Client, collection: Collection, name: str) -> None:
    sampling = {"steps": 6, "temperature": 0.8, "token_order": "random"}
    found = generated(client, model=name, count=3, seed=7, sampling=sampling)
    heptapod = collection.models[name].heptapod
    steps = list(heptapod.stream(["dog"] * 3, seed=7, belief=True, **sampling))
    started, done = found["started"][0], found["done"][0]
    assert (started["grid"], started["factor"], started["seeds"], started["label"]) == ([4, 5], 4, [7, 8, 9], 1)
    assert started["warnings"] == []
    assert sum(started["steps"]) == 20
    assert [event["step"] for event in found["step"]] == list(range(7))
    for event, step in zip(found["step"], steps, strict=True):
        assert step.believed is not None
        assert step.uncertainty is not None
        pictures = heptapod.decode(step.believed)
        for row, image in enumerate(event["images"]):
            assert image["cells"] == step.cells[row].tolist()
            values = from_values(image["values"], len(image["cells"]), heptapod.model.grid)
            assert torch.equal(values, step.values[row])
            assert (pixels(image["picture"]) == pictures[row].permute(1, 2, 0).numpy()).all()
            assert image["uncertainty"] == pytest.approx(step.uncertainty[row].tolist(), abs=1e-4)
    for row, (image, drawn) in enumerate(zip(done["images"], heptapod.decode(steps[-1].tokens), strict=True)):
        assert (pixels(image["picture"]) == drawn.permute(1, 2, 0).numpy()).all()
        assert image["seed"] == 7 + row


@pytest.mark.parametrize("name", MODELS)
def test_a_record_makes_the_image_again(client: httpx.Client, tmp_path: Path, name: str) -> None:
    """The third of three, by the command line, from its file alone."""
    done = generated(client, model=name, count=3, sampling={"steps": 5, "temperature": 0.9})["done"][0]
    (tmp_path / "image.json").write_text(json.dumps(done["images"][2]["record"]))
    assert main(["sample", "--from", str(tmp_path / "image.json"), "--out", str(tmp_path / "again.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "again.png")) == pixels(done["images"][2]["picture"])).all()


def test_a_fork_keeps_what_was_read_and_its_pace(client: httpx.Client, tmp_path: Path) -> None:
    first = generated(client, count=2, seed=3, sampling={"steps": 6, "token_order": "random"})
    cells, values = read_until(first, 3, row=1)
    rest = first["started"][0]["steps"][3:]
    known = {"cells": cells, "values": values}
    forks = [
        generated(client, seed=seed, known=known, sampling={"token_order": "random", "schedule": rest})
        for seed in (100, 101)
    ]
    for fork in forks:
        assert fork["started"][0]["known"] == cells
        assert [len(event["images"][0]["cells"]) for event in fork["step"]] == [*rest, 0]
        drawn, _ = read_until(fork, len(rest))
        assert sorted(cells + drawn) == list(range(20))
    assert read_until(forks[0], 3) != read_until(forks[1], 3)
    (tmp_path / "fork.json").write_text(json.dumps(forks[0]["done"][0]["images"][0]["record"]))
    assert main(["sample", "--from", str(tmp_path / "fork.json"), "--out", str(tmp_path / "again.png")]) == 0
    again = np.asarray(Image.open(tmp_path / "again.png"))
    assert (again == pixels(forks[0]["done"][0]["images"][0]["picture"])).all()


def test_a_fork_goes_on_with_the_same_belief(client: httpx.Client) -> None:
    """Known cells that are read in their order, as they were, leave the model believing what it believed."""
    first = generated(client, seed=3, sampling={"steps": 6, "token_order": "random"})
    cells, values = read_until(first, 3)
    for in_order, same in ((True, True), (False, False)):
        known = {"cells": cells, "values": values, "in_order": in_order}
        fork = generated(client, seed=9, known=known, sampling={"token_order": "random"})
        before = first["step"][3]["images"][0]["uncertainty"]
        after = fork["step"][0]["images"][0]["uncertainty"]
        assert (after == pytest.approx(before, abs=2e-4)) is same
        record = fork["done"][0]["images"][0]["record"]
        assert record["known"]["in_order"] is in_order


def test_null_undoes_what_the_model_was_saved_with(client: httpx.Client, collection: Collection) -> None:
    heptapod = collection.models["run"].heptapod
    saved = heptapod.sampling
    try:
        heptapod.sampling = SamplingConfig(steps=4, top_k=2)
        found = [
            generated(client, sampling=sampling)["started"][0] for sampling in ({}, {"steps": None, "top_k": None})
        ]
    finally:
        heptapod.sampling = saved
    assert [len(one["steps"]) for one in found] == [4, 20]
    assert [one["sampling"]["top_k"] for one in found] == [2, None]


def test_half_a_character_is_refused(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    for body in (rb'{"model": "\ud800"}', rb'{"model": "run", "sampling": {"temperature": NaN}}', b"\xff", b"{", b""):
        response = client.post("/api/generate", content=body, headers=headers)
        assert response.status_code in (400, 422), body
        assert response.json()["detail"]


def test_long_lists_of_mistakes_are_refused_at_the_first(client: httpx.Client) -> None:
    for values in ([-1] * 300_000, [0] * 300_000):
        began = time.monotonic()
        response = client.post("/api/generate", json={"model": "run", "known": {"cells": [0], "values": values}})
        assert response.status_code == 422
        assert len(response.content) < 2000
        assert time.monotonic() - began < 3


def test_numbers_that_are_too_large_for_a_model_are_refused(client: httpx.Client) -> None:
    values = from_library(torch.full((1, 3), 3e38))
    question = {"model": "vectors", "label": 0, "known": {"cells": [0], "values": values}, "cell": 3}
    response = client.post("/api/cell", json=question)
    assert response.status_code == 422
    assert "values: with them the model's prediction is not finite" in response.text


@pytest.mark.parametrize("name", ["run", "vectors"])
def test_spoiled_weights_are_said(client: httpx.Client, collection: Collection, name: str) -> None:
    weight = collection.devices[0][name].model.token_embedding.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
    try:
        events = client.post("/api/generate", json={"model": name, "label": 0, "sampling": {"steps": 4}}).text
        assert "sampling: the model's predictions are not finite: token_embedding.weight of its weights holds" in events
        known = {"cells": [0], "values": [0] if name == "run" else from_library(torch.zeros(1, 3))}
        response = client.post("/api/cell", json={"model": name, "label": 0, "known": known, "cell": 3})
        assert response.status_code == 422
        assert "prediction is not finite: token_embedding.weight" in response.text
    finally:
        with torch.no_grad():
            weight.copy_(before)


def test_padding_of_a_composite_is_not_sent_back(client: httpx.Client) -> None:
    file = io.BytesIO()
    text = PngInfo()
    text.add_text("padding", "x" * 100_000)
    Image.new("RGB", (20, 16)).save(file, format="PNG", pnginfo=text)
    png = base64.b64encode(file.getvalue()).decode()
    known = {"cells": [0], "values": [1]}
    done = generated(client, count=4, known=known, composite={"image": png, "mask": png})["done"][0]
    assert len(json.dumps(done)) < 20_000


@pytest.mark.parametrize("name", MODELS)
def test_a_cell_answers_as_the_library_does(client: httpx.Client, collection: Collection, name: str) -> None:
    heptapod = collection.models[name].heptapod
    step = list(heptapod.stream(["owl"], seed=1, steps=5))[2]
    cells = step.prefix[0].tolist()
    values = step.tokens[0][cells]
    body = {"cells": cells, "values": values.tolist() if name == "run" else from_library(values)}
    cell = step.cells[0, 0].item()
    question = {"model": name, "label": "owl", "known": body, "cell": cell, "top": 4, "sampling": {"temperature": 0.7}}
    response = client.post("/api/cell", json=question)
    assert response.status_code == 200, response.text
    answer = response.json()
    found = ask_cell(heptapod, cell, "owl", cells, values, top=4, temperature=0.7)
    assert answer["uncertainty"] == pytest.approx(found.uncertainty)
    assert len(answer["candidates"]) == (4 if name == "run" else 5)
    if name == "run":
        chances = [candidate["probability"] for candidate in answer["candidates"]]
        assert chances == pytest.approx(found.probabilities.tolist())
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) + answer["rest"] == pytest.approx(1)
    else:
        assert answer["mean"] == pytest.approx(found.mean.tolist())
        assert answer["spread"] == pytest.approx(found.spread.tolist())
    top, left = answer["offset"]
    row, column = divmod(cell, 5)
    shown = pixels(answer["candidates"][1]["picture"])
    whole = heptapod.decode(found.tokens)[1].permute(1, 2, 0).numpy()
    part = whole[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
    assert (shown[top : top + 4, left : left + 4] == part).all()


def from_library(values: torch.Tensor) -> str:
    return base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()


def test_a_pinned_choice_stays(client: httpx.Client) -> None:
    known = {"cells": [0, 1, 12], "values": [3, 4, 9]}
    found = generated(client, known=known, sampling={"token_order": "random", "steps": 4})
    drawn, _ = read_until(found, 4)
    assert sorted(drawn) == [cell for cell in range(20) if cell not in known["cells"]]


def upload(client: httpx.Client, image: np.ndarray, name: str = "run", fit: str = "crop") -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    response = client.post("/api/encode", data={"model": name, "fit": fit}, files={"file": file.getvalue()})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


@pytest.mark.parametrize(("name", "grid"), [("run", CODES), ("vectors", VECTORS)])
def test_inpainting_is_that_of_the_library(
    client: httpx.Client, collection: Collection, tmp_path: Path, name: str, grid: Any
) -> None:
    """Of an upload, its own pixels put back outside the mask; and its JSON makes it again."""
    heptapod: Heptapod = collection.models[name].heptapod
    image = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    encoded = upload(client, image, name)
    assert (pixels(encoded["picture"]) == image).all()
    assert encoded["converted"] == []
    mask = torch.zeros(16, 20, dtype=torch.bool)
    mask[4:12, 8:16] = True
    tokens = from_values(encoded["values"], 20, grid)
    kept = [n for n in range(20) if not (1 <= n // 5 < 3 and 2 <= n % 5 < 4)]
    values = tokens[kept].tolist() if name == "run" else from_library(tokens[kept])
    composite = {"image": encoded["picture"], "mask": png_base64(Image.fromarray(mask.numpy()))}
    request = {"known": {"cells": kept, "values": values}, "composite": composite, "seed": 5}
    done = generated(client, model=name, **request)["done"][0]["images"][0]
    wanted = edit(heptapod, torch.from_numpy(image).permute(2, 0, 1), mask, "dog", seed=5, composite=True)
    assert (pixels(done["picture"]) == wanted.images[0].permute(1, 2, 0).numpy()).all()
    (tmp_path / "edit.json").write_text(json.dumps(done["record"]))
    assert main(["sample", "--from", str(tmp_path / "edit.json"), "--out", str(tmp_path / "again.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "again.png")) == pixels(done["picture"])).all()


def test_outpainting_is_that_of_the_library(client: httpx.Client, collection: Collection) -> None:
    heptapod = collection.models["run"].heptapod
    image = np.random.default_rng(1).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    encoded = upload(client, image, fit="keep")
    assert encoded["grid"] == [2, 3]
    shifted = [(row + 1) * 5 + column + 2 for row in range(2) for column in range(3)]
    request = {"known": {"cells": shifted, "values": encoded["values"]}, "size": [16, 20], "label": "owl"}
    done = generated(client, **request)["done"][0]["images"][0]
    wanted = outpaint(heptapod, torch.from_numpy(image).permute(2, 0, 1), 16, 20, (4, 8), "owl")
    assert (pixels(done["picture"]) == wanted.images[0].permute(1, 2, 0).numpy()).all()
    larger = generated(client, size=[24, 28], sampling={"steps": 3})
    assert larger["started"][0]["grid"] == [6, 7]
    assert "trained on 16×20" in larger["started"][0]["warnings"][0]


@pytest.mark.parametrize("steps", [None, 6])
def test_where_every_cell_is_given_the_image_is_made_of_them(
    client: httpx.Client, collection: Collection, tmp_path: Path, steps: int | None
) -> None:
    """As after pinning the last cell; also with a model that was saved with steps."""
    heptapod = collection.models["run"].heptapod
    saved, heptapod.sampling = heptapod.sampling, SamplingConfig(steps=steps)
    try:
        found = generated(client, known={"cells": [*range(20)], "values": [3] * 20, "in_order": True})
    finally:
        heptapod.sampling = saved
    assert found["started"][0]["steps"] == []
    assert [event["step"] for event in found["step"]] == [0]
    done = found["done"][0]["images"][0]
    assert (pixels(done["picture"]) == heptapod.decode(torch.full((1, 20), 3))[0].permute(1, 2, 0).numpy()).all()
    (tmp_path / "given.json").write_text(json.dumps(done["record"]))
    assert main(["sample", "--from", str(tmp_path / "given.json"), "--out", str(tmp_path / "again.png")]) == 0
    assert (np.asarray(Image.open(tmp_path / "again.png")) == pixels(done["picture"])).all()


def test_few_frames_are_the_first_the_last_and_some_between(client: httpx.Client) -> None:
    found = generated(client, frames=3, count=1)
    pictured = [event["step"] for event in found["step"] if event["images"][0]["picture"] is not None]
    assert pictured == [0, 10, 20]
    assert all(
        (event["images"][0]["uncertainty"] is None) == (event["step"] not in pictured) for event in found["step"]
    )


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "other"}, 404, "model: 'other' given, served are run, vectors"),
        ({"label": "cow"}, 422, "label: 'cow' is no class of this model"),
        ({"label": 3}, 422, "label: 3 given, must be between 0 and 2"),
        ({"count": 5}, 422, "count: 5 given, this server allows at most 4"),
        ({"size": [128, 16]}, 422, "size: 128×16 given, this server allows sides of at most 64 pixels"),
        ({"size": [15, 16]}, 422, "image size 15×16 is not divisible by the tokenizer's factor 4"),
        ({"size": [64, 64], "count": 2}, 422, "size: 2 images of 256 cells requested, this server allows 320 cells"),
        ({"size": [64, 64]}, 422, "steps: 256 given or needed, this server allows at most 64"),
        ({"sampling": {"steps": 21}}, 422, "steps: 21 given, must be between 1 and 20"),
        ({"sampling": {"cell_steps": 3}}, 422, "cell_steps: 3 given, but this model samples codes"),
        ({"model": "vectors", "sampling": {"cell_steps": 1001}}, 422, "this server allows at most 1000"),
        ({"sampling": {"guidance": 3}}, 422, "guidance: there is no guidance"),
        ({"sampling": {"schedule": [1, 2]}}, 422, "schedule: [1, 2] given, needs positive numbers with sum 20"),
        ({"known": {"cells": [20], "values": [0]}}, 422, "cells: 20 given, must be between 0 and 19"),
        ({"known": {"cells": [0], "values": [16]}}, 422, "values: 16 given, must be between 0 and 15"),
        ({"known": {"cells": [0], "values": [-1] * 1000}}, 422, "greater than or equal to 0"),
        ({"sampling": {f"unknown{n}": 1 for n in range(65)}}, 422, "65 fields given, at most 64 are read"),
        ({"composite": {"image": BROKEN_PNG, "mask": BROKEN_PNG}}, 422, "composite.image: not base64 of a PNG file"),
        ({"composite": {"image": "AAAA", "mask": "AAAA"}}, 422, "composite.image: not base64 of a PNG file"),
        ({"seed": 1 << 53}, 422, "less than"),
        (
            {"model": "vectors", "sampling": {"top_k": 3}},
            422,
            "top_k: 3 given, but this model samples continuous tokens",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_drawn(
    client: httpx.Client, change: dict[str, Any], status: int, message: str
) -> None:
    response = client.post("/api/generate", json={"model": "run", "label": "dog", **change})
    assert response.status_code == status
    assert message in str(response.json()["detail"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [64, 64], "cell": 3}, "size: 9 images of 256 cells requested, this server allows 320 cells"),
        ({"sampling": {"steps": 3}}, "Extra inputs are not permitted"),
        ({"cell": 0}, "cell: 0 given, but it is read already"),
        ({"cell": 20}, "cells: 20 given, must be between 0 and 19"),
        ({"known": {"cells": [0, 0], "values": [1, 1]}}, "cells: one is named twice"),
        ({"known": {"cells": [0], "values": [1, 1]}}, "values: 2 given for 1 cells"),
        ({"known": {"cells": [0], "values": "AAAA"}}, "values: text given, must be a list of codes"),
        ({"top": 99}, "less than or equal to 32"),
        (
            {"model": "vectors", "known": {"cells": [], "values": ""}, "sampling": {"cell_steps": 1001}},
            "this server allows at most 1000",
        ),
        ({"sampling": {"cell_solver": "heun"}}, "cell_solver: heun given"),
        ({"label": "cow"}, "label: 'cow' is no class"),
    ],
)
def test_questions_that_have_no_answer(client: httpx.Client, change: dict[str, Any], message: str) -> None:
    question = {"model": "run", "label": "dog", "known": {"cells": [0], "values": [1]}, "cell": 3, **change}
    response = client.post("/api/cell", json=question)
    assert response.status_code == 422
    assert message in str(response.json()["detail"])
