"""The two runs: a recipe's tokenizer, and its model."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
from PIL import Image

from heptapod.data import ImageSet, TokenSet, encode_images, load_images
from heptapod.data.cache import is_cache, read_description
from heptapod.data.cached_tokens import load_tokens
from heptapod.distributed import process_group
from heptapod.distributed.device import resolve_device
from heptapod.grid import GridSpec
from heptapod.inference.pipeline import Heptapod
from heptapod.models import HeptapodModel
from heptapod.models.heptapod import build_model, least_parameters, parameters_by_part
from heptapod.sampling import plan_sampling
from heptapod.tokenizers import (
    NetworkConfig,
    Tokenizer,
    TokenizerConfig,
    TrainableTokenizer,
    build_tokenizer,
    build_trainable,
    load_tokenizer,
    save_tokenizer,
    tokenizer_class,
    tokenizer_hash,
)
from heptapod.training.folder import (
    find_tokenizer,
    is_finished,
    locked_run,
    read_figures,
    report,
    start,
    with_objective,
)
from heptapod.training.model_probe import ModelProbe, check_probe
from heptapod.training.model_task import ModelTask
from heptapod.training.precision import log_precision, resolve_precision, resolve_tokenizer_precision
from heptapod.training.recipe import Recipe
from heptapod.training.tokenizer_task import TokenizerTask
from heptapod.training.trainer import Trainer, check_processes
from heptapod.utils.files import check_folder, write_json
from heptapod.utils.images import image_grid
from heptapod.utils.machine import check_fits

logger = logging.getLogger(__name__)


PREVIEW_CLASSES = 10
PREVIEW_PER_CLASS = 8


def train(recipe: Recipe) -> Heptapod:
    """Trains the model of a recipe, and its tokenizer first where none is given; resumes an unfinished run.

    Returns:
        The model with its best weights.

    Raises:
        ValueError, FileNotFoundError: for settings or data that do not fit; nothing is written then.
    """
    with process_group.init_process_group(recipe.train.timeout):
        train_model(recipe)
    return Heptapod.from_pretrained(recipe.out, resolve_device(recipe.device))


def train_tokenizer(recipe: Recipe, images: tuple[ImageSet, ImageSet] | None = None) -> Tokenizer:
    """Trains the tokenizer of a recipe in OUT/tokenizer, or loads it if that is done.

    Raises:
        LockedError: if another process is training in the folder.
        ValueError, FileNotFoundError: for settings or data that do not fit; nothing is written then.
    """
    folder = Path(recipe.out) / "tokenizer"
    if recipe.tokenizer.path is not None:
        raise ValueError(f"tokenizer.path: {recipe.tokenizer.path} given, but this trains a tokenizer; leave it out")
    check_folder(folder)
    device = resolve_device(recipe.device)
    recipe = resolve_tokenizer_precision(recipe, device)
    if is_finished(folder, recipe, tokenizer=True):
        logger.info(f"tokenizer: already trained, {folder / 'best'}")
        return load_tokenizer(folder / "best")
    with locked_run(folder):
        return _train_tokenizer(recipe, folder, device, images)


def _train_tokenizer(
    recipe: Recipe, folder: Path, device: torch.device, images: tuple[ImageSet, ImageSet] | None
) -> Tokenizer:
    alone = images is None
    images = images or load_images(recipe.data)
    config = recipe.tokenizer.model
    if not issubclass(tokenizer_class(config), TrainableTokenizer):
        return _fixed_tokenizer(config, folder, recipe, images)
    check_processes(recipe.tokenizer.train)
    losses, accumulation = recipe.tokenizer.losses, recipe.tokenizer.train.accumulation
    if losses.adversarial_weight and losses.adaptive_weight and accumulation > 1:
        raise ValueError(
            f"tokenizer.train.accumulation: {accumulation} given, but tokenizer.losses.adaptive_weight needs the whole "
            "batch at once; set one of them to 1 or false"
        )
    if device.type == "cpu" and isinstance(config, NetworkConfig):
        settings, (height, width) = recipe.tokenizer.train, images[0].size
        count = settings.batch_size // settings.accumulation // process_group.world_size()
        check_fits(
            4 * count * height * width * config.width * 2 * config.blocks,
            f"tokenizer.train.batch_size: {settings.batch_size:,} images of {height}×{width}",
        )
    task = TokenizerTask(build_trainable(config, recipe.seed), recipe.tokenizer.losses, *images, recipe.seed)
    start(folder, recipe, images)
    if alone:
        report(folder, images)
    log_precision(recipe.tokenizer.train, device, "tokenizer.train.precision")
    figures = Trainer(task, recipe.tokenizer.train, folder, recipe.seed, device).run()
    if process_group.is_main_process():
        write_json(folder / "training.json", figures)
    return load_tokenizer(folder / "best")


def _fixed_tokenizer(
    config: TokenizerConfig, folder: Path, recipe: Recipe, images: tuple[ImageSet, ImageSet]
) -> Tokenizer:
    """Nothing to train: written as if it had been."""
    tokenizer = build_tokenizer(config)
    tokenizer.grid(*images[0].size)
    start(folder, recipe, images)
    if process_group.is_main_process():
        for name in ("best", "last"):
            save_tokenizer(tokenizer, folder / name)
        write_json(folder / "training.json", {"kind": config.kind})
    process_group.barrier()
    return tokenizer


def train_model(recipe: Recipe) -> dict[str, float]:
    """Trains the model of a recipe on images, or on a cache of tokens; the tokenizer first where none is given.

    Returns:
        The final held-out figures.

    Raises:
        LockedError: if another process is training in the folder.
        ValueError, FileNotFoundError: for settings or data that do not fit; nothing is written then.
    """
    out = Path(recipe.out)
    check_folder(out)
    device = resolve_device(recipe.device)
    recipe = resolve_precision(with_objective(out, recipe), device)
    if is_finished(out, recipe):
        logger.info(f"model: already trained, {out / 'best'}")
        return read_figures(out)
    check_processes(recipe.train)
    with locked_run(out):
        return _train_model(recipe, out, device)


def _train_model(recipe: Recipe, out: Path, device: torch.device) -> dict[str, float]:
    prepare = _from_cache if is_cache(Path(recipe.data.path)) else _from_images
    tokenizer, reference, train, validation = prepare(recipe, out, device)
    class_names, grid = train.class_names, train.grid
    model = _model(recipe, grid, len(class_names), device)

    def bundle(module: HeptapodModel, metadata: dict[str, str] | None = None) -> Heptapod:
        order, dropout = recipe.objective.token_order, recipe.objective.label_dropout
        return Heptapod(module, tokenizer, class_names, order, recipe.sampling, metadata, dropout)

    def export(module: HeptapodModel, folder: Path, metadata: dict[str, str]) -> None:
        path = os.path.relpath(reference, folder) if reference else None
        bundle(module, metadata).save_pretrained(folder, path)

    order, seed = recipe.objective.token_order, recipe.seed
    probe = ModelProbe(recipe.probe, train, validation, order, seed) if recipe.probe.images else None
    task = ModelTask(
        model,
        train,
        validation,
        recipe.objective,
        recipe.train.steps,
        lambda module: preview_grid(bundle(module)),
        export,
        probe,
    )
    log_precision(recipe.train, device, "train.precision")
    figures = Trainer(task, recipe.train, out, recipe.seed, device).run()
    if process_group.is_main_process():
        write_json(out / "training.json", figures)
    return figures


Prepared = tuple[Tokenizer, Path | None, TokenSet, TokenSet]
"""A tokenizer, its folder if that is not the run's own, training and held-out tokens."""


