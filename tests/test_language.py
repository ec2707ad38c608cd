"""Standard terms and American English in sources, docs, README and the studio's page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.language import READERS, file_hits, markdown_hits, python_hits, typescript_hits

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("docs/studies", "src/heptapod/studio/static")
"""Reports of past measurements, and what is built from web/src."""


def files() -> Iterator[Path]:
    yield from (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
    for folder in ("src", "docs", "web/src"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in READERS and not str(path.relative_to(ROOT)).startswith(LEFT_OUT):
                yield path


def test_no_banned_word() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{hit.line}: {hit.word!r}; instead: {hit.instead}"
        for path in files()
        for hit in file_hits(path)
    ]
    assert not found, f"{len(found)} banned words\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("how = 1", ["how"]),
        ("def plan(how: int) -> None:\n    print(f'{how}')", ["how", "how"]),
        ("class Given: ...", ["Given"]),
        ("model.doubt(look=2)", ["doubt", "look"]),
        ("from a import b as meet", ["meet"]),
        ('"""Trains so\nmany steps."""', ["so many"]),
        ("x = 1  # the run goes on\n", ["goes on"]),
        ("# every run goes\n# on as before\n", ["goes on"]),
        ("behaviour_of = 1", ["behaviour"]),
        ('f"{n} numbers per token, {m}"', ["numbers per token"]),
        ('"""How a look at doubt is given."""\nshow = lookup = given = 1', []),
        ('x = "cargo on board, retold, akin, besides"', []),
        ('x = "promise, precise, exercise, raise, noise, otherwise, comprises"', []),
    ],
)
def test_python(source: str, words: list[str]) -> None:
    assert [hit.word for hit in sorted(set(python_hits(source)))] == words


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("const how = 1;", ["how"]),
        ("function f({ how }: Props) {}", ["how"]),
        ("form.how.value", ["how"]),
        ("interface A { x: string, doubt: number }", ["doubt"]),
        ("<p>Choose a color beside it</p>", ["beside"]),
        ("// how: see below\nconst x = 'how';", []),
        ("<p>See how it samples: look, how nice (how).</p>", []),
    ],
)
def test_typescript(source: str, words: list[str]) -> None:
    assert [hit.word for hit in typescript_hits(source)] == words


def test_markdown() -> None:
    page = "# Title\n\nA run goes\non.\n\n```python\nx = 1\nhow = 2\n```\n\nHow it works.\n"
    assert [(hit.line, hit.word) for hit in markdown_hits(page)] == [(3, "goes on"), (8, "how")]
