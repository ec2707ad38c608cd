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

import dataclasses
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from heptapod.configs.objective import ObjectiveConfig
from heptapod.data import ImageSet, TokenSet
from heptapod.data.classes import ClassCount, class_lines, count_classes
from heptapod.data.loader import names_sha256
from heptapod.distributed import process_group
from heptapod.training.config import CHANGEABLE_ON_RESUME, TrainConfig
from heptapod.training.optim import learning_rate
from heptapod.training.recipe import Recipe
from heptapod.utils.config import from_dict, settings, to_dict, to_yaml
from heptapod.utils.files import locked, read_json, write_atomically, write_json
from heptapod.utils.messages import shown
from heptapod.utils.yaml_text import read_yaml

logger = logging.getLogger(__name__)

PATHS = ("data.path", "data.validation_path", "tokenizer.path")
"""Settings that name a place: what counts is what is there."""


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

    Other paths and more steps may be given: such a run is not done. :func:`start` compares what is in the paths.

    Raises:
        ValueError: naming a setting that differs.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        return False
    train, group = (recipe.tokenizer.train, "tokenizer.train") if tokenizer else (recipe.train, "train")
    lengths = {f"{group}.steps": train.steps, f"{group}.minutes": train.minutes}
    values = read_yaml(config)
    values["objective"] = _recorded_objective(values)
    if not tokenizer and isinstance(values.get("model"), dict):
        values["model"].setdefault("dropout", 0.0)  # which earlier versions did not have
    before, now = _relevant(values, tokenizer), _relevant(to_dict(recipe), tokenizer)
    if train.minutes is not None and before.get(f"{group}.minutes") is not None:
        for values in (before, now):
            values.pop(f"{group}.steps", None)  # without effect
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    # More steps of a tokenizer would change the tokens of a model that is trained on them already.
    may_grow = not (tokenizer and (folder.parent / "checkpoints").is_dir())
    for key in changed:
        was, given = before.get(key), now.get(key)
        is_path = key in PATHS and isinstance(was, str) and isinstance(given, str)
        length = lengths.get(key)
        grows = length is not None and may_grow and isinstance(was, int | float) and length > was
        if not is_path and not grows:
            raise ValueError(
                f"out: {folder} holds a run with {key} = {shown(was)}, now {shown(given)} is given; choose another "
                "--out, or remove the folder"
            )
        if grows and isinstance(was, int | float):
            logger.info(_longer(train, int(was)) if key.endswith("steps") else _longer_by_clock(train, was))
    if lengths.keys() & set(changed) or any(not _same_place(before[key], now[key]) for key in changed):
        return False
    return train.resume == "latest" and (folder / "training.json").is_file()