def _model(recipe: Recipe, grid: GridSpec, num_classes: int, device: torch.device) -> HeptapodModel:
    """The model of a recipe; refuses settings that do not fit the grid or the machine."""
    settings = recipe.train
    if device.type == "cpu" and process_group.world_size() == 1:
        # Weights, gradients, two moments and the average; the input of every block, for the backward pass.
        parameters = least_parameters(recipe.model, grid, num_classes)
        images, floats = settings.batch_size // settings.accumulation, grid.num_cells * recipe.model.width
        check_fits(
            4 * (5 * parameters + images * floats * recipe.model.depth),
            f"train.batch_size: {settings.batch_size:,} with accumulation {settings.accumulation:,} and a model of at "
            f"least {parameters:,} parameters",
        )
    model = build_model(recipe.model, grid, num_classes, recipe.seed)
    plan_sampling(model, recipe.sampling.with_token_order(recipe.objective.token_order))
    return model


def _from_images(recipe: Recipe, out: Path, device: torch.device) -> Prepared:
    """Encodes the images of a recipe, with its tokenizer or one that is trained now."""
    given = recipe.tokenizer.path
    if not given:
        is_finished(out / "tokenizer", recipe, tokenizer=True)  # refuses a tokenizer of other settings
    reference = find_tokenizer(Path(given)) if given else None
    tokenizer = load_tokenizer(reference) if reference else None
    images = load_images(recipe.data)
    _check_labels(images[0], images[1])
    for part in images:
        part.in_memory()  # refuses a set too large to be encoded here
    grid = (tokenizer or build_tokenizer(recipe.tokenizer.model)).grid(*images[0].size)
    model = _model(recipe, grid, len(images[0].class_names), device)  # refused before anything is written
    check_probe(recipe.probe, recipe.objective.label_dropout, *images, recipe.seed)
    start(out, recipe, images, tokenizer_hash(tokenizer) if tokenizer else None)
    report(out, images)
    _log_model(model, grid)
    tokenizer = (tokenizer or train_tokenizer(recipe, images)).to(device).eval()
    return tokenizer, reference, encode_images(tokenizer, images[0]), encode_images(tokenizer, images[1])


