"""Runs: a recipe, step by step, in a run folder. The same command again goes on where it stopped.

OUT/config.yaml     the resolved recipe
OUT/data.json       images used, held out, and unreadable ones by name
OUT/tokenizer/      a run of its own, if the tokenizer is trained here
OUT/metrics.jsonl   figures during training; OUT/training.json the final ones
OUT/samples/        sample grids
OUT/checkpoints/    for resuming
OUT/best, OUT/last  weights for use
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image

from heptapod.config import read_yaml, to_dict, to_yaml
from heptapod.data import ImageSet, encode_images, load_images
from heptapod.files import read_json, write_atomically, write_json
from heptapod.models import HeptapodModel
from heptapod.models.heptapod import build_model, parameters_by_part
from heptapod.pictures import image_grid
from heptapod.pipeline import Heptapod
from heptapod.progress import say
from heptapod.recipe import Recipe, resolve_device
from heptapod.sampling import check_plan
from heptapod.tokenizers import (
    PixelConfig,
    Tokenizer,
    VQTokenizer,
    build_tokenizer,
    load_tokenizer,
    save_tokenizer,
)
from heptapod.training.config import RESUME_FREELY
from heptapod.training.tasks import ModelTask, TokenizerTask
from heptapod.training.trainer import Trainer

PREVIEW_CLASSES = 10
PREVIEW_PER_CLASS = 8


def train_tokenizer(recipe: Recipe, images: tuple[ImageSet, ImageSet] | None = None) -> Tokenizer:
    """Trains the tokenizer of a recipe in OUT/tokenizer, or loads it if that is done.

    Raises:
        ValueError, FileNotFoundError: for settings or data that do not fit; nothing is written then.
    """
    folder = Path(recipe.out) / "tokenizer"
    config = recipe.tokenizer.model
    if recipe.tokenizer.path is not None:
        raise ValueError(f"tokenizer.path: {recipe.tokenizer.path} given, but this trains a tokenizer; leave it out")
    device = resolve_device(recipe.device)
    if is_finished(folder, recipe, tokenizer=True):
        say(f"tokenizer: already trained, {folder / 'best'}")
        return load_tokenizer(folder / "best")
    tokenizer = build_tokenizer(config, recipe.seed)
    alone = images is None
    images = images or load_images(recipe.data)
    tokenizer.grid(*images[0].size)  # refuses a size that does not fit, before anything is written
    _start(folder, recipe, images)
    if alone:
        _report(folder, images)
    if isinstance(config, PixelConfig):
        for name in ("best", "last"):
            save_tokenizer(tokenizer, folder / name)
        write_json(folder / "training.json", {"kind": "pixel"})
        return tokenizer
    assert isinstance(tokenizer, VQTokenizer)
    task = TokenizerTask(tokenizer, *images, recipe.seed)
    figures = Trainer(task, recipe.tokenizer.train, folder, recipe.seed, device).run()
    write_json(folder / "training.json", figures)
    return load_tokenizer(folder / "best")


def train_model(recipe: Recipe) -> dict[str, float]:
    """Trains the tokenizer (where none is given) and the model of a recipe.

    Returns:
        The final held-out figures.

    Raises:
        ValueError, FileNotFoundError: for settings or data that do not fit; nothing is written then.
    """
    out = Path(recipe.out)
    device = resolve_device(recipe.device)
    if is_finished(out, recipe):
        say(f"model: already trained, {out / 'best'}")
        return {name: float(value) for name, value in read_json(out / "training.json").items()}
    given = recipe.tokenizer.path
    if not given:
        is_finished(out / "tokenizer", recipe, tokenizer=True)  # refuses a tokenizer of other settings
    tokenizer = load_tokenizer(find_tokenizer(Path(given))) if given else None
    images = load_images(recipe.data)
    class_names = images[0].class_names
    grid = (tokenizer or build_tokenizer(recipe.tokenizer.model)).grid(*images[0].size)
    model = build_model(recipe.model, grid, len(class_names), recipe.seed)
    check_plan(model, recipe.sampling.with_token_order(recipe.objective.token_order))
    _start(out, recipe, images)
    _report(out, images)
    say(f"model: {parameters_by_part(model)['total']:,} parameters, grid {grid.height}×{grid.width}")
    tokenizer = (tokenizer or train_tokenizer(recipe, images)).to(device).eval()
    train, validation = encode_images(tokenizer, images[0]), encode_images(tokenizer, images[1])
    del images

    def bundle(module: HeptapodModel, metadata: dict[str, str] | None = None) -> Heptapod:
        order = recipe.objective.token_order
        return Heptapod(module, tokenizer, class_names, order, recipe.sampling, metadata)

    def export(module: HeptapodModel, folder: Path, metadata: dict[str, str]) -> None:
        reference = os.path.relpath(find_tokenizer(Path(given)), folder) if given else None
        bundle(module, metadata).save_pretrained(folder, reference)

    task = ModelTask(model, train, validation, recipe.objective, lambda module: preview_grid(bundle(module)), export)
    figures = Trainer(task, recipe.train, out, recipe.seed, device).run()
    write_json(out / "training.json", figures)
    return figures


def preview_grid(heptapod: Heptapod) -> Image.Image:
    """A few samples of a few classes, a class per row, always from the same seeds."""
    names = heptapod.class_names[:PREVIEW_CLASSES]
    labels = [i for i in range(len(names)) for _ in range(PREVIEW_PER_CLASS)] or None
    tokens = heptapod.generate_tokens(labels, count=None if labels else PREVIEW_PER_CLASS**2, seed=0)
    return image_grid(heptapod.decode(tokens), PREVIEW_PER_CLASS, names or None)


def find_tokenizer(path: Path) -> Path:
    """The folder of a trained tokenizer: the path itself, or ``best`` in its run, or in a model's run folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    for folder in (path, path / "best", path / "tokenizer" / "best"):
        if (folder / "config.json").is_file() and "tokenizer" in read_json(folder / "config.json").get("format", ""):
            return folder
    raise FileNotFoundError(f"tokenizer.path: {path} holds no trained tokenizer")


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
    return (folder / "training.json").is_file()


