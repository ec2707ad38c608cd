"""``heptapod bench``, in this process: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from heptapod.cli import main

QUICK = ["--sizes", "tiny", "--models", "cross", "next_token", "masked", "--grids", "4", "8", "--batches", "1"]
QUICK += ["--steps", "8", "all", "--repeats", "1", "--vocabulary", "16", "--threads", "1", "--device", "cpu"]


def test_bench_sampling_writes_json_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sampling", *QUICK, "--out", str(tmp_path / "mine.json")]) == 0
    text = (tmp_path / "mine.md").read_text(encoding="utf-8")
    out, err = capsys.readouterr()
    assert text in out
    assert "[10/10]" in err
    report = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    assert set(report) == {"benchmark", "hardware", "settings", "rows", "skipped", "exponents", "ratios"}
    assert report["hardware"]["threads"] == 1
    assert report["settings"]["precisions"] == ["float32"]
    assert {row["precision"] for row in report["rows"]} == {"float32"}
    assert len(report["rows"]) == 10
    assert report["skipped"] == []
    assert {exponent["steps"] for exponent in report["exponents"]} == {8, "all"}
    assert any("one cell per step / next_token" in ratio["what"] for ratio in report["ratios"])
    assert str(tmp_path) not in json.dumps(report) + text


def test_a_row_that_takes_too_long_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sampling", *QUICK, "--max_seconds", "1e-6", "--out", str(tmp_path / "folder")]) == 0
    report = json.loads((tmp_path / "folder" / "sampling.json").read_text(encoding="utf-8"))
    assert report["rows"] == []
    assert len(report["skipped"]) == 10
    assert all(row["predicted_seconds"] > 1e-6 for row in report["skipped"])
    assert "## Skipped" in capsys.readouterr().out


def test_bench_training_writes_json_markdown_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["bench", "training", "demo", "--models", "own", "next_token", "--rounds=1", "--threads", "1"]
    arguments += ["--train.batch_size", "4", "--model.width", "16", "--model.num_heads", "1", "--grid", "4x4"]
    arguments += ["--codes", "8", "--classes", "3", "--memory", "False", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "mine.json")]) == 0
    out, _ = capsys.readouterr()
    assert (tmp_path / "mine.md").read_text(encoding="utf-8") in out
    with Image.open(tmp_path / "mine.png") as picture:
        assert picture.size[0] > 500
    report = json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    assert set(report) == {
        "benchmark", "hardware", "settings", "assumed", "clock", "peak", "rows", "left_out"
    }  # fmt: skip
    assert [row["model"] for row in report["rows"]] == ["cross:all/1", "next_token"]
    assert report["settings"]["batch_size"] == 4
    assert report["settings"]["grid"] == {"height": 4, "width": 4, "vocabulary_size": 8, "channels": 0}
    assert report["clock"] == "process"
    assert str(tmp_path) not in json.dumps(report)


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sampling", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in ("--max-seconds", "--batches", "KV cache", "one cell per step"))
    assert main(["bench", "training", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in ("RECIPE", "--models", "--max-seconds", "utilization", "global:4/all"))
