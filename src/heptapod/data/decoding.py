"""Decodes one image file to RGB uint8, in bounded memory: the pixels decide, whatever the rest of the file says."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

LARGEST_FILE = 1 << 29
"""Bytes of an image file, at most: what the largest image that Pillow decodes has uncompressed."""
LARGE = 1 << 25
"""Pixels of an image that is decoded alone, and of a resized image that is not made as a whole before it is cropped."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What brings an image upright, by the orientation in its EXIF block."""

_alone = threading.Lock()


def to_rgb(image: Image.Image, image_size: int, turned: int | None = None) -> np.ndarray:
    """Converts a PIL image to RGB (3, h, w) uint8: upright by its EXIF tag, on white, resized and cropped.

    Args:
        image: of any mode.
        image_size: side of the center crop after a bicubic resize of the short side; 0 keeps the size.
        turned: its orientation, see :func:`orientation`; None reads it from the image.
    """
    image = _rgb(upright(image, turned))
    return _pixels(_resized_center(image, image_size) if image_size else image)


def to_crops(image: Image.Image, image_size: int, scale: float) -> np.ndarray:
    """The center crop of an image, then its four corner crops from a larger copy: (5, 3, size, size) uint8.

    Args:
        image: of any mode.
        image_size: side of the crops.
        scale: short side of the larger copy, as a multiple of ``image_size``.
    """
    image = _rgb(upright(image))
    width, height = _resized_size(image, round(image_size * scale))
    right, low = width - image_size, height - image_size
    corners = [(0, 0), (right, 0), (0, low), (right, low)]
    crops = _resized_crops(image, (width, height), corners, image_size)
    return np.stack([_pixels(_resized_center(image, image_size)), *map(_pixels, crops)])


def orientation(image: Image.Image) -> int:
    """The orientation in the EXIF block of an image, 1 (upright) to 8; 1 if it is missing or cannot be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged block raises anything; the pixels do not depend on it
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def upright(image: Image.Image, turned: int | None = None) -> Image.Image:
    """The image, loaded and brought upright.

    Args:
        image: of any mode.
        turned: its orientation; None reads it from the image.
    """
    image.load()  # which brings a TIFF file upright
    turned = orientation(image) if turned is None else turned
    return image.transpose(TURNS[turned]) if turned in TURNS else image


def _rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, on white."""
    if image.mode.startswith("I;16"):  # Pillow would clip these to 0..255
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(background, image)
    elif image.mode in ("I", "F"):
        raise ValueError(
            f"pixels of mode {image.mode} have no fixed range; save the file with 8 or 16 bits per channel"
        )
    return image.convert("RGB")


def _resized_size(image: Image.Image, short_side: int) -> tuple[int, int]:
    scale = short_side / min(image.size)
    width, height = (max(short_side, round(side * scale)) for side in image.size)
    return width, height


def _resized_center(image: Image.Image, side: int) -> Image.Image:
    width, height = _resized_size(image, side)
    return _resized_crops(image, (width, height), [((width - side) // 2, (height - side) // 2)], side)[0]


def _is_thin(size: tuple[int, int], side: int) -> bool:
    """Whether a resized image is much larger than a square of it."""
    return size[0] * size[1] > max(LARGE, 2 * side * side)


def _resized_crops(
    image: Image.Image, size: tuple[int, int], corners: list[tuple[int, int]], side: int
) -> list[Image.Image]:
    """Squares of an image resized to ``size``, in memory of the order of the image and the squares, if it is thin."""
    boxes = [(x, y, x + side, y + side) for x, y in corners]
    if not _is_thin(size, side):
        resized = image.resize(size, Image.Resampling.BICUBIC)
        return [resized.crop(box) for box in boxes]
    x, y = image.width / size[0], image.height / size[1]
    sources = [(a * x, b * y, min(c * x, image.width), min(d * y, image.height)) for a, b, c, d in boxes]
    return [image.resize((side, side), Image.Resampling.BICUBIC, box=source) for source in sources]


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels (3, h, w)."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def read_image_file(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: for a device, a pipe, or a file too large to be an image.
    """
    if not path.is_file():
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        raise ValueError("a folder, device, pipe or socket, not a file")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ValueError(f"{size:,} bytes, too many for an image (at most {LARGEST_FILE:,})")
    with path.open("rb") as file:
        return file.read(size)


def decode_one(
    opener: Callable[[], bytes | Image.Image], transform: Callable[[Image.Image], np.ndarray]
) -> np.ndarray | str:
    """The pixels of an image, or the reason why it is unreadable."""
    try:
        content = opener()
        image = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else content
        with _alone if image.width * image.height > LARGE else nullcontext():
            return transform(image)
    except UnidentifiedImageError:
        return "not an image Pillow can read"
    except MemoryError:
        raise
    except Exception as error:  # decoders raise any type; the caller reports it with the file name
        return str(error) or type(error).__name__
