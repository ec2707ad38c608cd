"""Images and masks as callers have them (PIL, NumPy, torch), converted to uint8 and bool tensors.

Shape legend: M images of h × w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from heptapod.data.decoding import decode_one, read_image_file, to_rgb

WHITE = 128
"""Pixels of a mask from this gray level on are repainted."""

ImageInput = Image.Image | np.ndarray | Tensor
"""One image: PIL of any mode, (h, w, 3) uint8 array, or (3, h, w) uint8 tensor."""
ImagesInput = ImageInput | Sequence[ImageInput]
"""Images: one, several of one size, or a batch: (M, h, w, 3) uint8 array or (M, 3, h, w) uint8 tensor."""
MaskInput = Image.Image | np.ndarray | Tensor
"""A mask: PIL (white is repainted), or (h, w) bool array or tensor (True is repainted)."""


def image_tensor(image: ImageInput, setting: str = "image") -> Tensor:
    """One image as a tensor (3, h, w) uint8 on the CPU.

    A PIL image is converted as image files are: upright by its EXIF tag, transparency on white, gray to RGB.

    Args:
        image: PIL of any mode, (h, w, 3) uint8 array, or (3, h, w) uint8 tensor.
        setting: name of the argument, for the error.

    Raises:
        ValueError: naming the setting, shape and dtype, if it is anything else.
    """
    if isinstance(image, Image.Image):
        try:
            return torch.from_numpy(to_rgb(image, 0))
        except (ValueError, OSError, SyntaxError) as error:  # what decoders raise
            raise ValueError(f"{setting}: {error}") from None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and len(image) == 3:
        return image.cpu()
    raise ValueError(
        f"{setting}: {_described(image)} given, must be a PIL image, (3, h, w) of uint8 or a NumPy array (h, w, 3) of "
        "uint8"
    )


def image_batch(images: ImagesInput, setting: str = "images") -> Tensor:
    """Images as a tensor (M, 3, h, w) uint8 on the CPU.

    Args:
        images: one image, as for :func:`image_tensor`; a sequence of them; or a batch: (M, h, w, 3) uint8 array or
            (M, 3, h, w) uint8 tensor.
        setting: name of the argument, for the error.

    Raises:
        ValueError: naming the setting, if there is none, their sizes differ, or they are anything else.
    """
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray | Tensor) and images.ndim == 3):
        return image_tensor(images, setting)[None]
    if isinstance(images, Tensor) and images.ndim == 4 and images.dtype == torch.uint8 and images.shape[1] == 3:
        return images.cpu()
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.ndim != 4):
        raise ValueError(f"{setting}: {_described(images)} given, must be (M, 3, h, w) of uint8")
    converted = [image_tensor(image, setting) for image in images]
    if not converted:
        raise ValueError(f"{setting}: none given, must be at least one")
    if other := [image for image in converted if image.shape != converted[0].shape]:
        first, second = (f"{image.shape[1]}×{image.shape[2]}" for image in (converted[0], other[0]))
        raise ValueError(f"{setting}: {first} and {second} pixels given, all must have one size")
    return torch.stack(converted)


def mask_tensor(mask: MaskInput, size: Sequence[int], setting: str = "mask") -> Tensor:
    """A mask as a tensor (h, w) bool on the CPU, True where to repaint.

    Args:
        mask: PIL image (gray levels from ``WHITE`` on are repainted), or (h, w) bool array or tensor.
        size: height and width it must have.
        setting: name of the argument, for the error.

    Raises:
        ValueError: naming the setting, shape and dtype, for another kind or size.
    """
    if isinstance(mask, Image.Image):
        gray = Image.fromarray(image_tensor(mask, setting).permute(1, 2, 0).numpy()).convert("L")
        converted: object = torch.from_numpy(np.array(gray)) >= WHITE
    else:
        converted = torch.from_numpy(mask) if isinstance(mask, np.ndarray) and mask.dtype == np.bool_ else mask
    if not isinstance(converted, Tensor) or converted.dtype != torch.bool or converted.shape != tuple(size):
        raise ValueError(
            f"{setting}: {_described(converted)} given, must be {tuple(size)} of bool or a PIL image of that size, the "
            "image's height and width"
        )
    return converted.cpu()


def read_image(path: str, setting: str = "image") -> Tensor:
    """The image (3, h, w) uint8 in a file.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is not an image.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{setting}: {path} does not exist")
    pixels = decode_one(lambda: read_image_file(Path(path)), lambda image: to_rgb(image, 0))
    if isinstance(pixels, str):
        raise ValueError(f"{setting}: {path} cannot be read: {pixels}")
    return torch.from_numpy(pixels)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray | Tensor):
        return f"{tuple(value.shape)} of {value.dtype}"
    return type(value).__name__
