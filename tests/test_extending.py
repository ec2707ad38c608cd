"""The example of docs/extending.md in fresh interpreters: trained, saved, loaded, edited, and in every command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import heptapod
from heptapod.utils.files import read_json
from heptapod.utils.registry import Registry

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "extend.py"
RECIPE = """\
imports: [extend.py]
data: {path: images}
tokenizer: {model: {kind: bits, bits: 3}, train: {steps: 4, batch_size: 8, eval_every: 4}}
model: {width: 32, depth: 1, head: {kind: point, hidden: 16}}
train: {steps: 8, batch_size: 8, eval_every: 4, save_every: 4, keep_last: 2}
"""
STUDY = """\
imports: [extend.py]
recipe: mine.yaml
codes: cache
heads: [{kind: next_token}, {kind: point, settings: {hidden: 8}, densities: [4/all]}]
budgets: [{equal: steps, steps: 10}]
measures: {samples: 0, nll_images: 2, probe_images: 0}
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def commands(folder: Path, *lines: str) -> list[tuple[int, str]]:
    """Exit code and output of commands that one fresh interpreter runs after another, up to the first that fails."""
    code = (
        "import sys\nfrom heptapod.cli import main\n"
        "for line in sys.argv[1:]:\n"
        "    code = main(line.split())\n"
        "    print(f'\\n--- {code}', flush=True)\n"
        "    print('\\n---', file=sys.stderr, flush=True)\n"
    )
    done = run(folder, "-c", code, *lines)
    printed = re.findall(r"(.*?)\n--- (\d)\n", done.stdout, re.DOTALL)
    assert len(printed) == len(lines), done.stderr
    errors = done.stderr.split("\n---\n")
    return [(int(code), out + error) for (out, code), error in zip(printed, errors, strict=False)]


