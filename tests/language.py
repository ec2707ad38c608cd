"""Words that Heptapod does without, and the reader of sources that finds them."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

IDENTIFIERS = {
    "one_voice": "name what is shared: gather, broadcast",
    "meet": "barrier, gather",
    "own_blocks": "blocks_of_rank",
    "from_first": "broadcast_tensors",
    "first_ahead": "main_process_first",
    "in_a_line": "one_line",
    "how": "sampling, settings",
    "look": "name what is computed, or inspect",
    "doubt": "entropy, uncertainty",
    "Given": "name the arguments",
    "Subject": "name the model or the tokenizer",
    "whose": "owner",
}
"""Exact identifiers, each with what to write instead. The phrases below hold for the words of identifiers, too."""

FILE_KEYS = {"recognised", "neighbours"}
"""Keys of files that earlier versions wrote: they stay."""

PHRASES = {
    r"(go|goes|gone|going|went) on": "resume, continue",
    r"told": "report, print; of classes: recognized",
    r"tells": "report, print, show",
    r"so many": "n, the given number of",
    r"numbers per (token|cell)": "channels",
    r"numbers a (token|cell)": "channels",
    r"(at its )?best on the way|at its best": "best during training",
    r"of ours": "name it: a Heptapod folder",
    r"others (have )?published": "published",
    r"kin|brothers": "name the relation",
    r"beside": "next to, and",
    r"anew": "again; resampled",
    r"the very": "the same; drop it",
    r"(error|errors|answer|message|problem|mistake|told|said|each|every command) in (a|one) line": "one-line",
    r"(of )(my|our|your|its|their|one's) own": "custom, separate, its",
    r"but for": "except for, except",
    r"first process": "rank 0",
    r"(processes|ranks|they can|all) meet": "synchronize: barrier, gather",
    r"one voice": "once, by rank 0",
    r"as far as (it|that|they|is|read)": "say the limit",
    r"(draw|draws|drew) (an? |the |new |one )?(images?|digits?)(?!'| on | under )": "sample, generate",
    r"learnt|spelt|burnt|whilst|amongst|likeliest": "American English: learned, while, among, most likely",
    r"\w*(colour|neighbour|behaviour|favour|honour|labour|flavour)\w*": "American English: -or",
    r"grey|centred?|centres|metres?|catalogues?|artefacts?|judgement|licence|programmes?": "American English",
    r"\w*(modell|labell|cancell|travell|signall|channell)(ed|ing|er)": "American English: one l",
    r"(re|un|pre|de)?("
    r"(analy|catal|paraly)s(e|ed|es|ing)|"
    r"(normal|initial|quant|optim|organ|recogn|minim|maxim|summar|visual|serial|general|standard|regular|factor|token|"
    r"synchron|character|special|real|util|discret|binar|vector|parallel|emphas|categor|custom|final|local|random|"
    r"equal|crystal|materi?al|memor|author|priorit|rasteri?|formal|stabil)is(e|ed|es|ing|er|ers|able|ation|ations))": (
        "American English: -ize, -yze"
    ),
}
"""Regular expressions of whole words in prose, each with what to write instead."""

PROSE = re.compile(
    "|".join(
        rf"(?P<p{i}>(?<![\w-])(?:{phrase.replace(' ', chr(92) + 's+')})(?![\w]))" for i, phrase in enumerate(PHRASES)
    ),
    re.IGNORECASE,
)
REPLACEMENTS = list(PHRASES.values())
_DECLARED = r"\b(?:const|let|function|class|type|interface|enum)\s+"
_BOUND = r"[{,(]\s*(?=\w+\s*[:=}])|\{\s*(?=\w+\s*,)"
TYPESCRIPT_NAME = re.compile(rf"(?:{_DECLARED}|{_BOUND}|\.)({'|'.join(IDENTIFIERS)})\b")


class Hit(NamedTuple):
    """A word that stands in a file."""

    line: int
    word: str
    instead: str


def prose_hits(text: str, first_line: int = 1) -> Iterator[Hit]:
    """Phrases in running text; line breaks count as spaces."""
    for match in PROSE.finditer(text):
        word = " ".join(match.group().split())
        yield Hit(first_line + text.count("\n", 0, match.start()), word, REPLACEMENTS[int(str(match.lastgroup)[1:])])


def python_hits(source: str) -> Iterator[Hit]:
    """Identifiers, strings (docstrings among them) and comments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in FILE_KEYS:
            yield from prose_hits(node.value, node.lineno)
        for name in _names(node):
            if name in IDENTIFIERS:
                yield Hit(getattr(node, "lineno", 0), name, IDENTIFIERS[name])
            yield from prose_hits(name.replace("_", " "), getattr(node, "lineno", 0))
    for line, text in _comments(source):
        yield from prose_hits(text, line)


def typescript_hits(source: str) -> Iterator[Hit]:
    """Phrases anywhere (the page's labels are part of its sources), identifiers outside of comments and strings."""
    yield from prose_hits(re.sub(r"(?m)^(\s*)(//|\*)", lambda match: match.group(1), source))
    code = re.sub(
        r"/\*.*?\*/|//[^\n]*|\"[^\"\n]*\"|'[^'\n]*'", lambda match: "\n" * match.group().count("\n"), source, flags=re.S
    )
    for match in TYPESCRIPT_NAME.finditer(code):
        yield Hit(code.count("\n", 0, match.start(1)) + 1, match.group(1), IDENTIFIERS[match.group(1)])


def markdown_hits(source: str) -> Iterator[Hit]:
    """Phrases in the whole page, identifiers in its samples of Python."""
    yield from prose_hits(re.sub(r"(?m)^>", " ", source))
    for match in re.finditer(r"```python\n(.*?)```", source, re.DOTALL):
        first_line = source.count("\n", 0, match.start(1))
        yield from (hit._replace(line=hit.line + first_line) for hit in python_hits(match.group(1)))


def notebook_hits(source: str) -> Iterator[Hit]:
    """The cells of a notebook; lines are numbers of cells."""
    for number, cell in enumerate(json.loads(source)["cells"], 1):
        read = python_hits if cell["cell_type"] == "code" else markdown_hits
        yield from (hit._replace(line=number) for hit in read("".join(cell["source"])))


READERS = {
    ".py": python_hits, ".ts": typescript_hits, ".tsx": typescript_hits, ".md": markdown_hits, ".ipynb": notebook_hits,
    ".css": prose_hits, ".yaml": prose_hits,
}  # fmt: skip


def file_hits(path: Path) -> list[Hit]:
    """Every banned word of a file, each place once."""
    return sorted(set(READERS[path.suffix](path.read_text(encoding="utf-8"))))


def _names(node: ast.AST) -> Iterator[str]:
    """Identifiers that a node itself spells."""
    for field in ("id", "arg", "attr", "name", "asname"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            yield value


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """First line and text of each comment; comments of successive lines are one."""
    block: list[str] = []
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if block and token.start[0] == last + 1 and not token.line[: token.start[1]].strip():
            block.append(token.string.lstrip("# "))
        else:
            if block:
                yield first, "\n".join(block)
            block, first = [token.string.lstrip("# ")], token.start[0]
        last = token.start[0]
    if block:
        yield first, "\n".join(block)
