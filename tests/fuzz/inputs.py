"""The inputs: each kind damages files of the base, or makes its own, and names the command that reads them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.fuzz import mutate
from tests.fuzz.base import SIDE, png

DEFAULT_STEPS = 10_000
"""Of a recipe that names none, about."""
Input = Callable[[Random, Path], list[str]]
"""Prepares a folder, which begins as links to the base, and returns the arguments of ``heptapod``."""


def own(path: Path) -> Path:
    """Replaces a link to the base by a copy that may be changed."""
    if path.is_symlink():
        source = path.resolve()
        path.unlink()
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            shutil.copyfile(source, path)
    return path


def damage(rng: Random, path: Path) -> None:
    """Damages a file in place; one in twenty is gone, a folder or empty instead."""
    content = path.read_bytes()
    if rng.random() < 0.05:
        path.unlink()
        if rng.random() < 0.3:
            path.mkdir()
        elif rng.random() < 0.5:
            path.touch()
        return
    path.write_bytes(mutate.file(rng, path.name, content))


def damage_one_of(rng: Random, folder: Path, patterns: tuple[str, ...] = ("*",)) -> Path:
    """Damages a random file of a folder."""
    files = sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()})
    chosen = rng.choice(files)
    damage(rng, chosen)
    return chosen


def recipe(rng: Random, folder: Path) -> list[str]:
    """A recipe that is only read."""
    damage(rng, own(folder / rng.choice(["recipe.yaml", "vectors.yaml"])).rename(folder / "r.yaml"))
    return [rng.choice(["train", "train-tokenizer"]), "r.yaml", "--print-config"]


def trained_recipe(rng: Random, folder: Path) -> list[str]:
    """A recipe with other values that is trained, for two steps if they allow it."""
    path = own(folder / rng.choice(["recipe.yaml", "vectors.yaml"])).rename(folder / "r.yaml")
    path.write_bytes(mutate.yaml_file(rng, path.read_bytes()))
    command = rng.choice(["train", "train", "plan"])
    return [command, "r.yaml", *(_few_steps(path) if command == "train" else [])]


def _few_steps(recipe: Path) -> list[str]:
    """Options that shorten trainings whose steps became many, which is no fault."""
    try:
        values = yaml.safe_load(recipe.read_bytes())
        sections = {"train.steps": values["train"], "tokenizer.train.steps": values["tokenizer"]["train"]}
        steps = {name: section.get("steps", DEFAULT_STEPS) for name, section in sections.items()}
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return []
    long = [name for name, count in steps.items() if isinstance(count, int) and 50 < count < 10**9]
    return [part for name in long for part in (f"--{name}", "2")]


def options(rng: Random, folder: Path) -> list[str]:
    """Options of the command line with values that they are not made for."""
    names = {
        "sample": ["steps", "temperature", "top-k", "top-p", "labels", "count", "seed", "size", "batch-size",
                   "schedule", "cell-steps", "preset", "from", "token-order", "out", "belief", "trace"],
        "train": ["train.steps", "train.batch-size", "train.learning-rate", "model.depth", "model.width", "seed",
                   "data",
                  "data.image-size", "model.head.depth", "model.head.kind", "tokenizer.path", "out", "device",
                  "objective.targets-per-prefix", "sampling.steps", "tokenizer.model.codebook-size"],
        "plan": ["model.depth", "model.width", "gpus", "gpu", "train.batch-size", "grid", "channels", "model.size"],
        "edit": ["mask", "canvas", "at", "keep-cells", "labels", "count", "seed", "size", "batch-size", "temperature"],
        "tokenize": ["data", "image-size", "crops", "crop-scale", "batch-size", "shard-size"],
    }  # fmt: skip
    start = {
        "sample": ["run", "--count", "1", "--steps", "2", "--out", "out.png"],
        "train": ["recipe.yaml"],
        "plan": ["recipe.yaml"],
        "edit": ["run", "image.png", "--count", "1", "--out", "out.png"],
        "tokenize": ["run", "--data", "images", "--out", "out"],
    }
    command = rng.choice(list(names))
    arguments = [command, *start[command]]
    for _ in range(rng.choice([1, 1, 2])):
        value = mutate.value(rng)
        written = value if isinstance(value, str) else json.dumps(value)
        if "\0" not in written:  # no program can be given one
            arguments += [f"--{rng.choice(names[command])}", written]
    return arguments


def model_folder(rng: Random, folder: Path) -> list[str]:
    """A damaged model, sampled, described or used on an image."""
    source = rng.choice(["run", "vectors_run"])
    shutil.copytree(folder / source / "best", folder / "m")
    damage_one_of(rng, folder / "m", ("*.json", "*.json", "*.safetensors"))
    return rng.choice(
        [
            ["sample", "m", "--count", "1", "--steps", "2", "--out", "out.png"],
            ["sample", "m", "--labels", "0", "--count", "1", "--steps", "2", "--out", "out.png"],
            ["edit", "m", "image.png", "--mask", "mask.png", "--count", "1", "--out", "out.png"],
            ["likelihood", "m", "--data", "images", "--count", "2", "--out", "out.json"],
            ["info", "m"],
            ["info", "m", "--json"],
        ]
    )


def tokenizer_folder(rng: Random, folder: Path) -> list[str]:
    """A damaged tokenizer, used to encode or to reconstruct."""
    shutil.copytree(folder / rng.choice(["run", "vectors_run"]) / "best" / "tokenizer", folder / "t")
    damage_one_of(rng, folder / "t")
    return rng.choice(
        [
            ["tokenize", "t", "--data", "images", "--out", "out"],
            ["evaluate-tokenizer", "t", "--data", "images", "--out", "out"],
            ["info", "t"],
        ]
    )


def cache(rng: Random, folder: Path) -> list[str]:
    """A damaged cache; in half of the cases its checksums are made right again."""
    path = own(folder / "cache")
    damaged = damage_one_of(rng, path, ("*.json", "shards/*"))
    if rng.random() < 0.5 and damaged.suffix == ".safetensors" and damaged.is_file():
        index = json.loads((path / "index.json").read_text())
        content = damaged.read_bytes()
        entry = index["shards"][int(damaged.stem)]
        entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        (path / "index.json").write_text(json.dumps(index))
    return rng.choice(
        [
            ["info", "cache"],
            ["info", "cache", "--verify"],
            ["train", "recipe.yaml", "--data", "cache", "--data.image-size", "0", "--data.flip", "false"],
            ["tokenize", "run", "--data", "images", "--out", "cache", "--shard-size", "8", "--flip"],
        ]
    )


def run_folder(rng: Random, folder: Path) -> list[str]:
    """A damaged run, resumed, described, exported or sampled."""
    name = rng.choice(["run", "vectors_run"])
    damage_one_of(rng, own(folder / name), ("*.json", "*.jsonl", "*.yaml", "checkpoints/*/*"))
    step = f"{name}/checkpoints/step-0000000{rng.choice([1, 2])}"
    resume = ["train", "recipe.yaml" if name == "run" else "vectors.yaml", "--train.resume"]
    return rng.choice(
        [
            [*resume, "auto"],
            [*resume, "1"],
            ["info", name],
            ["info", step],
            ["export", step, "--out", "out"],
            ["sample", name, "--count", "1", "--steps", "2", "--out", "out.png"],
        ]
    )


def _random_labels(rng: Random, count: int) -> list[Any]:
    pools: list[list[Any]] = [
        [0, 1], [0, -1], [None, 1], [2**40, 3], [10**9, 7], [-7, 2**62], ["a", "b"], ["", "a" * 3000], [None],
        [1.5, 2.0], [True, False], [b"a", b"b"], [float("nan"), 1.0], [[0], [1]],
        [{"x": 1}], [str(2**40), "1"], list(range(100)),
    ]  # fmt: skip
    pool = rng.choice(pools)
    return [rng.choice(pool) for _ in range(count)]


def _image_bytes(rng: Random) -> bytes | None:
    shape = rng.choice([(SIDE, SIDE), (SIDE, SIDE, 3), (SIDE, SIDE, 4), (1, 3000), (1, 1), (40, 9, 3), (SIDE, SIDE, 2)])
    content = png(np.full(shape, rng.randrange(256), np.uint8))
    return rng.choice([content, content, content, mutate.text(rng, content), b"", None])


USES = [
    ["tokenize", "run", "--data", "DATA", "--image-size", "8", "--out", "out"],
    ["train", "recipe.yaml", "--data", "DATA", "--out", "out"],
    ["likelihood", "run", "--data", "DATA", "--count", "2", "--out", "out.json"],
    ["evaluate-tokenizer", "run", "--data", "DATA", "--out", "out"],
]


def _use(rng: Random, data: str) -> list[str]:
    return [data if part == "DATA" else part for part in rng.choice(USES)]


def parquet(rng: Random, folder: Path) -> list[str]:
    """A parquet file with unusual columns or damaged bytes."""
    path = folder / "d" / rng.choice(["x.parquet", "train-0.parquet", "test-00000-of-00001.parquet"])
    path.parent.mkdir()
    if rng.random() < 0.4:
        path.write_bytes(mutate.text(rng, (folder / "images.parquet").read_bytes()))
        return _use(rng, "d")
    count = rng.choice([0, 1, 6, 12])
    images = [_image_bytes(rng) for _ in range(count)]
    rows = images if rng.random() < 0.3 else [None if image is None else {"bytes": image} for image in images]
    columns = {"image": rows, "label": _random_labels(rng, count)}
    if rng.random() < 0.1:
        columns[rng.choice(["img", "labels", "caption"])] = columns.pop(rng.choice(list(columns)))
    try:
        table = pa.table(columns)
    except (pa.ArrowException, OverflowError):
        table = pa.table({"image": rows})
    if rng.random() < 0.2 and "label" in table.column_names:
        index = table.column_names.index("label")
        with contextlib.suppress(pa.ArrowException):  # lists and structs have no categories
            table = table.set_column(index, "label", table["label"].dictionary_encode())
    if rng.random() < 0.3:
        feature = rng.choice([{"_type": "ClassLabel", "names": ["a", "b"]}, {"names": 3}, [], {"_type": "Value"}, None])
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": feature}}})})
    try:
        pq.write_table(table, path)
    except pa.ArrowException:  # null in a dictionary
        pq.write_table(table.select(["image"]) if "image" in table.column_names else pa.table({}), path)
    return _use(rng, rng.choice(["d", str(path.relative_to(folder))]))


def tar(rng: Random, folder: Path) -> list[str]:
    """Tar shards with unusual members or damaged bytes, with a damaged index now and then."""
    path = folder / "d" / rng.choice(["a.tar", "d-000000.tar", "train-000.tar", "a.tar.gz"])
    path.parent.mkdir()
    content = (folder / "images.tar").read_bytes()
    if rng.random() < 0.4:
        path.write_bytes(mutate.text(rng, content))
        return _use(rng, "d")
    with tarfile.open(path, rng.choice(["w", "w", "w", "w:gz"])) as archive:
        for number in range(rng.choice([0, 1, 8])):
            labels = [
                b"0",
                b"-1",
                b"x" * 3000,
                b"[" * 5000,
                b'{"label": 1099511627776}',
                b'{"label": null}',
                b"{}",
                b"\xff",
            ]
            members = {
                rng.choice(["png", "jpg", "input.jpg", "PNG", "x"]): _image_bytes(rng) or b"",
                rng.choice(["cls", "json", "txt"]): rng.choice(labels),
            }
            for suffix, data in members.items():
                member = tarfile.TarInfo(rng.choice([f"{number:04}", f"a/{number}", ".", "../x", "é"]) + f".{suffix}")
                member.size = len(data)
                member.type = rng.choice([tarfile.REGTYPE] * 9 + [tarfile.SYMTYPE])
                archive.addfile(member, io.BytesIO(data))
    return _use(rng, rng.choice(["d", str(path.relative_to(folder)), "d/{a..c}.tar", "d/{0..99999999999}.tar"]))


def image_folder(rng: Random, folder: Path) -> list[str]:
    """Folders of odd names with good and damaged images."""
    for _ in range(rng.choice([1, 6, 20])):
        name = rng.choice(["1", "2", "10", "train/a", "test/a", "val/b", "__MACOSX", ".git", "a", "é", "empty"])
        (folder / "d" / name).mkdir(parents=True, exist_ok=True)
        file = rng.choice(["a.png", "b.jpg", "._a.png", "Thumbs.db", "c", "d.PNG", "e.gif", "f.txt"])
        (folder / "d" / name / file).write_bytes(_image_bytes(rng) or b"")
    return _use(rng, "d")


def record(rng: Random, folder: Path) -> list[str]:
    """A damaged record, from which its images are to be made again."""
    name = rng.choice(["sample.json", "vectors.json", "edit.json"])
    damage(rng, own(folder / name))
    model = "vectors_run" if name == "vectors.json" else "run"
    return ["sample", *rng.choice([[], [model]]), "--from", name, "--out", "out.png"]


def mask(rng: Random, folder: Path) -> list[str]:
    """Images and masks of all kinds for editing."""
    for name in ("i.png", "k.png"):
        (folder / name).write_bytes(_image_bytes(rng) or b"")
    image, drawn = rng.choice(["image.png", "i.png"]), rng.choice(["mask.png", "k.png"])
    extra = rng.choice(
        [["--mask", drawn], ["--mask", drawn, "--composite"], ["--canvas", "16x16"], ["--canvas",
         rng.choice(["8x", "0x0", "99999x99999", "-8x8", "12x12"]), "--at", rng.choice(["0,0", "-1,0", "x", "8,8"])],
         ["--keep-cells", "3"], []]
    )  # fmt: skip
    return ["edit", "run", image, *extra, *rng.choice([[], ["--resize"]]), "--count", "1", "--out", "out.png"]


def samples(rng: Random, folder: Path) -> list[str]:
    """Samples as npz or a folder, and a reference, either of them damaged."""
    chosen = rng.choice(["npz", "array", "folder", "reference"])
    source = folder / "samples.npz"
    if chosen == "npz":
        source = folder / "s.npz"
        source.write_bytes(mutate.text(rng, (folder / "samples.npz").read_bytes()))
    elif chosen == "array":
        source = folder / "s.npz"
        shape = rng.choice(
            [(), (3,), (4, SIDE, SIDE), (0, SIDE, SIDE, 3), (4, 1, 1, 3), (4, 3, SIDE, SIDE), (4, 9, 7, 3)]
        )
        dtype = rng.choice([np.uint8, np.float32, np.int64, np.complex64, object, "U3"])
        arrays = {rng.choice(["arr_0", "images", "x"]): np.ones(shape, np.float32).astype(dtype)}
        if rng.random() < 0.3:
            arrays["arr_1"] = np.array(rng.choice([[2**40], [-1, 0, 1, 2], [0.5] * 4, ["a"] * 4]))
        np.savez(source, **arrays)
    elif chosen == "folder":
        source = folder / "s"
        source.mkdir()
        for number in range(rng.choice([0, 1, 5])):
            (source / f"{number}.png").write_bytes(_image_bytes(rng) or b"")
    else:
        path = own(folder / "reference.safetensors")
        with path.open("rb+") as file:  # of 13 MB only the head is worth changing
            length = int.from_bytes(file.read(8), "little")
            head = mutate.text(rng, file.read(length))
            file.seek(0)
            file.write(len(head).to_bytes(8, "little") + head)
    return ["evaluate", "--reference", "reference.safetensors", "--samples", source.name, "--out", "out"]


INPUTS: dict[str, tuple[Input, float]] = {
    "recipe": (recipe, 0.24),
    "trained_recipe": (trained_recipe, 0.06),
    "options": (options, 0.1),
    "model": (model_folder, 0.1),
    "tokenizer": (tokenizer_folder, 0.05),
    "cache": (cache, 0.09),
    "run": (run_folder, 0.08),
    "parquet": (parquet, 0.07),
    "tar": (tar, 0.06),
    "images": (image_folder, 0.03),
    "record": (record, 0.05),
    "mask": (mask, 0.05),
    "samples": (samples, 0.02),
}
"""Each kind, and its share of the inputs."""


def kind_of(number: int) -> str:
    """The kind of an input: the shares are kept in every hundred."""
    position = (number * 37 % 100 + 0.5) / 100
    for name, (_, share) in INPUTS.items():
        position -= share
        if position < 0:
            return name
    raise AssertionError("the shares add up to less than one")
