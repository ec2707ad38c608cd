"""Commands that two processes share: the same bytes as of one, failures that end both and are told once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from heptapod import Heptapod
from heptapod.cli import main
from heptapod.distributed import process_group
from heptapod.distributed.device import resolve_device
from heptapod.evaluation.features import CallableFeatures
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.tokenizers import VQConfig, build_tokenizer
from tests.cli.test_evaluate_command import colors
from tests.conftest import randomized, write_classes

ROOT = Path(__file__).parents[2]
BATCH = ["--steps", "4", "--batch_size", "4", "--seed", "3"]
TRAIN = ["train", "cifar10", "--data", "real", "--tokenizer.model.kind", "pixel", "--out", "run"]
ALIKE = {
    "uneven": ["evaluate", "model", "--reference", "real", "--count", "13", *BATCH, "--npz", "{}/samples.npz"],
    "few": ["evaluate", "model", "--reference", "real", "--count", "7", "--steps", "4"],
    "classes": ["evaluate", "model", "--reference", "real", "--count", "9", *BATCH, "--label_policy", "reference"],
    "folder": ["evaluate", "--samples", "real", "--reference", "real", "--batch_size", "3"],
    "part": ["evaluate", "--samples", "real", "--reference", "real", "--count", "17", "--batch_size", "2"],
    "reference": ["reference", "real", "--batch_size", "5", "--features_kept", "11", "--out", "{}/real.safetensors"],
    "pictures": ["sample", "model", "--count", "3", *BATCH, "--out", "{}"],
    "picture": ["sample", "model", "--count", "35", "--steps", "4", "--out", "{}/all.png", "--belief", "{}/belief.png"],
    "likelihood": ["likelihood", "model", "--data", "real", "--split", "all", "--zero_shot", "--batch_size", "3"],
    "orders": ["likelihood", "model", "--data", "real", "--token_order", "random", "--orders", "2", "--split", "train"],
}
"""Commands whose results are to be those of one process; {} stands for the folder they write."""
FAILING: dict[str, dict[str, Any]] = {
    "steps": {"arguments": [*ALIKE["uneven"], "--steps", "99"]},
    "parser": {"arguments": ["evaluate", "model", "--reference", "real", "--count", "many"]},
    "help": {"arguments": ["evaluate", "--help"]},
    "device": {"arguments": [*ALIKE["uneven"], "--device", "cpu:0"]},
    "first": {"arguments": ALIKE["uneven"], "fails_in": 0, "how": "value"},
    "second": {"arguments": ALIKE["uneven"], "fails_in": 1, "how": "value"},
    "batch": {"arguments": [*TRAIN, "--train.batch_size", "7"]},
    "resume": {"arguments": [*TRAIN, "--train.resume", "123"]},
    "setting": {"arguments": [*TRAIN, "--model.widht", "7"]},
    "one only": {"arguments": ["edit", "model", "image.png"]},
}
BLOCKS = [0, 1, 2, 5]


def run_two(folder: Path, tasks: list[dict[str, Any]]) -> list[subprocess.CompletedProcess[str]]:
    """Two processes do the tasks, for each of which they meet at a port of its own."""
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in tasks]
        for each, task in zip(free, tasks, strict=True):
            each.bind(("127.0.0.1", 0))
            task["port"] = each.getsockname()[1]
    shared = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    shared |= {"HEPTAPOD_TEST_THREADS": str(torch.get_num_threads())}
    worker = [sys.executable, "-m", "tests.cli.distributed_worker", json.dumps(tasks)]
    workers = [
        subprocess.Popen(
            worker, env={**shared, "RANK": rank, "LOCAL_RANK": rank}, cwd=folder, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    said = [each.communicate(timeout=120)[1] for each in workers]
    return [
        subprocess.CompletedProcess(worker, each.returncode, stderr=text)
        for each, text in zip(workers, said, strict=True)
    ]


def into(arguments: list[str], folder: str) -> list[str]:
    filled = [argument.format(folder) for argument in arguments]
    return filled if "--out" in filled else [*filled, "--out", folder]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of two classes, and with 20 real images, six of which cannot be read."""
    folder = tmp_path_factory.mktemp("together")
    tokenizer = build_tokenizer(VQConfig(width=8, codebook_size=7, code_width=4))
    config = ModelConfig(width=32, depth=2, num_heads=2, head=HeadConfig("cross", 1))
    model = randomized(build_model(config, GridSpec(4, 4, 7), 2, 0))
    Heptapod(model, tokenizer, ["dark", "light"], "mixed").save_pretrained(folder / "model")
    write_classes(folder / "real", 13)
    for number in (0, 1, 2, 5, 9, 12):
        (folder / "real" / "dark" / f"{number:02d}.png").write_bytes(b"broken")
    return folder


