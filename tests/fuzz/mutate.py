"""Random damage: to a value of a nested structure, to bytes, to a safetensors file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 0.5, -0.5, 1e30, -1e30, 1e-40, float("inf"), float("-inf"), float("nan"),
    2**31 - 1, 2**31, 2**40, 2**63, 2**64, 10**20, -(10**20), 10**400, "", " ", "0", "-0", "1", "nan", "null", "auto",
    "all", "x", "é", "x" * 5000, "a\x00b", "a\nb", "../..", ".", "/dev/null", "/dev/zero", "missing", "images", "run",
    "images/dark", "mask.png", [], [0], [[]], {}, {"x": 1}, [1, 2, 3], ["a"] * 300, {"kind": "x"}, {"kind": None},
    [None], {"": ""}, {"0": 0}, [1e30], [-1], [float("nan")], [[[[[[[[[[]]]]]]]]]],
]  # fmt: skip

DIGITS = [b"0", b"9", b"-", b".", b"e", b"[", b"]", b"{", b"}", b'"', b",", b":", b"\n", b"\t", b" ", b"\x00", b"\xff"]


def value(rng: Random, like: Any = None) -> Any:
    """A value that the place is not made for; sometimes one near what was there."""
    if isinstance(like, (int, float)) and not isinstance(like, bool) and rng.random() < 0.4:
        half = like / 2 if abs(like) < 10**300 else like
        return rng.choice([like + 1, like - 1, -like, like * 2, half, like * 1000, like * 10**9, str(like), [like]])
    if isinstance(like, list) and like and rng.random() < 0.4:
        return rng.choice([like[:-1], like + like[:1], like[::-1], like * 100, [*like, None], like[0]])
    if isinstance(like, str) and like and rng.random() < 0.3:
        return rng.choice([like[:-1], like + "x", like.upper(), like * 200, like[::-1]])
    return rng.choice(VALUES)


def places(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path of a structure of dicts and lists, but at most the first 20 items of a list."""
    found = [prefix] if prefix else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree[:20]) if isinstance(tree, list) else ()
    return found + [path for key, item in items for path in places(item, (*prefix, key))]


def tree(rng: Random, root: Any) -> Any:
    """The structure with one to three random changes: a value, a key that is gone, new or renamed."""
    root = json.loads(json.dumps(root))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        paths = places(root)
        if not paths or rng.random() < 0.02:
            return rng.choice(VALUES)
        *way, key = rng.choice(paths)
        parent = root
        for step in way:
            parent = parent[step]
        change = rng.random()
        if change < 0.75:
            parent[key] = value(rng, parent[key])
        elif change < 0.87:
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice([f"{key}x", "kind", "path", "0"])] = value(rng, parent[key])
        else:
            parent.append(value(rng))
    return root


def text(rng: Random, content: bytes) -> bytes:
    """The bytes with random changes: cut, doubled, overwritten, inserted."""
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(content) + 1)
        to = min(len(content), at + rng.choice([1, 1, 2, 8, 64]))
        change = rng.random()
        if change < 0.1:
            content = content[:at]
        elif change < 0.3:
            content = content[:at] + content[to:]
        elif change < 0.5:
            content = content[:to] + content[at:to] * rng.choice([1, 1, 40]) + content[to:]
        elif change < 0.75:
            content = content[:at] + bytes(rng.randrange(256) for _ in range(to - at)) + content[to:]
        else:
            content = content[:at] + rng.choice(DIGITS) * rng.choice([1, 1, 500]) + content[at:]
    return content


def json_file(rng: Random, content: bytes) -> bytes:
    """A JSON file with other values, or damaged as text."""
    if rng.random() < 0.25:
        return text(rng, content)
    return json.dumps(tree(rng, json.loads(content))).encode()


def yaml_file(rng: Random, content: bytes) -> bytes:
    """A YAML file with other values, damaged as text, or with constructs of YAML that multiply."""
    if rng.random() < 0.2:
        return text(rng, content)
    changed = tree(rng, yaml.safe_load(content))
    if rng.random() < 0.05:
        levels = rng.choice([3, 9, 30])
        bombs = [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else 'x'] * 9)}]" for n in range(levels)]
        return "\n".join([*bombs, "seed: *b0"]).encode()
    if rng.random() < 0.05:
        return b"seed: " + b"[" * rng.choice([20, 500, 20_000]) + b"\n" + content
    if rng.random() < 0.05:
        return content + rng.choice([b"train:\n  steps: 1\n", b"seed: 1:30\n", b"<<: {seed: 1}\n", b"? [a]\n: b\n"])
    return str(yaml.safe_dump(changed, allow_unicode=True)).encode()


def safetensors(rng: Random, content: bytes) -> bytes:
    """A safetensors file with another header, tensors exchanged, cut or damaged."""
    change = rng.random()
    if change < 0.35:
        return text(rng, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    body = content[8 + length :]
    if change < 0.55:  # same bytes, other shape or dtype
        name = rng.choice([key for key in header if key != "__metadata__"])
        shape = header[name]["shape"]
        header[name]["shape"] = rng.choice([shape[::-1], [*shape, 1], [1, *shape], shape[1:], [2, 2**62]])
    elif change < 0.7:
        names = [key for key in header if key != "__metadata__"]
        one, other = rng.choice(names), rng.choice(names)
        header[one], header[other] = header[other], header[one]
    elif change < 0.8:
        return content[: 8 + length] + bytes(rng.choice([0, 255, 127]) for _ in body)
    else:
        header = tree(rng, header)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + body


DAMAGE: dict[str, Callable[[Random, bytes], bytes]] = {
    ".json": json_file,
    ".jsonl": text,
    ".yaml": yaml_file,
    ".safetensors": safetensors,
}


def file(rng: Random, name: str, content: bytes) -> bytes:
    """A file damaged in the way of its kind."""
    return DAMAGE.get(name[name.rfind(".") :], text)(rng, content)
