"""``heptapod bench``, in this process: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heptapod.cli import main

from .test_cli import fails

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
    assert report["settings"]["dtype"] == "float32"
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
    assert "## Left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "benchmark: none given, must be sampling"),
        (["training"], "benchmark: 'training' given, must be sampling"),
        (["sampling", "--sizes", "huge"], "sizes: huge given, must be among tiny, B, L, H"),
        (["sampling", "--models", "mar"], "models: mar given, must be among cross"),
        (["sampling", "--steps", "some"], "steps: some given"),
        (["sampling", "--batches", "0"], "batches: 0 given, must be at least 1"),
        (["sampling", "--device", "cuda:99"], "device: cuda:99 given"),
        (["sampling", "--out", "x.csv"], "out: x.csv given, must be a folder or a .json file"),
    ],
)
def test_mistakes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(capsys, ["bench", *arguments], message)
    assert not list(tmp_path.iterdir())


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sampling", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in ("--max_seconds", "--batches", "KV cache", "one cell per step"))