def _from_cache(recipe: Recipe, out: Path, device: torch.device) -> Prepared:
    """Opens the cache of a recipe; its tokenizer is the cache's own."""
    folder = Path(recipe.data.path)
    reference = find_tokenizer(Path(recipe.tokenizer.path)) if recipe.tokenizer.path else None
    place = reference or folder / "tokenizer"
    tokenizer = load_tokenizer(place)
    found, made_with = tokenizer_hash(tokenizer), read_description(folder).tokenizer_sha256
    if found != made_with:
        raise ValueError(
            f"tokenizer.path: {place} has the hash {found[:16]}…, but {folder} was made with a tokenizer of hash "
            f"{made_with[:16]}…; its tokens mean something else"
        )
    train, validation = load_tokens(recipe.data)
    _check_labels(train, validation)
    model = _model(recipe, train.grid, len(train.class_names), device)
    check_probe(recipe.probe, recipe.objective.label_dropout, train, validation, recipe.seed)
    for tokens in (train, validation):
        tokens.check_finite()
    start(out, recipe, (train, validation), found)
    report(out, (train, validation))
    logger.info(
        f"model: {parameters_by_part(model)['total']:,} parameters, grid {train.grid.height}×{train.grid.width}"
    )
    return tokenizer.to(device), reference, train, validation  # the cache's own is saved with the model


def _check_labels(train: ImageSet | TokenSet, validation: ImageSet | TokenSet) -> None:
    """Refuses held-out images without any label for a model with classes."""
    if train.class_names and len(validation) and int(validation.labels.max()) < 0:
        raise ValueError(
            f"data.validation_path: none of the {len(validation):,} held-out images has a label, but the model has "
            f"{len(train.class_names):,} classes; hold out labeled images"
        )


def _log_model(model: HeptapodModel, grid: GridSpec) -> None:
    logger.info(f"model: {parameters_by_part(model)['total']:,} parameters, grid {grid.height}×{grid.width}")


def preview_grid(heptapod: Heptapod) -> Image.Image:
    """A few samples of a few classes, a class per row, always from the same seeds."""
    names = heptapod.class_names[:PREVIEW_CLASSES]
    labels = [i for i in range(len(names)) for _ in range(PREVIEW_PER_CLASS)] or None
    tokens = heptapod.generate_tokens(labels, count=None if labels else PREVIEW_PER_CLASS**2, seed=0)
    return image_grid(heptapod.decode(tokens), PREVIEW_PER_CLASS, names or None)