def test_forty_lines_are_enough(tmp_path: Path) -> None:
    short = ROOT / "docs" / "examples" / "short.py"
    assert len([line for line in short.read_text().splitlines() if line.strip()]) <= 40
    assert f"```py\n{short.read_text()}```" in (ROOT / "docs" / "extending.md").read_text()
    done = run(tmp_path, str(short), "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("kept cells identical: True\n")
    done = run(
        tmp_path, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import short, heptapod; "
        "print(len(heptapod.Heptapod.from_pretrained('out/model').generate(['dark', 'light'])))", str(short.parent),
    )  # fmt: skip
    assert done.stdout == "2\n", done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example has run."""
    folder = tmp_path_factory.mktemp("extending")
    shutil.copy(EXAMPLE, folder)
    done = run(folder, "extend.py", ".")
    assert done.returncode == 0, done.stderr
    assert "kept cells identical: True" in done.stdout
    (folder / "mine.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(STUDY)
    return folder


def test_the_page_shows_the_example() -> None:
    assert f"```py\n{EXAMPLE.read_text()}```" in (ROOT / "docs" / "extending.md").read_text()


def test_the_example_uses_public_names_only() -> None:
    text = EXAMPLE.read_text()
    assert set(re.findall(r"heptapod\.(\w+)", text)) <= set(heptapod.__all__)
    assert not re.search(r"from heptapod|import heptapod\.", text)


def test_a_saved_model_names_what_to_import(place: Path) -> None:
    for file in ("model/config.json", "model/tokenizer/config.json"):
        assert read_json(place / file)["imports"] == ["extend.py"]
    (code, printed), (tokenizer_code, tokenizer_printed) = commands(
        place, "sample model --out a.png", "evaluate-tokenizer model/tokenizer --data images"
    )
    assert code == tokenizer_code == 2
    assert "model/config.json: head 'point' is not registered; first import extend.py" in printed
    assert "tokenizer 'bits' is not registered; first import extend.py (on the command line: --imports extend.py)" in (
        tokenizer_printed
    )
    assert not (place / "a.png").exists()


def test_a_saved_model_loads_in_another_interpreter(place: Path) -> None:
    code = (
        "import extend, heptapod, torch\n"
        "model = heptapod.Heptapod.from_pretrained('model')\n"
        "assert type(model.model.head) is extend.PointHead and model.model.config.head.hidden == 48\n"
        "assert type(model.tokenizer) is extend.BitsTokenizer\n"
        "torch.save(model.generate_tokens(['dark', 'light'], seed=3), 'tokens.pt')\n"
        "model.save_pretrained('again')\n"
    )
    done = run(place, "-c", code)
    assert done.returncode == 0, done.stderr
    assert torch.load(place / "tokens.pt").shape == (2, 16)
    assert read_json(place / "again" / "config.json")["imports"] == ["extend"], "imported as a module"
    assert (place / "again" / "model.safetensors").read_bytes() == (place / "model" / "model.safetensors").read_bytes()


def test_every_command_takes_the_custom_parts(place: Path) -> None:
    done = commands(
        place,
        "train mine.yaml --model.head.hidden 24 --out trained",
        "sample model --imports extend.py --out samples.png --count 2 --seed 1",
        "info model",
        "plan mine.yaml --gpu a100-40",
        "bench training mine.yaml --models own point:4/all --rounds 1 --out bench",
        "likelihood trained --data images --out likelihood",
        "tokenize trained/tokenizer --data images --out cache",
        "ablate study.yaml",
    )
    assert [code for code, _ in done] == [0] * len(done), done
    assert read_json(place / "trained" / "best" / "config.json")["model"]["head"]["hidden"] == 24
    assert "model.head.hidden" in done[2][1]
    assert "point:4/all" in (place / "bench" / "training.md").read_text()
    assert "point-hidden8-4-all-raster" in (place / "ablations" / "study" / "results.csv").read_text()


def test_mistakes_in_custom_settings_are_named(place: Path) -> None:
    *mistakes, _ = [
        (
            "train mine.yaml --model.head.hiden 3",
            "unknown setting 'model.head.hiden'; did you mean 'model.head.hidden'",
        ),
        ("train mine.yaml --model.head.hidden x", "model.head.hidden: 'x' given"),
        ("train mine.yaml --model.head.kind pint", "model.head.kind: 'pint' given, must be one of cross"),
        ("train demo --imports nothing.py", "imports: nothing.py: FileNotFoundError: no such file"),
        ("train demo --imports", "imports: no value given"),
    ]
    done = commands(place, *(line for line, _ in mistakes))
    for (line, message), (code, printed) in zip(mistakes, done, strict=True):
        assert code == 2, line
        assert message in printed
    assert "did you mean 'point'" in done[2][1]


def test_training_resumes(place: Path) -> None:
    """To the same weights, bit for bit, from the checkpoint before the last."""
    train = "train mine.yaml --out resumed"
    assert commands(place, train)[0][0] == 0
    weights = (place / "resumed" / "last" / "model.safetensors").read_bytes()
    checkpoints = sorted((place / "resumed" / "checkpoints").iterdir())
    assert len(checkpoints) == 2
    shutil.rmtree(checkpoints[-1])
    for name in ("best", "last"):
        shutil.rmtree(place / "resumed" / name)
    (place / "resumed" / "training.json").unlink()
    code, printed = commands(place, train)[0]
    assert code == 0
    assert "step 8" in printed
    assert "step 4:" not in printed, "resumed, not begun again"
    assert (place / "resumed" / "last" / "model.safetensors").read_bytes() == weights


def test_an_installed_package_registers_by_entry_point(tmp_path: Path) -> None:
    package = tmp_path / "heptapod_points"
    package.mkdir()
    shutil.copy(EXAMPLE, package / "__init__.py")
    information = tmp_path / "heptapod_points-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: heptapod-points\nVersion: 1.0\n")
    points = "[heptapod.heads]\npoint = heptapod_points:PointHead\n\n[heptapod.tokenizers]\nbits = heptapod_points\n"
    (information / "entry_points.txt").write_text(points)
    code = (
        "import sys, heptapod\n"
        "from heptapod.models import HEADS\n"
        "config = heptapod.ModelConfig(head={'kind': 'point', 'hidden': 7})\n"
        "assert config.head.hidden == 7 and HEADS.origin('point') == 'heptapod-points'\n"
        "recipe = heptapod.load_recipe({'tokenizer': {'model': {'kind': 'bits', 'bits': 5}}})\n"
        "assert recipe.tokenizer.model.bits == 5\n"
    )
    done = run(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr


class Thing:
    """Stands in for a head."""


def test_a_registry_refuses_what_it_cannot_keep_apart() -> None:
    registry = Registry("thing", "a")
    registry.register("a", Thing, None)
    registry.register("a", Thing, None)  # a notebook's cell runs twice
    with pytest.raises(ValueError, match="thing: 'a' is already registered by tests.test_extending"):
        registry.register("a", dict, None)
    with pytest.raises(ValueError, match="thing: Thing needs the decorator heptapod.settings and a field kind"):
        registry.register("b", Thing, Thing)
    with pytest.raises(ValueError, match="kind: 'aa' given, must be one of a; did you mean 'a'"):
        registry.get("aa")


def test_a_custom_distribution_and_its_settings() -> None:
    """In a fresh interpreter, since a registered name stays."""
    code = (
        "import heptapod, torch\n"
        "from heptapod.distributions import Categorical\n"
        "from heptapod.models.heptapod import build_model\n"
        "@heptapod.settings\n"
        "class Config(heptapod.DistributionConfig):\n"
        "    kind: str = 'sharp'\n"
        "    factor: float = 2.0\n"
        "@heptapod.register_distribution('sharp', Config)\n"
        "class Sharp(Categorical):\n"
        "    def __init__(self, width, size, factor):\n"
        "        super().__init__(width, size)\n"
        "        self.factor = factor\n"
        "config = heptapod.ModelConfig(distribution={'kind': 'sharp', 'factor': 3.0})\n"
        "model = build_model(config, heptapod.GridSpec(2, 2, 5), 0, 0)\n"
        "assert type(model.distribution) is Sharp and model.distribution.factor == 3\n"
        "try:\n"
        "    build_model(config, heptapod.GridSpec(2, 2, channels=5), 0, 0)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = run(ROOT, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "model.distribution.kind: sharp given, but the tokenizer's tokens are continuous" in done.stdout


def test_subclasses_of_flow_and_local_head_receive_their_settings() -> None:
    """In a fresh interpreter, since a registered name stays."""
    code = (
        "import heptapod\n"
        "from heptapod.distributions.flow import FlowDistribution\n"
        "from heptapod.configs.models import HeadConfig\n"
        "from heptapod.models.heads import LocalHead\n"
        "from heptapod.models.heptapod import build_model\n"
        "@heptapod.settings\n"
        "class FlowConfig(heptapod.DistributionConfig):\n"
        "    kind: str = 'scaled_flow'\n"
        "    factor: float = 2.0\n"
        "@heptapod.register_distribution('scaled_flow', FlowConfig)\n"
        "class ScaledFlow(FlowDistribution):\n"
        "    def __init__(self, mlp, channels, noise_levels, factor=2.0):\n"
        "        super().__init__(mlp, channels, noise_levels)\n"
        "        self.factor = factor\n"
        "@heptapod.settings\n"
        "class WideConfig(HeadConfig):\n"
        "    kind: str = 'wide_local'\n"
        "    factor: float = 2.0\n"
        "@heptapod.register_head('wide_local', WideConfig)\n"
        "class WideLocal(LocalHead):\n"
        "    def __init__(self, width, depth, num_heads, rotary_base, window, factor=2.0):\n"
        "        super().__init__(width, depth, num_heads, rotary_base, window)\n"
        "        self.factor = factor\n"
        "config = heptapod.ModelConfig(\n"
        "    head={'kind': 'wide_local', 'factor': 3.0}, distribution={'kind': 'scaled_flow', 'factor': 5.0}\n"
        ")\n"
        "model = build_model(config, heptapod.GridSpec(2, 2, channels=4), 0, 0)\n"
        "assert (model.head.factor, model.distribution.factor) == (3.0, 5.0)\n"
    )
    done = run(ROOT, "-c", code)
    assert done.returncode == 0, done.stderr
