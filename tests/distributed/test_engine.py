"""Two processes, whatever the strategy, are one process with the joint batch; runs go on with any number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from heptapod.training.checkpoint import checkpoints, flat, read_checkpoint
from heptapod.training.logging import read_metrics
from heptapod.utils.files import read_tensors
from tests.distributed.launch import run_workers
from tests.distributed.worker import IMAGES, train

FSDP = {"strategy": "fsdp"}
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": FSDP,
    "ddp_accumulated": {"accumulation": 2},
    "fsdp_accumulated": {**FSDP, "accumulation": 2},
    "fsdp_recomputed": {**FSDP, "activation_checkpointing": True},
}
HEADS = ["global", "local", "next_token"]
DOUBLE = {"dtype": "float64", "train": {"steps": 40, "save_every": 10, "eval_every": 40, "preview_every": 40}}


def scenario(name: str, **changes: Any) -> dict[str, Any]:
    train = {**changes.get("train", {})}
    return {"name": name, **changes, "train": train}


def double(name: str, stop_at: int | None = None, **train: Any) -> dict[str, Any]:
    return {**DOUBLE, "name": name, "stop_at": stop_at, "train": {**DOUBLE["train"], **train}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes and of one, some broken off after 25 of 40 steps, and gone on by as many or by fewer."""
    folder = tmp_path_factory.mktemp("runs")
    run_workers(
        folder,
        [scenario(name, train=settings) for name, settings in ENGINES.items()]
        + [scenario(f"fsdp_{head}", head=head, train={**FSDP, "steps": 20}) for head in HEADS]
        + [scenario(f"{name}_bf16", train={"precision": "bfloat16", "strategy": name}) for name in ("ddp", "fsdp")]
        + [
            scenario(f"{name}_minutes", skewed=True, train={"minutes": 0.03, "strategy": name})
            for name in ("ddp", "fsdp")
        ]
        + [double("ddp_64"), double("fsdp_64", **FSDP), double("fsdp_64_no_ema", **FSDP, ema_decay=0.0)]
        + [double(f"{name}_64_broken", 25, strategy=name) for name in ("ddp", "fsdp")],
    )
    alone(folder, scenario("one"))
    for head in HEADS:
        alone(folder, scenario(f"one_{head}", head=head, train={"steps": 20}))
    alone(folder, scenario("one_recomputed", train={"activation_checkpointing": True}))
    alone(folder, scenario("one_bf16", train={"precision": "bfloat16"}))
    alone(folder, double("one_64"))
    alone(folder, double("one_64_broken", 25))
    for source, target in (
        ("fsdp", "two_to_one"),
        ("fsdp", "two_to_two"),
        ("ddp", "ddp_to_fsdp"),
        ("ddp", "ddp_to_ddp"),
    ):
        shutil.copytree(folder / f"{source}_64_broken", folder / target)
    shutil.copytree(folder / "one_64_broken", folder / "one_to_two")
    alone(folder, double("two_to_one", strategy="fsdp"))
    run_workers(
        folder,
        [
            double("two_to_two", **FSDP),
            double("ddp_to_fsdp", **FSDP),
            double("ddp_to_ddp"),
            double("one_to_two", **FSDP),
        ],
    )
    return folder


def alone(folder: Path, scenario: dict[str, Any]) -> None:
    run = folder / scenario["name"]
    run.mkdir(exist_ok=True)
    (run / "rank0.json").write_text(json.dumps(train(run, scenario)))
    (run / "rank1.json").write_text(json.dumps({"seen": []}))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_follow_one_clock(runs: Path, strategy: str) -> None:
    ranks = [json.loads((runs / f"{strategy}_minutes" / f"rank{rank}.json").read_text())["seen"] for rank in (0, 1)]
    steps = [max(step for step, _, _ in seen) for seen in ranks]
    assert steps[0] == steps[1] > 0
    rates = [line["lr"] for line in read_metrics(runs / f"{strategy}_minutes" / "metrics.jsonl") if "lr" in line]
    assert len(rates) == steps[0] + 1


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def seen(folder: Path) -> list[list[int]]:
    """(step, epoch, image) of what all processes read, in the order of the batches."""
    ranks = [json.loads((folder / f"rank{rank}.json").read_text())["seen"] for rank in (0, 1)]
    return sorted(ranks[0] + ranks[1], key=lambda item: item[0])