@pytest.fixture(scope="module")
def together(place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What came of every task in each of two processes."""
    alike = {name: {"arguments": into(arguments, f"two/{name}")} for name, arguments in ALIKE.items()}
    failing = {name: {**task, "arguments": into(task["arguments"], "failed")} for name, task in FAILING.items()}
    tasks = {**alike, **failing, **{f"blocks {count}": {"blocks": count} for count in BLOCKS}}
    tasks["killed"] = {"arguments": into(ALIKE["uneven"], "failed"), "fails_in": 1, "how": "kill"}
    done = run_two(place, list(tasks.values()))
    assert [each.returncode for each in done] == [0, -9], done
    results = [json.loads((place / f"rank{rank}.json").read_text()) for rank in "01"]
    assert [len(each) for each in results] == [len(tasks), len(tasks) - 1]
    one, other = (dict(zip(tasks, each, strict=False)) for each in results)
    return one, other


Alone = Callable[[str], str]


@pytest.fixture
def alone(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Alone:
    """Runs a command in this process; gives back what it said."""

    def extractor(*_: Any) -> CallableFeatures:
        return CallableFeatures("colors", 6, colors, lambda features: features[:, :4] * 9, 4)

    monkeypatch.chdir(place)
    monkeypatch.setattr("heptapod.evaluation.features.open_extractor", extractor)
    monkeypatch.setattr("heptapod.utils.logging.SECONDS_BETWEEN_LINES", 0)

    def run(name: str) -> str:
        assert main(into(ALIKE[name], f"one/{name}")) == 0
        return capsys.readouterr().err

    return run


def facts(file: Path) -> dict[str, Any]:
    """A result without what tells of the run."""
    values: dict[str, Any] = json.loads(file.read_text())
    for name in ("processes", "seconds", "images_per_second"):
        values.pop(name, None)
    return values


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_find_what_one_does(place: Path, together: Any, alone: Alone, name: str) -> None:
    assert [task[name]["code"] for task in together] == [0, 0], together
    alone(name)
    files = sorted(path.relative_to(place / "one") for path in (place / "one" / name).rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(place / "two") for path in (place / "two" / name).rglob("*") if path.is_file()
    )
    for file in files:
        one, two = place / "one" / file, place / "two" / file
        if file.suffix == ".json":
            assert facts(one) == facts(two)
            assert [json.loads(path.read_text())["processes"] for path in (one, two)] == [1, 2]
        else:
            assert one.read_bytes() == two.read_bytes(), file


def test_progress_counts_the_images_of_all(together: Any, alone: Alone) -> None:
    def counted(text: str) -> list[str]:
        return re.findall(r"(sampling|samples: features|reference: features).*?: (\d+)/(\d+)", text)

    for name in ("uneven", "folder"):
        assert counted(together[0][name]["err"]) == counted(alone(name)) != []
        assert counted(together[1][name]["err"]) == []


def test_every_image_that_cannot_be_read_is_told_once(together: Any) -> None:
    first, second = (re.findall(r"samples: left out, (\S+):", task["folder"]["err"]) for task in together)
    assert sorted(first + second) == [f"dark/{number:02d}.png" for number in (0, 1, 2, 5, 9, 12)]
    assert first
    assert second


def test_warnings_are_told_once(together: Any, alone: Alone) -> None:
    told = "warning: batch_size: 7 images in batches of 64 are work for 1 of 2 processes"
    assert told in together[0]["few"]["err"]
    assert "are work for" not in together[1]["few"]["err"]
    assert "are work for" not in alone("few")


def errors(task: dict[str, Any]) -> list[str]:
    return [line for line in task["err"].splitlines() if "heptapod: error" in line]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("steps", "heptapod: error: steps: 99 given"),
        (
            "device",
            "heptapod: error: device: cpu:0 given, but every process has its own GPU",
        ),
        ("first", "heptapod: error: colors: cannot see"),
        ("second", "heptapod: error: in process 1 of 2: colors: cannot see"),
        ("batch", "heptapod: error: train.batch_size: 7 given, must be divisible by 2 processes"),
        ("resume", "heptapod: error: train.resume: 123 given, but the steps with a checkpoint"),
        ("setting", "heptapod: error: unknown setting 'model.widht'"),
    ],
)
def test_a_failure_ends_all_and_is_told_once(place: Path, together: Any, name: str, message: str) -> None:
    assert [task[name]["code"] for task in together] == [2, 2]
    (told,) = errors(together[0][name]) + errors(together[1][name])
    assert re.match(message, told)
    assert not any("Traceback" in task[name]["err"] for task in together)
    assert not (place / "failed").exists()


def test_the_parser_is_heard_once(together: Any) -> None:
    assert [task["parser"]["code"] for task in together] == [2, 2]
    assert "count: 'many' given; input should be a valid integer" in together[0]["parser"]["err"]
    assert [task["help"]["code"] for task in together] == [0, 0]
    assert "usage: heptapod evaluate" in together[0]["help"]["out"]
    assert {together[1][name][stream] for name in ("parser", "help") for stream in ("out", "err")} == {""}


def test_work_of_one_process_says_so(together: Any) -> None:
    assert [task["one only"]["code"] for task in together] == [2, 2]
    told = "heptapod: error: edit runs in one process; start it without torchrun\n"
    assert [task["one only"]["err"] for task in together] == [told, ""]


@pytest.mark.parametrize("count", BLOCKS)
def test_blocks_come_in_order(together: Any, count: int) -> None:
    first, second = (task[f"blocks {count}"]["blocks"] for task in together)
    expected = [[[[number, number]] * number, "torch.float16"] for number in range(count)]
    assert first == [expected, [count], 0]
    assert second == [[], [count], 1]


def test_a_killed_process_ends_the_other(place: Path, together: Any) -> None:
    assert together[0]["killed"]["code"] == 2
    (told,) = errors(together[0]["killed"])
    assert told.startswith("heptapod: error: another process is gone, or did not answer in time")
    assert not (place / "failed").exists()


def test_alone_any_device_will_do() -> None:
    assert not process_group.is_distributed()
    assert resolve_device("cpu:0") == torch.device("cpu:0")
