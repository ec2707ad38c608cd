"""``heptapod plan``, in this process: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heptapod.cli import main

SMALL = ["--model.depth", "1", "--model.head.depth", "1", "--model.width", "16", "--model.num_heads", "1"]
GRID = ["--grid", "4x4", "--codes", "8", "--classes", "3", "--images", "50"]


def test_table_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plans" / "demo.json"
    arguments = ["plan", "demo", *SMALL, *GRID, "--gpus", "4", "--gpu=l40s", "--out", str(out)]
    assert main([*arguments, "--train.batch_size", "32", "--dollars-per-gpu-hour", "2"]) == 0
    text = capsys.readouterr().out
    for part in (
        "demo on 4 × l40s",
        "4×4 cells of 8 codes, 3 classes",
        "saved for backward",
        "GPU-hours",
        "$",
        "50 images",
    ):
        assert part in text, text
    assert "It fits" in text
    told = json.loads(out.read_text())
    assert set(told) == {
        "recipe", "assumed", "grid", "classes", "training", "hardware", "parameters", "flops", "memory", "time",
        "sampling", "storage",
    }  # fmt: skip
    assert told["training"]["batch_size"] == 32
    assert told["hardware"]["gpus"] == 4
    assert told["memory"]["micro_batch"] == 8
    assert main([*arguments[:-2], "--train.batch_size", "32", "--dollars_per_gpu_hour", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told


def test_what_does_not_fit_says_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "demo", *SMALL, *GRID, "--train.batch_size", "16", "--gpus", "2"]
    assert main([*arguments, "--gpu_tflops", "100", "--gpu_memory_gib", "0.0006"]) == 0
    text = capsys.readouterr().out
    assert "custom" in text
    assert "It does not fit" in text
    assert "each with its smallest accumulation:" in text
    assert "  --train.accumulation " in text
    assert "--train.activation_checkpointing" in text
    assert main([*arguments, "--gpu_tflops", "100", "--gpu_memory_gib", "0.00001"]) == 0
    assert "No option fits" in capsys.readouterr().out


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(word in text for word in ("--utilization", "--dollars-per-gpu-hour", "--json", "rtx4090", "RECIPE"))
