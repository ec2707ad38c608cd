"""The measured figures of the README, the docs and the recipes, each taken from a results file.

``tests/figures/NAME.py`` belongs to ``docs/NAME.md``, ``readme.py`` to the README, ``recipes.py`` to the descriptions
of recipes and studies. It defines

- ``figures()``, which yields pieces of the page's text with their figures taken from results files. ``test_figures.py``
  fails if a piece is not in the page word for word (line breaks, bold and code marks, targets of links and padding in
  tables do not count);
- ``SETTINGS``, regular expressions of figures that nobody measured here: settings, sizes, bounds of tests, figures of
  papers.

What remains of the page after removing both must not contain a figure with a unit, a decimal point or a percent sign,
nor a number in a table of results. ``benchmarks/record.py`` writes results files.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORDS = (
    "half an?|(?:a )?quarter of an|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|forty"
)
UNITS = "dB|nats|[mµ]?s|seconds?|min|minutes?|hours?|days?|points?|times|images/s|[KMG]i?B|[MGT]?FLOPs?|GFLOP/s|bits"
FIGURE = re.compile(
    rf"\d(?:\.\d+)?e-\d+|\d+\.\d+|\d+ ?%|± ?\d|\d[\d,]*(?: to \d[\d,]*)? (?:{UNITS})\b|"
    rf"\b(?:{WORDS}) (?:seconds?|minutes?|hours?|times|points?)\b"
)
"""What counts as a measured figure in running text."""
COMMON_SETTINGS = [
    r"\(?\b(?:arXiv )?\d{4}\.\d{4,5}\b",  # papers
    r"\btemperatures? \d\.\d+(?: to \d(?:\.\d+)?)?",
    r"\b(?:torch|PyTorch|Python|torch-fidelity) \d+(?:\.\d+)+",
    r"\b\d+(?:\.\d+)?M(?: to \d+(?:\.\d+)?M)? parameters\b",  # counted by the planner
    r"\b127\.0\.0\.1\b",
    r"\bversion 0\.1\.0\b",
    r"λ = 0\.\d\b",
]


@functools.cache
def results(path: str) -> Any:
    """A results file: its name in ``benchmarks/results`` without suffix, or its path in the repository."""
    file = ROOT / path if path.endswith(".json") else ROOT / "benchmarks" / "results" / f"{path}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def row(rows: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    """The one row with these values."""
    found = [one for one in rows if all(one[name] == value for name, value in values.items())]
    assert len(found) == 1, f"{len(found)} rows with {values}"
    return found[0]


def plain(markdown: str) -> str:
    """Text without code (except its comments), targets of links, marks and line breaks; a table's row is a line."""
    text = re.sub(r"^```.*?^```", _comments, markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`([^`]*)`", r"\1", text).replace("**", "").replace("*", "")
    text = re.sub(r"[ \t]*\|[ \t]*", "|", text)
    text = re.sub(r"(?<!\|)\n(?!\s*(?:\||\n|- |#|\d+\. ))", " ", text)
    return re.sub(r"[ \t]+", " ", text).strip()


def _comments(block: re.Match[str]) -> str:
    """The comments of a block of code."""
    return "\n".join(re.findall(r"(?<=  # ).*", block.group()))


def left_over(page: str, claimed: list[str], settings: list[str]) -> list[str]:
    """Figures of a plain page that are neither claimed nor settings, each with the text around it."""
    rest = page
    for piece in claimed:
        rest = rest.replace(piece, "§")
    for setting in [*settings, *COMMON_SETTINGS]:
        rest = re.sub(setting, "·", rest)
    lines = rest.split("\n")
    found = []
    for number, line in enumerate(lines):
        is_header = number + 1 < len(lines) and lines[number + 1].startswith("|--")
        if line.startswith("|") and not is_header and _table_has_figures(lines, number):
            cells = "|".join(line.split("|")[2:])
            found += [f"{m.group()} in {line}" for m in re.finditer(r"\d[\d.,]*", cells)][:1]
        found += [f"{m.group()} in …{line[max(0, m.start() - 60) : m.end() + 40]}…" for m in FIGURE.finditer(line)]
    return found


def _table_has_figures(lines: list[str], number: int) -> bool:
    """Whether a table's other rows hold figures, claimed ones among them."""
    first = last = number
    while first > 0 and lines[first - 1].startswith(("|", "§")):
        first -= 1
    while last + 1 < len(lines) and lines[last + 1].startswith(("|", "§")):
        last += 1
    return any("§" in line or FIGURE.search(line) for line in lines[first : last + 1])
