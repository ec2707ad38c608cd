"""Decodes images of a source to RGB uint8."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from heptapod.configs.data import DataConfig
from heptapod.data.classes import keep_classes
from heptapod.data.decoding import decode_one, to_rgb
from heptapod.data.labels import matched_labels
from heptapod.data.on_demand import ImagesOnDemand
from heptapod.data.sources import Source, open_source
from heptapod.data.splits import SplitChoice
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream, numpy_generator, random_rows

logger = logging.getLogger(__name__)


def open_training(config: DataConfig, setting: str = "data.path") -> Source:
    """Opens the images to train on, and those to hold out unless they are separate."""
    name = _split_setting(setting, "split")
    return open_source(config.path, setting, SplitChoice(config.split, is_training=True, setting=name))


def open_validation(config: DataConfig, setting: str = "data.validation_path") -> Source:
    """Opens the images that ``has_validation`` is about."""
    name = _split_setting(setting, "validation_split")
    return open_source(
        config.path if config.validation_path is None else config.validation_path,
        setting if config.validation_path is not None else name,
        SplitChoice(config.validation_split, ("validation", "test"), setting=name),
    )


@dataclass
class ImageSet:
    """Decoded images."""

    images: Tensor | ImagesOnDemand
    """(M, 3, h, w) uint8 RGB, in memory or decoded when indexed."""
    labels: Tensor
    """(M,) int64, -1 where there is no label."""
    names: list[str]
    """File names or row numbers."""
    class_names: list[str]
    """Name of each class; empty for a set without labels."""
    flip: bool = False
    """Mirror training images at random."""
    unreadable: list[str] = field(default_factory=list)
    """"name: reason" of every unreadable image."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def is_slow(self) -> bool:
        """Whether images are decoded when they are read."""
        return isinstance(self.images, ImagesOnDemand)

    def sha256(self) -> str | None:
        """Hash of the pixels and labels; None if the pixels are not in memory."""
        if isinstance(self.images, ImagesOnDemand):
            return None
        digest = hashlib.sha256(self.images.numpy().data)
        digest.update(self.labels.numpy().data)
        return digest.hexdigest()

    def in_memory(self) -> Tensor:
        """The pixels (M, 3, h, w) of a set in memory.

        Raises:
            ValueError: if the set decodes images on demand.
        """
        if isinstance(self.images, ImagesOnDemand):
            raise ValueError(
                f"data: {len(self):,} images of {self.size[0]}×{self.size[1]} pixels exceed memory_gib; raise it, use "
                "fewer or smaller images, or train from a cache (heptapod tokenize)"
            )
        return self.images

    def items(self, indices: Tensor, keys: list[tuple[int, int, int]]) -> Tensor:
        """Images by index, mirrored by their streams if ``flip`` is set."""
        images = self.images[indices]
        if self.flip:
            mirrored = flipped(keys).view(-1, 1, 1, 1)
            images = torch.where(mirrored, images.flip(-1), images)
        return images

    def subset(self, indices: Tensor) -> ImageSet:
        """The images with the given indices; ``unreadable`` is empty."""
        names = [self.names[i] for i in indices.tolist()]
        images = self.images.take(indices) if isinstance(self.images, ImagesOnDemand) else self.images[indices]
        return ImageSet(images, self.labels[indices], names, self.class_names, self.flip)


def flipped(keys: list[tuple[int, int, int]]) -> Tensor:
    """(B,) bool: which images of a batch are mirrored."""
    return KeyedGenerator(Stream.AUGMENT, keys).uniform(1).squeeze(1) < 0.5


