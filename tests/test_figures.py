"""Every measured figure of the README, the docs and the recipes equals the one in its results file."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import yaml

from heptapod.tools.ablation.report import page
from heptapod.tools.ablation.study import Study
from heptapod.utils.config import from_dict
from tests.figures import ROOT, left_over, plain

PAGES = {
    "readme": ROOT / "README.md",
    **{page.stem.replace("-", "_"): page for page in sorted((ROOT / "docs").glob("*.md"))},
}
RECIPES = ROOT / "src" / "heptapod" / "training" / "recipes"
RESULTS = sorted(
    [*(ROOT / "benchmarks" / "results").glob("*.json"), *(ROOT / "docs" / "studies").glob("*/results.json")]
)


def text_of(name: str) -> str:
    if name != "recipes":
        return plain(PAGES[name].read_text(encoding="utf-8"))
    files = sorted(RECIPES.glob("*.yaml"))
    return "\n".join(plain(yaml.safe_load(file.read_text(encoding="utf-8"))["description"]) for file in files)


@pytest.mark.parametrize("name", [*PAGES, "recipes"])
def test_figures_are_those_of_their_files(name: str) -> None:
    try:
        module = importlib.import_module(f"tests.figures.{name}")
    except ModuleNotFoundError:
        module = None
    claimed = [plain(piece) for piece in module.figures()] if hasattr(module, "figures") else []
    text = text_of(name)
    missing = [piece for piece in claimed if piece not in text]
    assert not missing, "results files say what the page does not:\n" + "\n".join(missing)
    unclaimed = left_over(text, claimed, getattr(module, "SETTINGS", []))
    assert not unclaimed, f"{len(unclaimed)} figures without a results file:\n" + "\n".join(unclaimed)


@pytest.mark.parametrize("folder", sorted((ROOT / "docs" / "studies").iterdir()), ids=lambda folder: folder.name)
def test_reports_of_studies_are_made_from_their_results(folder: Path) -> None:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    study = from_dict(Study, results["study"], "study")
    pictures = [name for name in ("training.png", "sampling_steps.png", "samples.png") if (folder / name).is_file()]
    made = page(study, results["rows"], results["plan"], pictures)
    assert (folder / "report.md").read_text(encoding="utf-8") == made


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_results_say_where_they_come_from(file: Path) -> None:
    provenance = json.loads(file.read_text(encoding="utf-8"))["provenance"]
    assert {"command", "commit", "machine"} <= provenance.keys()
    assert all(provenance.values())
