"""What a run folder tells, over HTTP."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from heptapod.studio.app import create_app
from heptapod.studio.models import _names, load_models
from heptapod.studio.runs import MAX_POINTS, find_run, read_evaluations, read_run
from tests.studio.conftest import LIMITS, serving


def evaluation(folder: Path, steps: int, **changes: Any) -> None:
    values = {
        "metrics": {"frechet_distance[x]": 12.5 + steps, "kernel_distance[x]": {"mean": 0.5, "standard_error": 0.1}},
        "samples": {"count": 100},
        "evaluator": {"name": "x"},
        "reference": {"source": {"path": "/somewhere/mnist5k"}},
        "generation": {"steps": steps, "sampling": {"token_order": "raster", "temperature": 0.9}},
    }
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps({**values, **changes}))


def test_models_say_what_they_are(client: httpx.Client) -> None:
    served = client.get("/api/models").json()
    assert served["limits"]["count"] == LIMITS.count
    codes, vectors = served["models"]
    assert (codes["name"], codes["vocabulary_size"], codes["channels"], codes["has_run"]) == ("run", 16, 0, True)
    assert (vectors["name"], vectors["vocabulary_size"], vectors["channels"], vectors["has_run"]) == (
        "vectors",
        0,
        3,
        False,
    )
    assert codes["class_names"] == ["cat", "dog", "owl"]
    assert (codes["size"], codes["grid"], codes["factor"]) == ([16, 20], [4, 5], 4)
    assert codes["needs_label"] is False
    assert "raster" in codes["token_orders"]
    assert "confidence" in codes["token_orders"]
    assert vectors["sampling"]["cell_steps"] > 0
    assert client.get("/docs").status_code == 200
    assert re.findall(r"(?:https?:)?//[^\s\"']+", client.get("/docs").text) == [], "no other host"


def test_a_run_over_http(client: httpx.Client) -> None:
    found = client.get("/api/models/run/run").json()
    (run,) = found["runs"]
    assert run["stage"] == "model"
    assert run["curves"] == [
        {"name": "loss", "steps": [10, 20], "values": [3.0, 2.0]},
        {"name": "val_loss", "steps": [10], "values": [2.5]},
    ]
    assert run["settings"] == "description: a run\n"
    assert run["grids"] == [10, 20]
    image = client.get("/api/models/run/run/grids/model/20")
    assert image.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(image.content)).getpixel((0, 0)) == (20, 0, 0)
    for path in ("grids/model/15", "grids/tokenizer/10"):
        missing = client.get(f"/api/models/run/run/{path}")
        assert (missing.status_code, "no sample grid" in missing.text) == (404, True)
    assert client.get("/api/models/vectors/run").status_code == 404
    assert client.get("/api/models/none/run").status_code == 404


def test_long_curves_are_thinned_and_a_cut_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    lines = "".join(json.dumps({"step": step, "loss": step / 2}) + "\n" for step in range(3 * MAX_POINTS))
    (tmp_path / "metrics.jsonl").write_text(lines + '{"step": 1, "lo')
    (curve,) = read_run(tmp_path)[0].curves
    assert len(curve.steps) == MAX_POINTS
    assert (curve.steps[1], curve.values[1]) == (3, 1.5)
    assert find_run(tmp_path / "best") == tmp_path
    assert find_run(tmp_path.parent) is None


def test_evaluations_by_steps(tmp_path: Path, place: Path) -> None:
    """In the run's folder or named; others' files of that name do no harm."""
    for steps in (16, 4):
        evaluation(tmp_path / "evaluations" / f"steps_{steps}", steps)
    evaluation(tmp_path / "others", 8, metrics=None)
    evaluation(tmp_path / "samples", 8, generation=None)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "evaluation.json").write_text("{")
    found = read_evaluations([tmp_path, tmp_path / "evaluations"])
    assert [(one.name, one.steps) for one in found] == [("samples", None), ("steps_4", 4), ("steps_16", 16)]
    assert found[1].metrics == {"frechet_distance[x]": 16.5, "kernel_distance[x]": 0.5}
    assert (found[1].reference, found[1].token_order, found[1].temperature) == ("mnist5k", "raster", 0.9)
    collection = load_models([str(place / "vectors")], [torch.device("cpu")], [str(tmp_path)])
    with serving(create_app(collection, LIMITS)) as address:
        answer = httpx.get(f"{address}/api/models/vectors/run").json()
    assert answer["runs"] == []
    assert len(answer["evaluations"]) == 3


def test_models_of_one_name_are_told_apart(place: Path) -> None:
    paths = [str(place / "run"), str(place / "run" / "best"), str(place / "vectors")]
    assert list(load_models(paths, [torch.device("cpu")]).models) == ["run", "run-2", "vectors"]
    assert _names([Path("x-2"), Path("a/x"), Path("b/x"), Path("xy")]) == ["x-2", "x", "x-3", "xy"]
    with pytest.raises(FileNotFoundError, match="evaluations: nowhere is no folder"):
        load_models(paths, [torch.device("cpu")], ["nowhere"])
