"""Run folders: the start of a run, and whether it is done. The same command again resumes a run.

```text
OUT/config.yaml     the resolved recipe
OUT/data.json       images used, held out, and unreadable ones by name
OUT/tokenizer/      a separate run, if the tokenizer is trained here
OUT/metrics.jsonl   figures during training; OUT/training.json the final ones
OUT/samples/        sample grids
OUT/checkpoints/    for resuming
OUT/best, OUT/last  weights for use
```
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

from heptapod.data import ImageSet, TokenSet
from heptapod.data.loader import names_sha256
from heptapod.distributed import process_group
from heptapod.training.config import CHANGEABLE_ON_RESUME
from heptapod.training.recipe import Recipe
from heptapod.utils.config import read_yaml, to_dict, to_yaml
from heptapod.utils.files import read_json, write_atomically, write_json

logger = logging.getLogger(__name__)


def find_tokenizer(path: Path, setting: str = "tokenizer.path") -> Path:
    """The folder of a trained tokenizer: the path itself, or that in its run, in a model's run or in a cache.

    Raises:
        FileNotFoundError: if there is none.
    """
    for folder in (path, path / "best", path / "tokenizer" / "best", path / "tokenizer"):
        file = folder / "config.json"
        if file.is_file() and str(read_json(file).get("format")).startswith("heptapod-tokenizer"):
            if folder.name == "best" and not (folder.parent / "training.json").is_file():
                logger.info(f"{setting}: the training of {folder} is not finished; these are its best weights so far")
            return folder
    raise FileNotFoundError(f"{setting}: {path} holds no trained tokenizer")


def is_finished(folder: Path, recipe: Recipe, tokenizer: bool = False) -> bool:
    """Whether a run is done; checks that a run begun in the folder has the same settings.

    Raises:
        ValueError: naming a setting that differs.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        return False
    before, now = _relevant(read_yaml(config), tokenizer), _relevant(to_dict(recipe), tokenizer)
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        key = changed[0]
        raise ValueError(
            f"out: {folder} holds a run with {key} = {before.get(key)}, now {now.get(key)} is given; choose another "
            "--out, or remove the folder"
        )
    train = recipe.tokenizer.train if tokenizer else recipe.train
    return train.resume == "latest" and (folder / "training.json").is_file()


def _relevant(values: dict[str, Any], tokenizer: bool) -> dict[str, Any]:
    """The settings that determine the result of a run, by dotted key."""
    flat = _flatten(values)
    groups: tuple[str, ...] = ("data.", "tokenizer.", "seed")
    if not tokenizer:
        groups += ("model.", "objective.", "train.", "sampling.")
    return {
        key: value
        for key, value in flat.items()
        if key.startswith(groups) and key.rpartition(".")[2] not in CHANGEABLE_ON_RESUME and key != "data.memory_gib"
    }


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


Items = ImageSet | TokenSet


def start(folder: Path, recipe: Recipe, items: tuple[Items, Items]) -> None:
    """Writes the recipe and the facts of the data of a run.

    Raises:
        ValueError: if the run was begun with other images.
    """
    train, validation = items
    unreadable = [*train.unreadable, *validation.unreadable]
    facts = {
        "path": recipe.data.path,
        "train_images": len(train),
        "held_out_images": len(validation),
        "names_sha256": names_sha256(train) + names_sha256(validation),
        "sha256": _joined(train.sha256(), validation.sha256()),
        "size": list(train.size),
        "class_names": train.class_names,
        "unreadable_images": len(unreadable),
        "unreadable": unreadable,
    }
    if (folder / "data.json").is_file():
        before = read_json(folder / "data.json")
        pixels = {before.get("sha256"), facts["sha256"]} - {None}  # not known of images that are decoded on demand
        if before.get("names_sha256") != facts["names_sha256"] or len(pixels) > 1:
            raise ValueError(
                f"data: {len(train):,} training and {len(validation):,} held-out images that are not those (of "
                f"{before['train_images']:,} and {before['held_out_images']:,}) the run in {folder} began with; choose "
                "another --out"
            )
    process_group.barrier()  # all ranks have read the folder before one writes
    if process_group.is_main_process():
        text = to_yaml(recipe)
        write_atomically(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))
        write_json(folder / "data.json", facts)


def report(folder: Path, items: tuple[Items, Items]) -> None:
    """Logs the number of images, and the unreadable ones."""
    train, validation = items
    unreadable = [*train.unreadable, *validation.unreadable]
    logger.info(
        f"data: {len(train):,} images to train on, {len(validation):,} held out, {len(train.class_names)} classes"
    )
    if unreadable:
        logger.warning(
            f"data: {len(unreadable)} image(s) could not be read and are left out (all in {folder / 'data.json'}):"
        )
        for line in unreadable[:5]:
            logger.info(f"  {line}")


def chosen_on(folder: Path, path: str, sha256: str | None) -> dict[str, Any] | None:
    """The held-out images whose loss chose the weights of a folder; warns if they are the images that are measured.

    Args:
        folder: a model or a tokenizer. Only those in ``best`` of a run are chosen.
        path: the images that are measured.
        sha256: the hash of their content.

    Returns:
        Path and number of the images that the run read and held out; None for all other folders.
    """
    run = folder.parent
    if folder.name != "best" or not ((run / "data.json").is_file() and (run / "config.yaml").is_file()):
        return None
    facts, data = read_json(run / "data.json"), read_yaml(run / "config.yaml").get("data", {})
    source = data.get("validation_path") or facts.get("path")
    if path == source or (sha256 and str(facts.get("sha256")).endswith(sha256)):  # the last one that start() joined
        warnings.warn(
            f"{folder}: held-out images of {source} chose these weights, so figures on them are too good; measure "
            f"{run / 'last'}, or other images",
            stacklevel=3,
        )
    return {"path": source, "held_out_images": facts.get("held_out_images")}


def _joined(*hashes: str | None) -> str | None:
    return None if None in hashes else "".join(str(one) for one in hashes)
