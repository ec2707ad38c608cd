"""Uploaded files: which are accepted and how they are converted.

The format follows from the bytes, never from the file name or the content type of the client.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from heptapod.data.decoding import orientation, to_rgb
from heptapod.inference.pipeline import Heptapod
from heptapod.studio.schemas import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
REDUCE_ABOVE = 3
"""A picture more than three times the target size is first averaged over blocks, which needs far less memory."""
BITS_PER_SAMPLE = 258


class NotAnImageError(ValueError):
    """Not a supported image file."""


class TooLargeError(ValueError):
    """Too many bytes or pixels."""


def read_upload(content: bytes, limits: Limits, heptapod: Heptapod, keep: bool) -> tuple[Image.Image, list[str]]:
    """An uploaded image in RGB at a size that the model supports, and the conversions that were made.

    Args:
        content: the file. Its size in pixels is checked before decoding.
        limits: of bytes, pixels and, with ``keep``, the longest side.
        heptapod: the model.
        keep: keep the size; else resize and crop the center to the image size of the model.

    Raises:
        TooLargeError: for too many bytes or pixels.
        NotAnImageError: if the file is not a supported image.
        ValueError: for a damaged image, pixels of no fixed range, or a kept size that is not a multiple of the factor.
    """
    if len(content) > limits.upload_bytes:
        raise TooLargeError(f"file: {len(content):,} bytes given, at most {limits.upload_bytes:,} are taken")
    image = _opened(content)
    size = f"{image.height}×{image.width} pixels (height×width)"
    if image.width * image.height > limits.upload_pixels:
        raise TooLargeError(f"file: {size} given, at most {limits.upload_pixels:,} are taken")
    if keep and max(image.size) > limits.side:
        raise TooLargeError(f"file: {size} to be kept, at most {limits.side} a side")
    if image.mode in ("I", "F"):
        raise ValueError(f"file: pixels of mode {image.mode} have no fixed range; 8 or 16 bits per channel are taken")
    height, width = heptapod.image_size
    try:
        conversions = _conversions(image, content)
        image.load()  # which brings a TIFF file upright
        turned = orientation(image)
        pixels = to_rgb(image if keep else _reduced(image, REDUCE_ABOVE * max(width, height)), 0, turned)
    except Exception as error:  # decoders raise anything
        raise ValueError(f"file: a damaged {image.format} image ({error})") from None
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if keep:
        heptapod.tokenizer.grid(picture.height, picture.width)
    elif picture.size != (width, height):
        conversions.append(f"resized and cropped from {size} to {height}×{width}")
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    return picture, conversions


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"file: too many pixels ({error})") from None
    except UnidentifiedImageError:
        raise NotAnImageError(f"file: no image of a kind that is taken ({', '.join(FORMATS)})") from None
    except Exception as error:  # decoders raise anything
        raise NotAnImageError(f"file: cannot be read ({error})") from None


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """The image with its short side at least ``side``, averaged over blocks of pixels."""
    block = min(image.size) // side
    if block < 2 or image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.reduce(block)


def _conversions(image: Image.Image, content: bytes) -> list[str]:
    """The changes made by reading an image as 8-bit RGB."""
    conversions = []
    if getattr(image, "is_animated", False):
        conversions.append(f"the first of several pictures in the {image.format} file")
    if _bits(image, content) == 16:
        conversions.append("16 bits per channel brought to 8")
    if image.mode in ("RGBA", "LA", "PA") or ("transparency" in image.info and not image.mode.startswith("I;16")):
        conversions.append("transparency put on white")
    if orientation(image) != 1:
        conversions.append("turned upright by its EXIF tag")
    if image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"):
        conversions.append("gray read as color")
    elif image.mode in ("CMYK", "LAB", "YCbCr", "HSV"):
        conversions.append(f"{image.mode} colors brought to RGB")
    return conversions


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits per channel, if the file has them."""
    if image.format == "PNG":
        return content[24]  # in the first chunk
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))))
    return 8