def load_images(config: DataConfig) -> tuple[ImageSet, ImageSet]:
    """Decodes all images of a configuration.

    Returns:
        Training images in the order of their source, and held-out images in a fixed random order, so that the first
        few represent all. ``unreadable`` lists the unreadable ones.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if there are no images, or their sizes differ and no ``image_size`` is set.
    """
    source = open_training(config)
    held_out_source = source
    if config.has_validation:
        held_out_source = with_classes_of(source, open_validation(config), "data.validation_path")
    train_rows, held_out_rows = split_rows(source.is_held_out(), config, source.labels)
    if config.has_validation:
        held_out_rows = np.arange(len(held_out_source.names))
    train = decode(source, config, train_rows)
    validation = decode(held_out_source, config, held_out_rows)
    if not config.has_validation:
        check_size(validation.names[0], validation.size, train.size)
    if validation.size != train.size:
        raise ValueError(
            f"data.validation_path: {held_out_source.path} has images of {validation.size[0]}×{validation.size[1]} "
            f"pixels, the training images have {train.size[0]}×{train.size[1]}; set data.image_size"
        )
    if config.has_validation:
        warn_if_shared(train, validation, Path(source.path) == Path(held_out_source.path))
    shuffled_validation = validation.subset(torch.from_numpy(shuffled(len(validation))))
    shuffled_validation.flip = False
    shuffled_validation.unreadable = validation.unreadable
    train.flip = config.flip
    return train, shuffled_validation


def warn_if_shared(train: ImageSet, held_out: ImageSet, is_one_place: bool) -> None:
    """Warns of held-out images that are training images too: figures measured on them are too good.

    Args:
        train: training images.
        held_out: held-out images, a separate set.
        is_one_place: whether both come from one path; then those that are decoded on demand are compared by name.
    """
    on_demand = isinstance(train.images, ImagesOnDemand) or isinstance(held_out.images, ImagesOnDemand)
    if on_demand and not is_one_place:
        return
    seen = set(train.names if on_demand else map(_digest, train.in_memory()))
    shared = sum(one in seen for one in (held_out.names if on_demand else map(_digest, held_out.in_memory())))
    if shared:
        logger.warning(
            f"data: {shared:,} of {len(held_out):,} held-out images are training images too; figures measured on them "
            "are too good"
        )


def _digest(pixels: Tensor) -> bytes:
    return hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()


def with_classes_of(source: Source, held_out: Source, setting: str) -> Source:
    """A held-out source with its labels as indices of the training classes, matched by name.

    Raises:
        ValueError: naming the setting, if it has other classes.
    """
    labels = matched_labels(
        held_out.labels, held_out.class_names, source.class_names, setting, held_out.path, source.path
    )
    return replace(held_out, labels=labels, class_names=source.class_names)


