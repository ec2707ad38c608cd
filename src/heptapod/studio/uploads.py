"""Uploaded files: what is taken, what is converted and how, what is refused.

Only the bytes count, never the name or the type that a client says they have.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from heptapod.data.images import to_rgb
from heptapod.pipeline import Heptapod
from heptapod.studio.schemas import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")


class NotAnImageError(ValueError):
    """A file of another kind."""


class TooLargeError(ValueError):
    """Too many bytes or pixels."""


def read_upload(content: bytes, limits: Limits) -> tuple[Image.Image, list[str]]:
    """An uploaded image in RGB, upright, and what was done to it. Pixels are counted before any is decoded.

    Raises:
        TooLargeError: for too many bytes or pixels.
        NotAnImageError: for a file of another kind.
        ValueError: for a damaged image, or pixels of no fixed range.
    """
    if len(content) > limits.upload_bytes:
        raise TooLargeError(f"file: {len(content):,} bytes given, at most {limits.upload_bytes:,} are taken")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        if isinstance(error, Image.DecompressionBombError):
            raise TooLargeError(f"file: at most {limits.upload_pixels:,} pixels are taken ({error})") from None
        raise NotAnImageError(f"file: no image of a kind that is taken ({', '.join(FORMATS)})") from None
    except Exception as error:  # decoders raise whatever they like
        raise NotAnImageError(f"file: cannot be read ({error})") from None
    if image.width * image.height > limits.upload_pixels:
        raise TooLargeError(
            f"file: {image.width}×{image.height} pixels given, at most {limits.upload_pixels:,} are taken"
        )
    try:
        converted = _to_be_said(image)
        pixels = to_rgb(image, 0)
    except Exception as error:  # as above
        raise ValueError(f"file: a damaged {image.format} image ({error})") from None
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), converted


def fitted(picture: Image.Image, heptapod: Heptapod, keep: bool, limits: Limits) -> tuple[Image.Image, list[str]]:
    """An image at a size that the model can take, and what was done to it.

    Args:
        picture: of any size.
        heptapod: the model.
        keep: take the size as it is; else resize and crop the centre to the model's own.
        limits: the longest side.

    Raises:
        ValueError: for a size that is kept and is no multiple of the tokenizer's factor, or above the limit.
    """
    if keep:
        if max(picture.size) > limits.side:
            raise TooLargeError(
                f"file: {picture.width}×{picture.height} pixels to be kept, at most {limits.side} a side"
            )
        heptapod.tokenizer.grid(picture.height, picture.width)
        return picture, []
    height, width = heptapod.image_size
    if picture.size == (width, height):
        return picture, []
    done = f"resized and cropped from {picture.width}×{picture.height} to {width}×{height} pixels"
    return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC), [done]


def _to_be_said(image: Image.Image) -> list[str]:
    """What reading an image as 8-bit RGB changes."""
    said = []
    if getattr(image, "is_animated", False):
        said.append(f"the first of several pictures in the {image.format} file")
    if image.mode.startswith("I;16"):
        said.append("16 bits per pixel brought to 8")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        said.append("transparency put on white")
    if image.getexif().get(0x0112, 1) != 1:
        said.append("turned upright by its EXIF tag")
    if image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"):
        said.append("grey read as colour")
    elif image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        said.append(f"{image.mode} colours brought to RGB")
    return said