def _relevant(values: dict[str, Any], tokenizer: bool) -> dict[str, Any]:
    """The settings that decide what a run gives, as dotted keys."""
    flat = _flatten(values)
    groups: tuple[str, ...] = ("data.", "tokenizer.", "seed")
    if not tokenizer:
        groups += ("model.", "objective.", "train.", "sampling.")
    return {
        key: value
        for key, value in flat.items()
        if key.startswith(groups) and key.rpartition(".")[2] not in RESUME_FREELY and key != "data.memory_gib"
    }


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _start(folder: Path, recipe: Recipe, images: tuple[ImageSet, ImageSet]) -> None:
    """Writes what a run starts from.

    Raises:
        ValueError: if the run was begun with other images.
    """
    train, validation = images
    unreadable = train.unreadable + validation.unreadable
    facts = {
        "path": recipe.data.path,
        "train_images": len(train),
        "held_out_images": len(validation),
        "sha256": train.sha256() + validation.sha256(),
        "height": train.size[0],
        "width": train.size[1],
        "class_names": train.class_names,
        "unreadable_images": len(unreadable),
        "unreadable": unreadable,
    }
    if (folder / "data.json").is_file():
        before = read_json(folder / "data.json")
        if before.get("sha256") != facts["sha256"]:
            raise ValueError(
                f"data: {len(train):,} training and {len(validation):,} held-out images that are not those (of "
                f"{before['train_images']:,} and {before['held_out_images']:,}) the run in {folder} began with; choose "
                "another --out"
            )
    text = to_yaml(recipe)
    write_atomically(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))
    write_json(folder / "data.json", facts)


def _report(folder: Path, images: tuple[ImageSet, ImageSet]) -> None:
    """Tells what images there are, and which could not be read."""
    train, validation = images
    unreadable = train.unreadable + validation.unreadable
    say(f"data: {len(train):,} images to train on, {len(validation):,} held out, {len(train.class_names)} classes")
    if unreadable:
        say(f"data: {len(unreadable)} image(s) could not be read and are left out (all in {folder / 'data.json'}):")
        for line in unreadable[:5]:
            say(f"  {line}")
