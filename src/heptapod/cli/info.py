"""``heptapod info``."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Annotated, Any

import tyro

from heptapod.configs.data import SplitName
from heptapod.utils.arguments import parse_function
from heptapod.utils.config import from_dict, to_dict

logger = logging.getLogger(__name__)


def info(arguments: list[str]) -> None:
    """Parses arguments and prints the facts."""
    parse_function(show, "info", arguments)()


def show(
    path: tyro.conf.Positional[str],
    as_json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(name="json")] = False,
    sheet: str | None = None,
    verify: tyro.conf.FlagCreatePairsOff[bool] = False,
    split: SplitName | None = None,
) -> None:
    """Prints the content of a model, tokenizer, cache, run folder, checkpoint, safetensors file or set of images.

    Of a set of images: its splits, its classes with the number of images that training reads and holds out by default,
    and what is left out.

    Args:
        path: Folder, file, pattern of .tar shards, or mnist5k.
        as_json: Print JSON for programs instead of a table.
        sheet: Where to write the contact sheet of a cache, a .png file; contact_sheet.png in the cache if left out.
        verify: Compare every shard of a cache with its checksum.
        split: The split of a set of images; train if left out.
    """
    import rich.table
    from rich.console import Console

    from heptapod.data.cache import is_cache, verify_cache

    if (sheet is not None or verify) and not is_cache(Path(path)):
        raise ValueError(f"{'verify' if verify else 'sheet'}: given, but {path} is no cache")
    if sheet is not None and Path(sheet).suffix != ".png":
        raise ValueError(f"sheet: {sheet} given, pictures are written as .png")
    if verify:
        verify_cache(Path(path))
    facts = describe(Path(path)) if split is None else describe_images(path, split)
    if is_cache(Path(path)):
        facts["contact_sheet"] = _write_sheet(Path(path), sheet)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = rich.table.Table(show_header=False, title=str(path), title_justify="left")
    for key, value in _rows(facts):
        table.add_row(key, value)
    Console(width=None).print(table, markup=False)


def _write_sheet(cache: Path, sheet: str | None) -> str:
    """Path of the contact sheet; empty if the cache is read-only."""
    from heptapod.data.cache_picture import contact_sheet
    from heptapod.utils.images import save_png

    picture = Path(sheet) if sheet else cache / "contact_sheet.png"
    try:
        save_png(contact_sheet(cache), picture)
    except OSError as error:
        if sheet is not None:
            raise
        logger.warning(
            f"the contact sheet cannot be written to {picture} ({error.strerror}); give a place with --sheet"
        )
        return ""
    return str(picture)


def describe(path: Path) -> dict[str, Any]:
    """The content of a path, as JSON-safe values.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it is damaged or not a file of heptapod.
    """
    from heptapod.data.cache import is_cache
    from heptapod.data.webdataset import has_braces
    from heptapod.utils.files import read_json

    if not path.exists():
        if str(path) != "mnist5k" and not has_braces(str(path)):
            raise FileNotFoundError(f"{path}: no such file or folder")
        return describe_images(str(path))
    if path.suffix in (".parquet", ".tar"):
        return describe_images(str(path))
    if path.is_file():
        return _tensor_file(path)
    if is_cache(path):
        return _cache(path)
    if (path / "state.json").is_file():
        return _checkpoint(path)
    if (path / "config.yaml").is_file() or (path / "tokenizer" / "config.yaml").is_file():
        return _run(path)
    if (path / "config.json").is_file():
        form = str(read_json(path / "config.json").get("format"))
        if form.startswith("heptapod-tokenizer"):
            return _tokenizer(path)
        return _model(path)
    try:
        return describe_images(str(path))
    except ValueError as error:
        raise FileNotFoundError(
            f"{path}: neither a model, a tokenizer, a cache, a run, a checkpoint nor a set of images ({error})"
        ) from None


def describe_images(path: str, split: SplitName | None = None) -> dict[str, Any]:
    """The content of a set of images, without decoding them.

    Raises:
        FileNotFoundError, ValueError: as :func:`heptapod.data.sources.open_source` does.
    """
    import numpy as np

    from heptapod.data import DataConfig
    from heptapod.data.classes import count_classes
    from heptapod.data.images import split_rows
    from heptapod.data.sources import open_source
    from heptapod.data.splits import SplitChoice

    source = open_source(path, "path", SplitChoice(split))
    config = from_dict(DataConfig, {"path": path}, "info")
    labels = np.array(source.labels)
    train, held_out = split_rows(source.is_held_out(), config, labels)
    return {
        "kind": "images",
        "images": len(source.names),
        "training": len(train),
        "held_out": len(held_out),
        "split": source.split,
        "other_splits": source.other_splits,
        "left_out": source.left_out,
        "without_label": int((labels < 0).sum()),
        "class_names": source.class_names,
        "classes": count_classes(source.class_names, labels[train], labels[held_out]),
    }


def _model(path: Path) -> dict[str, Any]:
    from heptapod.inference.pipeline import Heptapod
    from heptapod.models.heptapod import parameters_by_part
    from heptapod.tokenizers.store import config_of
    from heptapod.utils.files import read_json

    heptapod = Heptapod.from_pretrained(path)
    model = heptapod.model
    return {
        "kind": "model",
        "parameters": parameters_by_part(model),
        "grid": to_dict(model.grid),
        "model": read_json(path / "config.json")["model"],
        "token_order": heptapod.token_order,
        "sampling": read_json(path / "config.json")["sampling"],
        "class_names": heptapod.class_names,
        "trained": heptapod.metadata,
        "tokenizer": config_of(heptapod.tokenizer),
    }


def _cache(path: Path) -> dict[str, Any]:
    from heptapod.data.cache import open_cache
    from heptapod.data.cache_picture import token_statistics
    from heptapod.tokenizers import load_tokenizer
    from heptapod.tokenizers.store import config_of

    cache = open_cache(path)
    index = {name: value for name, value in to_dict(cache.index).items() if name not in ("shards", "images_per_class")}
    counts = cache.index.images_per_class
    if counts:
        index["images_per_class"] = {"classes": len(counts), "fewest": min(counts), "most": max(counts)}
    return {
        "kind": "cache",
        **index,
        "tokens": token_statistics(cache),
        "shards": len(cache.index.shards),
        "bytes": sum(shard.bytes for shard in cache.index.shards),
        "settings": to_dict(cache.description.settings),
        "tokenizer_sha256": cache.description.tokenizer_sha256,
        "tokenizer": config_of(load_tokenizer(path / "tokenizer")),
        "split": cache.description.split,
        "class_names": cache.description.class_names,
        "classes": cache.classes(),
    }


def _tokenizer(path: Path) -> dict[str, Any]:
    from heptapod.evaluation.reconstruction import rate
    from heptapod.models.heptapod import parameters_by_part
    from heptapod.tokenizers import load_tokenizer, tokenizer_hash
    from heptapod.tokenizers.store import config_of
    from heptapod.utils.files import read_metadata

    tokenizer = load_tokenizer(path)
    return {
        "kind": "tokenizer",
        "parameters": parameters_by_part(tokenizer),
        "factor": tokenizer.factor,
        **rate(tokenizer),
        "sha256": tokenizer_hash(tokenizer),
        "tokenizer": config_of(tokenizer),
        "trained": read_metadata(path / "model.safetensors"),
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from heptapod.training.checkpoint import read_state, tensor_shapes

    numbers: dict[str, int] = {}
    for name, shape in tensor_shapes(path).items():
        part = name.partition("/")[0]
        numbers[part] = numbers.get(part, 0) + math.prod(shape)
    return {"kind": "checkpoint", "numbers": numbers, **to_dict(read_state(path))}


def _run(path: Path) -> dict[str, Any]:
    from heptapod.training.checkpoint import checkpoints
    from heptapod.training.folder import RunData
    from heptapod.utils.files import read_json

    facts: dict[str, Any] = {
        "kind": "run",
        "checkpoints": [checkpoint.name for checkpoint in checkpoints(path / "checkpoints")],
        "finished": (path / "training.json").is_file(),
    }
    if (path / "training.json").is_file():
        facts["training"] = read_json(path / "training.json")
    if (path / "data.json").is_file():
        facts["data"] = to_dict(from_dict(RunData, read_json(path / "data.json"), str(path / "data.json")))
    if (path / "best" / "config.json").is_file():
        facts["best"] = describe(path / "best")
    if (path / "tokenizer" / "best" / "config.json").is_file():
        facts["tokenizer"] = describe(path / "tokenizer" / "best")
    return facts


def _tensor_file(path: Path) -> dict[str, Any]:
    from heptapod.utils.files import open_tensors

    with open_tensors(path) as file:
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return {"kind": "tensors", "numbers": numbers, "metadata": metadata, "shapes": shapes}


def _rows(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    from heptapod.data.classes import class_lines

    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if key == "classes" and isinstance(value, list):
            rows += [(prefix + key, "\n".join(class_lines(value)))] if value else []
        elif isinstance(value, dict):
            rows += _rows(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            shown = ", ".join(str(item) for item in value[:10])
            rows.append((prefix + key, shown + (f", … ({len(value)} in all)" if len(value) > 10 else "")))
        elif isinstance(value, int) and not isinstance(value, bool):
            rows.append((prefix + key, f"{value:,}"))
        else:
            rows.append((prefix + key, str(value)))
    return rows