def with_objective(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe with every unset value of its objective: that of the run in the folder, else that of its head."""
    config, kind = folder / "config.yaml", recipe.model.head.kind
    known = _recorded_objective(read_yaml(config)) if config.is_file() else {}
    given = {key: value for key, value in to_dict(recipe.objective).items() if value is not None}
    try:
        objective = from_dict(ObjectiveConfig, {**known, **given}, str(config)).for_head(kind)
    except ValueError:  # other settings than the run's: is_finished names one that differs
        objective = recipe.objective.for_head(kind)
    return dataclasses.replace(recipe, objective=objective)


def _recorded_objective(config: dict[str, Any]) -> dict[str, Any]:
    """The objective in the file of a run; a run of an earlier version has no far cells apart from its targets."""
    known = config.get("objective")
    if not isinstance(known, dict) or "far_cells" in known:
        return known if isinstance(known, dict) else {}
    only_next = known.get("targets_per_prefix") == 1
    return {**to_dict(ObjectiveConfig()), **known, "far_cells": 0.0, "far_weight": None if only_next else "uniform"}


def _same_place(before: str, now: str) -> bool:
    return Path(before).resolve() == Path(now).resolve()


def _longer(train: TrainConfig, before: int) -> str:
    """What more steps than before mean."""
    old, new = (learning_rate(dataclasses.replace(train, steps=steps), before - 1) for steps in (before, train.steps))
    longer = f"train.steps: {train.steps:,} in place of {before:,}; "
    if old == new:
        return f"{longer}the learning rate stays, so the weights will be those of a run of that length from the start"
    return (
        f"{longer}at step {before:,} the learning rate is now {new:.3g}, where it was {old:.3g}: the weights will be "
        "others than those of a run of that length from the start (train.final_lr_ratio 1 keeps the rate constant)"
    )


def _longer_by_clock(train: TrainConfig, before: float) -> str:
    """What more minutes than before mean."""
    return (
        f"train.minutes: {train.minutes:g} in place of {before:g}; the learning rate rises to where it is at this time "
        "of the longer training"
    )


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
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextmanager
def locked_run(folder: Path) -> Iterator[None]:
    """Locks a run folder against other commands; rank 0 does, for all.

    Raises:
        LockedError: on every rank, if another process has the lock.
    """
    with ExitStack() as stack:
        process_group.broadcast_result(lambda: stack.enter_context(locked(folder)))
        yield


def read_figures(folder: Path) -> dict[str, float]:
    """The final figures of a finished run.

    Raises:
        ValueError: if their file is damaged.
    """
    file = folder / "training.json"
    try:
        figures = pydantic.TypeAdapter(dict[str, float]).validate_python(read_json(file))
        return {name: figures.pop(name) for name in ("best_val_loss", "seconds", "step")} | figures
    except (pydantic.ValidationError, KeyError):
        raise ValueError(f"{file}: damaged, must hold numbers; remove it, and run the same command again") from None


Items = ImageSet | TokenSet
Count = Annotated[int, Field(ge=0)]


@settings
class RunData:
    """Content of ``data.json``: the data of a run."""

    path: str
    """Location of the images or tokens."""
    train_images: Count
    """Images to train on."""
    held_out_images: Count
    """Images held out."""
    names_sha256: str
    """Hash of the names of both."""
    sha256: str | None
    """Hash of the content of both; None for images that are decoded on demand."""
    size: list[Count]
    """Height and width: pixels of images, cells of tokens."""
    class_names: list[str]
    """Name of each class; empty for a set without labels."""
    unreadable_images: Count
    """Number of unreadable images."""
    unreadable: list[str]
    """"name: reason" of the unreadable images."""
    classes: list[ClassCount] = field(default_factory=list)
    """Name, training and held-out images of each class; empty in runs of earlier versions."""
    tokenizer_sha256: str | None = None
    """Hash of a tokenizer that was given; None if the run trained it, and in runs of earlier versions."""


def start(folder: Path, recipe: Recipe, items: tuple[Items, Items], tokenizer_sha256: str | None = None) -> None:
    """Writes the recipe and the description of the data of a run, which is not finished then.

    Args:
        folder: of the run.
        recipe: its settings.
        items: training and held-out images.
        tokenizer_sha256: hash of a tokenizer that is given.

    Raises:
        ValueError: if the run was begun with other images, or with another tokenizer.
    """
    train, validation = items
    unreadable = [*train.unreadable, *validation.unreadable]
    data = RunData(
        path=recipe.data.path,
        tokenizer_sha256=tokenizer_sha256,
        train_images=len(train),
        held_out_images=len(validation),
        names_sha256=names_sha256(train) + names_sha256(validation),
        sha256=_joined(train.sha256(), validation.sha256()),
        size=list(train.size),
        class_names=train.class_names,
        classes=count_classes(train.class_names, train.labels, validation.labels),
        unreadable_images=len(unreadable),
        unreadable=unreadable,
    )
    file = folder / "data.json"
    if file.is_file():
        before = from_dict(RunData, read_json(file), str(file))
        hashes = {before.sha256, data.sha256} - {None}
        if before.names_sha256 != data.names_sha256 or len(hashes) > 1:
            raise ValueError(
                f"data: {len(train):,} training and {len(validation):,} held-out images that are not those (of "
                f"{before.train_images:,} and {before.held_out_images:,}) the run in {folder} began with; choose "
                "another --out"
            )
        _note_paths(folder, recipe)
        known = before.tokenizer_sha256 or _exported_with(folder)
        if tokenizer_sha256 and known and known != tokenizer_sha256:
            raise ValueError(
                f"tokenizer.path: {recipe.tokenizer.path} has the hash {tokenizer_sha256[:16]}…, but the run in "
                f"{folder} began with a tokenizer of hash {known[:16]}…; choose another --out"
            )
    process_group.barrier()  # all ranks have read the folder before one writes
    if process_group.is_main_process():
        text = to_yaml(recipe)
        write_atomically(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))
        write_json(file, to_dict(data))
        (folder / "training.json").unlink(missing_ok=True)


def _note_paths(folder: Path, recipe: Recipe) -> None:
    """Logs the paths of a run that are now others, with the same content."""
    before, now = _flatten(read_yaml(folder / "config.yaml")), _flatten(to_dict(recipe))
    for key in PATHS:
        was, given = before.get(key), now.get(key)
        if isinstance(was, str) and isinstance(given, str) and not _same_place(was, given):
            logger.info(f"{key}: {given} holds the same as {was}, with which the run in {folder} began")


def _exported_with(folder: Path) -> str | None:
    """Hash of the tokenizer of a model that the run has written, for runs whose data.json does not name it."""
    config = folder / "best" / "config.json"
    found = read_json(config).get("tokenizer_sha256") if config.is_file() else None
    return found if isinstance(found, str) else None


def report(folder: Path, items: tuple[Items, Items]) -> None:
    """Logs the number of images, and the unreadable ones."""
    train, validation = items
    unreadable = [*train.unreadable, *validation.unreadable]
    logger.info(
        f"data: {len(train):,} images to train on, {len(validation):,} held out, {len(train.class_names)} classes"
    )
    for line in class_lines(count_classes(train.class_names, train.labels, validation.labels)):
        logger.info(f"  {line}")
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
    source = (data.get("validation_path") if isinstance(data, dict) else None) or facts.get("path")
    if path == source or (sha256 and str(facts.get("sha256")).endswith(sha256)):  # the last one that start() joined
        warnings.warn(
            f"{folder}: held-out images of {source} chose these weights, so figures on them are too good; measure "
            f"{run / 'last'}, or other images",
            stacklevel=3,
        )
    return {"path": source, "held_out_images": facts.get("held_out_images")}


def _joined(*hashes: str | None) -> str | None:
    return None if None in hashes else "".join(str(one) for one in hashes)