def final(folder: Path) -> dict[str, Tensor]:
    return flat(read_checkpoint(checkpoints(folder / "checkpoints")[-1]))


@pytest.mark.parametrize("name", ENGINES)
def test_losses_are_those_of_one_process(runs: Path, name: str) -> None:
    expected = losses(runs / "one")
    assert len(expected) == 50
    assert expected[-1] < 0.9 * expected[0], "there is something to learn"
    assert losses(runs / name) == pytest.approx(expected, abs=1e-5)
    figures = [line for line in read_metrics(runs / name / "metrics.jsonl") if "val_loss" in line]
    alone = [line for line in read_metrics(runs / "one" / "metrics.jsonl") if "val_loss" in line]
    assert [line["val_loss"] for line in figures] == pytest.approx([line["val_loss"] for line in alone], abs=1e-5)
    best, expected_best = (read_tensors(runs / run / "best" / "model.safetensors") for run in (name, "one"))
    assert all(torch.allclose(best[key], expected_best[key], atol=1e-4) for key in expected_best)


@pytest.mark.parametrize("head", HEADS)
def test_of_every_head(runs: Path, head: str) -> None:
    assert losses(runs / f"fsdp_{head}") == pytest.approx(losses(runs / f"one_{head}"), abs=1e-5)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_in_bfloat16(runs: Path, name: str) -> None:
    assert losses(runs / f"{name}_bf16") == pytest.approx(losses(runs / "one_bf16"), abs=0.02)


def test_recomputed_blocks_change_no_bit(runs: Path) -> None:
    assert losses(runs / "one_recomputed") == losses(runs / "one")


@pytest.mark.parametrize("name", ["ddp_64", "fsdp_64"])
def test_weights_in_float64_are_those_of_one_process(runs: Path, name: str) -> None:
    found, expected = final(runs / name), final(runs / "one_64")
    assert found.keys() == expected.keys()
    largest = {key: float((found[key].double() - expected[key].double()).abs().max()) for key in expected}
    assert {key: value for key, value in largest.items() if value > 1e-8} == {}


def test_without_an_average(runs: Path) -> None:
    assert "ema" not in {name.partition("/")[0] for name in final(runs / "fsdp_64_no_ema")}
    last = read_tensors(runs / "fsdp_64_no_ema" / "last" / "model.safetensors")
    weights = final(runs / "fsdp_64")
    assert all(torch.equal(tensor, weights[f"model/{name}"]) for name, tensor in last.items())


@pytest.mark.parametrize(
    ("name", "whole", "exact"),
    [
        ("two_to_two", "fsdp_64", True),
        ("ddp_to_ddp", "ddp_64", True),
        ("two_to_one", "one_64", False),
        ("one_to_two", "one_64", False),
        ("ddp_to_fsdp", "fsdp_64", False),
    ],
)
def test_a_broken_run_goes_on_as_if_never_stopped(runs: Path, name: str, whole: str, exact: bool) -> None:
    assert losses(runs / name) == pytest.approx(losses(runs / whole), abs=1e-6)
    assert len(losses(runs / name)) == 40
    found, expected = final(runs / name), final(runs / whole)
    assert found.keys() == expected.keys()
    if exact:
        assert losses(runs / name) == losses(runs / whole)
        assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    else:
        assert all(torch.allclose(found[key].double(), expected[key].double(), atol=1e-8) for key in expected)


@pytest.mark.parametrize("name", ["two_to_one", "one_to_two", "two_to_two"])
def test_no_image_is_lost_or_repeated(runs: Path, name: str) -> None:
    broken = runs / ("one_64_broken" if name.startswith("one") else "fsdp_64_broken")
    read = [item for item in seen(broken) if item[0] < 20] + seen(runs / name)  # step 20 was saved
    whole = seen(runs / "one_64")
    assert sorted(read) == sorted(whole)
    for epoch in range(6):  # 40 steps of 8 images are 6 epochs of 52 and a bit
        assert sorted(image for _, e, image in read if e == epoch) == list(range(IMAGES))
