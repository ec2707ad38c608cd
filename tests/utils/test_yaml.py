"""The one reader of YAML: nothing dropped, nothing reinterpreted, nothing without bounds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from heptapod.utils.yaml_text import MAX_BYTES, dump_yaml, parse_yaml, read_yaml

DEEP = "line 5: more than 32 levels of nesting"
BOMB = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'lol'] * 9)}]" for i in range(9))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30", "1:30"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("2026-01-01", "2026-01-01"),
        ("1e-3", 1e-3),
        ("1_000", 1000),
        ("017", 17),
        ("0x10", 16),
        ("-.5", -0.5),
        ("True", True),
        ("~", None),
        ("", None),
        ("nan", "nan"),
        ("=", "="),
        ("<<", "<<"),
        ("[a, 1]", ["a", 1]),
        ("a: {b: 'no'}", {"a": {"b": "no"}}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: *", None),
    ],
)
def test_values(text: str, value: object) -> None:
    if text == "a: *":
        with pytest.raises(ValueError, match="line 1"):
            parse_yaml(text)
        return
    found = parse_yaml(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1, *x]\n", r"line 1: \*x stands for itself"),
        (BOMB, "line 6: more than 200,000 values, with aliases written out"),
        (
            "\n".join(f"a{i}: &a{i} {'[' * 9}*a{i - 1}{']' * 9}" if i else "a0: &a0 [1]" for i in range(9)),
            "line 5: more than 32 levels",
        ),
        ("train: {steps: 1}\nseed: 1\ntrain: {}\n", "line 3: 'train' is given twice, first in line 1"),
        ("a:\n  b: 1\n  b: 2\n", "line 3: 'b' is given twice, first in line 2"),
        ("[" * 500 + "]" * 500, "line 1: more than 32 levels of nesting"),
        ("\n".join("  " * i + "a:" for i in range(500)), "line 32: more than 32 levels of nesting"),
        ("1: x", "line 1: a name must be text, such as '1'"),
        ("? [a]\n: 1", "line 1: a name must be text"),
        ("a:\n\tb: 1", r"line 2: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: [", "line 1: "),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("a: !!python/object:os.system {}", "line 1: could not determine a constructor"),
        ("a: " + "9" * 5000, "line 1: a number of 5,000 characters"),
        ("a: \x00", "unacceptable character"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        parse_yaml(text)
    assert time.monotonic() - started < 5
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for content, message in (
        (b"a: \xff", "not a YAML file (not UTF-8: invalid start byte at byte 3)"),
        (b"\xff\xfea\x00", "not a YAML file (not UTF-8"),
        (b"#" * (MAX_BYTES + 1), "not a YAML file (1,048,577 bytes, at most 1,048,576 are read)"),
        (b"- 1", "a recipe is a mapping of settings, found list"),
        (b"", "a recipe is a mapping of settings, found NoneType"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="mine.yaml") as error:
            read_yaml(file)
        assert message in str(error.value)
    file.write_bytes("\ufeffa: ä\n".encode())
    assert read_yaml(file) == {"a": "ä"}


def test_what_is_written_is_read_again() -> None:
    shared = [1, 2]
    values = {"a": shared, "b": shared, "c": "no", "d": "1:30", "e": 1e-5, "f": "2026-01-01", "g": None, "h": "1e-3"}
    text = dump_yaml(values)
    assert "&" not in text
    assert parse_yaml(text) == values