def split_rows(
    is_held_out: np.ndarray, config: DataConfig, labels: Sequence[int] | np.ndarray = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of training and held-out images, ascending.

    Args:
        is_held_out: (M,) bool, the split of the data set; if all are false, a random share is held out.
        config: the share, a separate path of held-out images, and a limit.
        labels: class of each image, -1 for none: a random share leaves every class an image to train on.

    Raises:
        ValueError: if there are too few images.
    """
    count = len(is_held_out)
    if config.has_validation:
        is_held_out = np.zeros(count, dtype=bool)
    elif not is_held_out.any():
        if count < 2:
            raise ValueError(f"data.path: {config.path} has {count} image(s); at least 2 are needed")
        share = min(max(1, round(count * config.validation_fraction)), count - 1)
        order = numpy_generator(Stream.SPLIT, 0).permutation(count)
        is_held_out = np.zeros(count, dtype=bool)
        is_held_out[keep_classes(order, share, np.asarray(labels, dtype=np.int64))] = True
    train_rows = np.flatnonzero(~is_held_out)
    if config.limit is not None:
        train_rows = train_rows[random_rows(numpy_generator(Stream.SPLIT, 1), len(train_rows), config.limit)]
    return train_rows, np.flatnonzero(is_held_out)


def shuffled(count: int) -> np.ndarray:
    """The fixed order of held-out images, in which the first few represent all."""
    return numpy_generator(Stream.SPLIT, 2).permutation(count)


def decode(source: Source, config: DataConfig, rows: np.ndarray | None = None) -> ImageSet:
    """Decodes images of a source on all cores, with a progress bar.

    Args:
        source: the images.
        config: their size and the memory limit.
        rows: ascending rows of the source; None for all.
    """
    rows = np.arange(len(source.names)) if rows is None else rows
    images: Tensor | None = None
    kept: list[int] = []
    unreadable: list[str] = []
    with Progress(f"reading {len(rows):,} images", len(rows)) as progress:
        for number, result in decode_each(source, rows, lambda image: to_rgb(image, config.image_size)):
            progress.advance(1)
            name = source.names[number]
            if isinstance(result, str):
                unreadable.append(f"{name}: {result}")
                continue
            if images is None:
                if result.nbytes * len(rows) > config.memory_gib * 2**30:
                    return _on_demand(source, config, rows, result.nbytes * len(rows), unreadable)
                images = torch.empty(len(rows), *result.shape, dtype=torch.uint8)
            check_size(name, result.shape, images.shape[1:])
            images[len(kept)] = torch.from_numpy(result)
            kept.append(number)
    if images is None:
        raise ValueError(f"{source.path}: none of {len(rows)} image(s) can be read; the first is {unreadable[0]}")
    labels = torch.tensor([source.labels[i] for i in kept])
    names = [source.names[i] for i in kept]
    return ImageSet(images[: len(kept)], labels, names, source.class_names, False, unreadable)


def check_size(
    name: str,
    shape: Sequence[int],
    expected: Sequence[int],
    fix: str = "set image_size (in a recipe data.image_size) to resize them",
) -> None:
    """Checks the size of an image (…, h, w).

    Args:
        name: of the image.
        shape: its shape.
        expected: that of the images before it.
        fix: what the user can do about it.

    Raises:
        ValueError: if it differs from the earlier images; names the image.
    """
    if tuple(shape) != tuple(expected):
        raise ValueError(
            f"{name} is {shape[-2]}×{shape[-1]} pixels, images before it {expected[-2]}×{expected[-1]}: {fix}"
        )


def decode_each(
    source: Source, rows: np.ndarray, transform: Callable[[Image.Image], np.ndarray]
) -> Generator[tuple[int, np.ndarray | str], None, None]:
    """Decodes images of a source in order, on all cores, and keeps up to 256 decoded ahead.

    Args:
        source: the images.
        rows: ascending rows of the source.
        transform: converts an image to pixels.

    Yields:
        The row of an image, and its pixels or the reason why it is unreadable.
    """
    if source.open_rows is not None:
        openers = source.open_rows(rows)
    else:
        wanted = set(rows.tolist())
        openers = (opener for number, opener in enumerate(source.open_all()) if number in wanted)
    numbers = iter(rows.tolist())
    with (
        ThreadPoolExecutor() as pool,
        warnings.catch_warnings(),  # here and not in the threads: it affects the whole process
    ):
        warnings.simplefilter("ignore")  # about unusual metadata, which does not affect the pixels
        pending = deque(pool.submit(decode_one, opener, transform) for opener in islice(openers, 256))
        try:
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(decode_one, opener, transform) for opener in islice(openers, 1))
                yield next(numbers), result
        finally:
            pool.shutdown(cancel_futures=True)


def _split_setting(setting: str, name: str) -> str:
    """The setting of a split next to the setting of a path."""
    return f"data.{name}" if setting.startswith("data.") else name.replace("validation", "test")


def _on_demand(source: Source, config: DataConfig, rows: np.ndarray, num_bytes: int, unreadable: list[str]) -> ImageSet:
    """Images decoded on demand; raises for a source without random access."""
    if source.open_one is None or not config.image_size:
        raise ValueError(
            f"data.memory_gib: {config.memory_gib} given, but the decoded images need {num_bytes / 2**30:.1f} GiB; "
            "raise it, set a smaller data.image_size, use fewer images (data.limit), or give a folder or .tar shards "
            "and an image_size"
        )
    open_one = source.open_one

    def read(row: int) -> np.ndarray | str:
        return decode_one(open_one(row), lambda image: to_rgb(image, config.image_size))

    names = [source.names[row] for row in rows]
    labels = torch.tensor([source.labels[row] for row in rows])
    images = ImagesOnDemand(read, rows, names, (config.image_size, config.image_size))
    return ImageSet(images, labels, names, source.class_names, unreadable=unreadable)
