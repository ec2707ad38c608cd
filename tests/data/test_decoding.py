"""Images are decoded in bounded memory, and whatever the rest of the file says."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from heptapod.data import decoding
from heptapod.data.decoding import decode_one, orientation, read_image_file, to_crops, to_rgb

NOISE = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)


def with_exif(image: Image.Image, exif: bytes, kind: str = "JPEG") -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    return Image.open(file)


def orientation_block(kind: int, count: int, value: bytes) -> bytes:
    """An EXIF block with the orientation as a value of a TIFF type."""
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHI4sI", 1, 0x0112, kind, count, value, 0)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_upright_as_pillow_turns_it(turn: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB")).transpose(2, 0, 1)
    assert (to_rgb(Image.open(file), 0) == expected).all()
    assert orientation(Image.open(file)) == turn


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "exif",
    [
        orientation_block(5, 1, struct.pack(">I", 9999)),  # a fraction, beyond the end
        orientation_block(2, 4, b"six\0"),
        orientation_block(3, 1, struct.pack(">HH", 9, 0)),
        orientation_block(3, 1, struct.pack(">HH", 0, 0)),
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0" + bytes(range(90)),
    ],
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    image = Image.fromarray(NOISE)
    plain = to_rgb(with_exif(image, b""), 0)
    assert (to_rgb(with_exif(image, exif), 0) == plain).all()


@pytest.mark.parametrize("size", [(70, 90), (90, 70), (64, 64), (300, 40), (40, 300), (33, 128)])
@pytest.mark.parametrize("side", [16, 32, 48])
def test_thin_images_are_cropped_first(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], side: int) -> None:
    """Ordinary images are resized as a whole, as ever; cropped first they come out the same, but for rounding.

    Rounding after each of two passes, whose order Pillow chooses by the size; no value is clipped in between.
    """
    image = Image.fromarray(np.random.default_rng(1).integers(100, 156, (size[1], size[0], 3), dtype=np.uint8))
    short = min(size)
    whole = image.resize(tuple(max(side, round(s * side / short)) for s in size), Image.Resampling.BICUBIC)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    expected = np.asarray(whole.crop((left, top, left + side, top + side))).transpose(2, 0, 1)
    assert (to_rgb(image, side) == expected).all()
    crops = to_crops(image, side, 1.25)
    monkeypatch.setattr(decoding, "_is_thin", lambda size, side: True)
    difference = np.abs(to_rgb(image, side).astype(int) - expected)
    assert difference.max() <= 2
    assert np.abs(to_crops(image, side, 1.25).astype(int) - crops).max() <= 2


@pytest.mark.parametrize("size", [(20_000, 1), (1, 60_000), (60_000, 3)])
def test_memory_of_thin_images(size: tuple[int, int]) -> None:
    """Resized as a whole, the first would be 256 × 5,120,000 pixels."""
    image = Image.new("RGB", size, (200, 100, 50))
    taken: list[tuple[int, int]] = []
    real = Image.Image.resize

    def resize(self: Image.Image, size: tuple[int, int], *args: object, **options: object) -> Image.Image:
        taken.append(size)
        return real(self, size, *args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", resize)
        pixels = to_rgb(image, 256)
        crops = to_crops(image, 256, 1.1)
    assert set(taken) == {(256, 256)}
    assert (pixels == np.array([200, 100, 50], np.uint8).reshape(3, 1, 1)).all()
    assert (crops == pixels).all()


def test_files_that_cannot_be_images(tmp_path: Path) -> None:
    """Neither opened nor read: a device, a pipe, a file of more bytes than any image has."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", 1 << 40)
    tracemalloc.start()
    for path, message in (
        (Path("/dev/zero"), "a folder, device, pipe or socket, not a file"),
        (tmp_path / "pipe.png", "a folder, device, pipe or socket, not a file"),
        (tmp_path, "a folder, device, pipe or socket, not a file"),
        (tmp_path / "huge.png", "1,099,511,627,776 bytes, too many for an image (at most 536,870,912)"),
    ):
        assert decode_one(lambda path=path: read_image_file(path), lambda image: to_rgb(image, 0)) == message  # type: ignore[misc]
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_decompression_bomb_is_one_reason() -> None:
    """A PNG file of a few bytes that claims 10 billion pixels."""
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    content = bytearray(file.getvalue())
    content[16:24] = struct.pack(">II", 100_000, 100_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    reason = decode_one(lambda: bytes(content), lambda image: to_rgb(image, 64))
    assert isinstance(reason, str)
    assert "Image size (10000000000 pixels) exceeds limit" in reason
