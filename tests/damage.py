"""Damage to files, the same every time: JSON values of other types and sizes, safetensors files of other content."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

DEEP = json.loads("[" * 100 + "]" * 100)
VALUES = ({}, [], None, float("inf"), float("nan"), -1, 10**30, "x", True, DEEP, {"a": 1}, ["x"], 2.5, 0)
MISSING = object()
LONGEST = 600
"""Characters of the longest message that still counts as one line."""


def json_damage(values: Any) -> Iterator[tuple[str, str]]:
    """What was changed, and the text: every value of a JSON file replaced by each of VALUES, and left out."""
    for path in _paths(values):
        for value in (*VALUES, MISSING):
            changed = _replaced(values, path, value)
            yield f"{path} = {'missing' if value is MISSING else str(value)[:40]}", json.dumps(changed)
    whole = json.dumps(values)
    yield "cut", whole[: len(whole) // 2]
    yield "empty", ""
    yield "not an object", "[1]"
    yield "too deep", '{"a": ' * 100_000
    yield "a number of many digits", '{"step": ' + "9" * 5000 + "}"
    yield "not UTF-8", "\udcff"


def _paths(values: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*prefix, key)
        if not isinstance(key, int) or key < 2:  # the first items of a list stand for all
            yield from _paths(value, (*prefix, key))


def _replaced(values: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def tensor_damage(file: Path) -> Iterator[tuple[str, bytes]]:
    """What was changed, and the content: cuts, headers, tensors of other types, shapes and values, or missing."""
    with safe_open(file, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    whole = file.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    yield "empty", b""
    for size in (4, 8, 8 + length // 2, 8 + length, len(whole) - 1):
        yield f"cut to {size}", whole[:size]
    for size in (0, 1, length - 1, length + 1, 2**31, 2**63):
        yield f"header of {size}", struct.pack("<Q", size) + whole[8:]
    yield "header of zeros", whole[:8] + bytes(length) + whole[8 + length :]
    for text in (None, {}, {"heptapod": ""}, {"heptapod": "[]"}, {"heptapod": "[" * 100_000}):
        yield f"metadata {str(text)[:40]}", _saved(file, tensors, text)
    for key, value in (metadata or {}).items():
        if not value.startswith("{"):
            continue
        for what, text in json_damage(json.loads(value)):
            yield f"metadata {key} {what}", _saved(file, tensors, {**metadata, key: text})
        for inner, nested in json.loads(value).items():
            for other in ("", "[", "5", "null", "{}", "[1]", "[" * 100_000, '"x"', "-1", "[null, null]", str(10**30)):
                changed = json.dumps({**json.loads(value), inner: other})
                assert nested != other
                yield f"metadata {key} {inner} {other[:20]!r}", _saved(file, tensors, {**metadata, key: changed})
    for name in sorted(tensors):
        for what, tensor in _changed(tensors[name]):
            others = {other: value for other, value in tensors.items() if other != name}
            yield f"{name} {what}", _saved(file, others if tensor is None else {**others, name: tensor}, metadata)


def _changed(tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor | None]]:
    yield "missing", None
    for dtype in (torch.float64, torch.float16, torch.int64, torch.int16, torch.uint8, torch.bool, torch.complex64):
        if tensor.dtype != dtype:
            yield str(dtype), tensor.to(dtype)
    yield "scalar", torch.zeros((), dtype=tensor.dtype)
    yield "no item", torch.zeros(0, dtype=tensor.dtype)
    if tensor.ndim:
        yield "one dimension more", tensor[None]
        yield "without its first", tensor[1:]
        yield "with one more", torch.cat([tensor, tensor[:1]])
    yield "negative", torch.full_like(tensor, -5) if tensor.dtype.is_signed else torch.full_like(tensor, 1)
    largest = 1e30 if tensor.dtype == torch.float32 else 60000 if tensor.is_floating_point() else None
    yield (
        "large",
        torch.full_like(tensor, largest or (1 if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).max)),
    )
    if tensor.is_floating_point():
        yield "not a number", torch.full_like(tensor, float("nan"))


def _saved(file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None) -> bytes:
    other = file.with_name("other")
    texts = {key: text.encode(errors="replace").decode() for key, text in (metadata or {}).items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, other, texts)
    content = other.read_bytes()
    other.unlink()
    return content


def check(read: Callable[[], object], what: str) -> str:
    """The message of an error with which a damaged file is refused, or "read"; anything but one line fails."""
    try:
        read()
    except (ValueError, OSError) as error:
        message = str(error)
        assert message, what
        assert "\n" not in message, f"{what}: {message}"
        assert len(message) < LONGEST, f"{what}: {message[:2000]}"
        return message
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    return "read"
