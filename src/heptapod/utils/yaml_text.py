"""YAML as settings need it: plain values, bounded in size and depth, and nothing dropped or reinterpreted silently.

Scalars follow the core schema of YAML 1.2 (with ``_`` between digits): ``no``, ``1:30`` and ``2026-01-01`` are text,
``1e-3`` is a number. A name given twice, an alias and deep nesting are errors.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from heptapod.utils.messages import quoted, shown

MAX_BYTES = 1 << 20
"""Size of a file, at most."""
MAX_DEPTH = 32
"""Mappings and lists within each other, at most."""
MAX_DIGITS = 1000
"""Characters of a number, at most."""


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark)


class _Loader(yaml.SafeLoader):
    """See the module."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuses aliases, which can stand for more than memory holds, and deep nesting."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            name = shown(event.anchor, 20)
            raise _refusal(f"*{name} is an alias, which settings do not take: write the value out", event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _refusal(f"more than {MAX_DEPTH} levels of nesting", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses a name that is given twice, or that is no text."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name = self.construct_object(key) if isinstance(key, yaml.ScalarNode) else None
            if not isinstance(name, str):
                given = f", such as {shown(key.value, 40)!r}" if isinstance(key, yaml.ScalarNode) else ""
                raise _refusal(f"a name must be text{given}", key.start_mark)
            if name in lines:
                raise _refusal(f"{quoted(name, 40)} is given twice, first in line {lines[name]}", key.start_mark)
            lines[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        """An integer, of no more digits than Python converts."""
        text = str(self.construct_scalar(node)).replace("_", "")
        if len(text) > MAX_DIGITS:
            raise _refusal(f"a number of {len(text):,} characters", node.start_mark)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def number(self, node: yaml.ScalarNode) -> float:
        """A number, infinity or NaN."""
        return float(str(self.construct_scalar(node)).lower().replace("_", "").replace(".inf", "inf").replace(
            ".nan", "nan"
        ))  # fmt: skip


class _Dumper(yaml.SafeDumper):
    """Writes every value out, and quotes text that any version of YAML reads as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
)
"""What is no text: type, pattern and first characters."""
_Loader.yaml_implicit_resolvers = {}
for tag, pattern, first in SCALARS:
    for cls in (_Loader, _Dumper):
        cls.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.number)


def parse_yaml(text: str) -> Any:
    """The value of a text.

    Raises:
        ValueError: if it is not YAML as this module takes it; the message is one line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        hint = "; indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise ValueError(f"{place}{error.problem or error.context}{hint}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ValueError: if the file is not YAML, too large or not a mapping.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path.stat().st_size:,} bytes, at most {MAX_BYTES:,} are read")
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a YAML file (not UTF-8: {error.reason} at byte {error.start})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a YAML file ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe is a mapping of settings, found {type(values).__name__}")
    return values


def dump_yaml(values: dict[str, Any]) -> str:
    """A dictionary as YAML, in its order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
