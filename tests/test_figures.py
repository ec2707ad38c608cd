"""Every measured figure of the README, the docs and the recipes equals the one in its results file."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import yaml

from heptapod.cli import main
from heptapod.tools.ablation.report import page
from heptapod.tools.ablation.study import Study
from heptapod.utils.config import from_dict
from heptapod.utils.files import read_json
from tests.figures import ROOT, left_over, plain, results

PAGES = {
    "readme": ROOT / "README.md",
    **{page.stem.replace("-", "_"): page for page in sorted((ROOT / "docs").glob("*.md"))},
}
FOLDER = ROOT / "tests" / "figures"
RECIPES = ROOT / "src" / "heptapod" / "training" / "recipes"
STUDIES = ROOT / "src" / "heptapod" / "tools" / "ablation" / "studies"
RESULTS = sorted(
    [*(ROOT / "benchmarks" / "results").glob("*.json"), *(ROOT / "docs" / "studies").glob("*/results.json")]
)


def text_of(name: str) -> str:
    if name != "recipes":
        return plain(PAGES[name].read_text(encoding="utf-8"))
    files = [*sorted(RECIPES.glob("*.yaml")), *sorted(STUDIES.glob("*.yaml"))]
    return "\n".join(plain(yaml.safe_load(file.read_text(encoding="utf-8"))["description"]) for file in files)


@pytest.mark.parametrize("name", [*PAGES, "recipes"])
def test_figures_are_those_of_their_files(name: str) -> None:
    module = importlib.import_module(f"tests.figures.{name}") if (FOLDER / f"{name}.py").is_file() else object()
    claimed = [plain(piece) for piece in getattr(module, "figures", list)()]
    text = text_of(name)
    missing = [piece for piece in claimed if piece not in text]
    assert not missing, "results files say what the page does not:\n" + "\n".join(missing)
    unclaimed = left_over(text, claimed, getattr(module, "SETTINGS", []))
    assert not unclaimed, f"{len(unclaimed)} figures without a results file:\n" + "\n".join(unclaimed)


PICTURES = ("training.png", "setting.png", "sampling_steps.png", "samples.png")


@pytest.mark.parametrize("folder", sorted((ROOT / "docs" / "studies").iterdir()), ids=lambda folder: folder.name)
def test_reports_of_studies_are_made_from_their_results(folder: Path) -> None:
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    study = from_dict(Study, found["study"], "study")
    pictures = [name for name in PICTURES if (folder / name).is_file()]
    made = page(study, found["rows"], found["plan"], pictures)
    assert (folder / "report.md").read_text(encoding="utf-8") == made


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_results_say_where_they_come_from(file: Path) -> None:
    provenance = json.loads(file.read_text(encoding="utf-8"))["provenance"]
    assert {"command", "commit", "machine"} <= provenance.keys()
    assert all(provenance.values())


def test_a_figure_without_a_file_is_found() -> None:
    table = "| a | b |\n|---|---|\n| x | 12 |\n| y | 13 |\n"
    page = plain(f"# A\n\nIt takes **7 minutes** and\nreaches 93.0% (2510.06673).\n\n{table}")

    def found(claimed: list[str], *settings: str) -> list[str]:
        return [figure.partition(" in ")[0] for figure in left_over(page, claimed, list(settings))]

    assert found(["It takes 7 minutes and reaches 93.0%", "|x|12|", "|y|13|"]) == []
    assert found(["It takes 7 minutes", "|x|12|"]) == ["93.0", "13"]
    assert found(["|x|12|"], r"93\.0%") == ["7 minutes", "13"]


@pytest.mark.parametrize(
    "text",
    ["22.57 dB", "2 times", "twenty minutes", "half an hour", "93%", "± 5", "1e-5", "44 ms", "3 to 4 points", "0.108"],
)
def test_what_counts_as_a_figure(text: str) -> None:
    assert left_over(f"about {text} here", [], [])


def test_plans_are_those_of_the_planner(tmp_path: Path) -> None:
    """Of one recipe; ``benchmarks/plans.py`` makes them all again."""
    out = tmp_path / "plan.json"
    assert main(["plan", "imagenet256_b_vae_cross", "--gpus", "8", "--gpu", "h100", "--out", str(out)]) == 0
    found, stored = read_json(out), results("plans")["plans"]["imagenet256_b_vae_cross"]
    assert {name: found[name] for name in stored} == stored, "run python benchmarks/plans.py"
