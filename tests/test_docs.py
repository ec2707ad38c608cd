"""Every command and every Python sample of the README and the docs runs, at a size for tests."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from heptapod.cli import main
from heptapod.studio.schemas import CellRequest, GenerateRequest
from heptapod.tokenizers.pretrained import Taef2Config, build_pretrained
from heptapod.utils.files import read_json
from tests.data.shards import write_shards

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/index.md",  # trains what the later pages use
    "docs/sampling.md",
    "docs/tutorial.md",
    "docs/tokenizers.md",
    "docs/continuous.md",
    "docs/extending.md",
    "docs/concepts.md",
    "docs/numbers.md",
    "docs/evaluation.md",
    "docs/likelihood.md",
    "docs/probes.md",
    "docs/planning.md",
    "docs/growth.md",
    "docs/ablations.md",
    "docs/claim.md",
    "docs/scale.md",
    "docs/studio.md",
]
COMMAND_LINE = ("heptapod.cli", "heptapod.cli", "heptapod.tools.bench")
"""Not in the reference: it explains itself (``--help``)."""
SMALL_TOKENIZER = [
    "--tokenizer.model.width", "8", "--tokenizer.train.steps", "4", "--tokenizer.train.batch_size", "4",
]  # fmt: skip
SMALL_MODEL = [
    "--model.width", "16", "--model.depth", "1", "--model.num_heads", "1", "--model.head.depth", "1",
    "--train.steps", "4", "--train.batch_size", "4", "--train.eval_images", "4",
]  # fmt: skip
SMALL = [*SMALL_TOKENIZER, *SMALL_MODEL]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    return [command for line in lines if (command := line.partition("#")[0].strip())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data that the pages speak of."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(24):
        name = folder / "photos" / ("cats" if number % 2 else "dogs") / f"{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 36, 3), dtype=np.uint8)).save(name)
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(stream, format="PNG")
        rows.append({"bytes": stream.getvalue(), "path": None})
    Image.fromarray(rng.integers(0, 255, (28, 28, 3), dtype=np.uint8)).save(folder / "seven.png")
    Image.fromarray(np.repeat(np.uint8([0, 255]), 14)[:, None].repeat(28, 1)).save(folder / "mask.png")
    (folder / "cifar10").mkdir()
    for split in ("train", "test"):
        table = pa.table({"image": rows, "label": [i % 10 for i in range(24)]})
        pq.write_table(table, folder / "cifar10" / f"{split}.parquet")
    write_shards(folder / "photos", folder / "shards", 12)
    (folder / "taef2").mkdir()
    weights = build_pretrained(Taef2Config()).state_dict()
    for part in ("encoder", "decoder"):  # as published, but untrained
        own = {name.removeprefix(f"{part}."): value for name, value in weights.items() if name.startswith(part)}
        save_file(own, folder / "taef2" / f"taef2_{part}.safetensors")
    return folder


def test_the_pages_have_commands() -> None:
    found = commands()
    assert sum(command.startswith("heptapod ") for command in found) >= 9
    known = ("heptapod ", "make ", "pip install ", "torchrun ", "python ", "curl ")
    assert [command for command in found if not command.startswith(known)] == []


@pytest.fixture(scope="module")
def after_commands(place: Path) -> Path:
    """The same folder after every heptapod command of the pages, in their order."""
    pytest.importorskip("mlxtend")
    uvicorn = pytest.importorskip("uvicorn")
    seen: list[list[str]] = []
    with (
        contextlib.chdir(place),
        open("printed.txt", "w") as printed,
        contextlib.redirect_stdout(printed),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
        for command in commands():
            program, *arguments = shlex.split(command)
            if program != "heptapod" or arguments in seen:
                continue
            seen.append(arguments)
            if arguments[0] == "studio":  # on a free port, and ended as soon as it would serve
                arguments += ["--port", "0"]
            small = {"train": SMALL, "demo": SMALL, "train-tokenizer": SMALL_TOKENIZER}.get(arguments[0], [])
            places = {*arguments, *(["caches/digits5"] if "digits_features" in arguments else [])}
            if arguments[0] == "train" and (
                "--tokenizer.path" in arguments or any((Path(place) / "cache.json").is_file() for place in places)
            ):
                small = SMALL_MODEL  # the tokenizer is trained already
            assert main([*arguments, *(small if "--help" not in arguments else [])]) == 0, command
    return place


def test_every_heptapod_command_runs(after_commands: Path) -> None:
    for file in (
        "digits.png", "digits.json", "wide.png", "edited.png", "larger.png", "variations.png", "photos.png",
        "drawing.gif", "drawing.png", "sampling-bench/sampling.md", "belief.png", "runs/demo/metrics.json", "sheet.png",
        "vq-evaluation/evaluation.json", "evaluation/samples.png", "against-train/evaluation.json",
        "caches/cifar10/index.json", "runs/from-cache/best/model.safetensors", "shards/heptapod-index.safetensors",
        "runs/shards/tokenizer/best/model.safetensors",
    ):  # fmt: skip
        assert (after_commands / file).is_file(), file


def test_the_demo_judges_what_it_made(after_commands: Path) -> None:
    out = after_commands / "runs" / "demo"
    metrics = read_json(out / "metrics.json")
    assert metrics["judge_accuracy_on_real_held_out"] >= 0.96
    assert [result["sampling"]["steps"] for result in metrics["results"]] == [49, 8]
    assert all(result["accuracy"] < 0.5 for result in metrics["results"]), "an untrained model draws no digits"
    assert {path.name for path in out.glob("*.png")} == {"samples.png", "belief.png"}
    assert "recognised" in (after_commands / "printed.txt").read_text()


def test_every_python_sample_runs(after_commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(after_commands)
    for page in PAGES:
        names: dict[str, object] = {"__name__": "sample"}
        for block in blocks(page, "python"):
            exec(compile(block, page, "exec"), names)
    assert (after_commands / "three.png").is_file()
    assert (after_commands / "cat.png").is_file()


def test_requests_of_the_studios_page_are_taken() -> None:
    """As the API describes them."""
    found = [shlex.split(command) for command in commands() if command.startswith("curl ")]
    shapes = {"generate": GenerateRequest, "cell": CellRequest}
    for words in found:
        if "-d" in words:
            name = next(word for word in words if word.startswith("http")).rpartition("/")[2]
            assert shapes.pop(name).model_validate_json(words[words.index("-d") + 1]).model == "demo"
    assert not shapes


def test_the_notebook_runs(after_commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(after_commands)
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in read_json(ROOT / "docs" / "notebooks" / "studio.ipynb")["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "studio.ipynb", "exec"), names)
    assert names["painted"].kept_cells_identical
    assert torch.equal(names["again"], names["painted"].images)
    assert main(["sample", "--from", "runs/notebook/three.json", "--out", "again.png"]) == 0
    assert Image.open("again.png").tobytes() == Image.open("runs/notebook/three.png").tobytes()


def test_the_animation_of_the_readme_can_be_made_again(after_commands: Path) -> None:
    out = after_commands / "animation.webp"
    script = ROOT / "scripts" / "readme_animation.py"
    subprocess.run([sys.executable, script, after_commands / "runs" / "demo", out, "--labels", "3"], check=True)
    made, shown = Image.open(out), Image.open(ROOT / "docs" / "images" / "demo.webp")
    assert getattr(made, "n_frames", 1) == getattr(shown, "n_frames", 1) == 50, "49 steps and the finished image"
    assert made.height == shown.height


def test_make_targets_exist() -> None:
    for command in commands():
        if command.startswith("make "):
            target = command.split()[1]
            done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_links_and_pictures_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text()):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_paths_named_in_the_readme_exist() -> None:
    for path in re.findall(r"`(src/heptapod/[^`]*)`", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path


def test_every_page_is_in_the_navigation_and_its_samples_are_run() -> None:
    def files(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:  # type: ignore[attr-defined]
                yield from files(inner)

    shown = sorted(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = [page for suffix in ("md", "ipynb") for page in (ROOT / "docs").rglob(f"*.{suffix}")]
    assert shown == sorted(str(page.relative_to(ROOT / "docs")) for page in pages)
    assert {f"docs/{page}" for page in shown if "/" not in page} == {page for page in PAGES if page != "README.md"}


def test_every_module_is_in_the_reference() -> None:
    text = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    package = ROOT / "src"
    for file in package.rglob("*.py"):
        module = ".".join(file.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        names = [
            node.name
            for node in ast.parse(file.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        if names and not module.startswith(COMMAND_LINE):
            assert shown & {module, *(f"{module}.{name}" for name in names)}, module
