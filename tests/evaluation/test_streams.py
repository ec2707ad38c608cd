from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heptapod.data.cache import CacheConfig
from heptapod.data.cache_writer import CacheWriter
from heptapod.data.sources import open_source
from heptapod.evaluation.reference import _classes
from heptapod.evaluation.streams import Batches, open_images, read_npz_entry, write_npz
from heptapod.tokenizers import PixelConfig, build_tokenizer
from heptapod.tokenizers.base import to_float, to_uint8

IMAGES = torch.randint(0, 256, (11, 3, 4, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS = torch.arange(11) % 3 - 1


def batches(size: int = 4) -> Batches:
    return zip(IMAGES.split(size), LABELS.split(size), strict=True)


def read(path: Path | str, size: int = 4, **options: Any) -> tuple[Tensor, Tensor]:
    parts = list(open_images(str(path), "samples", **options).batches(size))
    assert all(len(images) == size for images, _ in parts[1:-1])
    return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])


def test_npz_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    write_npz(path, 11, (4, 6), batches(), {"seed": 3, "sampling": {"steps": 4}})
    for size in (1, 4, 100):
        images, labels = read(path, size)
        assert torch.equal(images, IMAGES)
        assert torch.equal(labels, LABELS)
    assert open_images(str(path), "samples").made == {"seed": 3, "sampling": {"steps": 4}}
    again = tmp_path / "again.npz"
    write_npz(again, 11, (4, 6), batches(3), {"sampling": {"steps": 4}, "seed": 3})
    assert again.read_bytes() == path.read_bytes()
    with np.load(path, allow_pickle=False) as file:
        assert np.array_equal(file["arr_0"], IMAGES.permute(0, 2, 3, 1).numpy())
        assert file["arr_1"].tolist() == LABELS.tolist()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_writes(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "samples.npz"
    save(path, IMAGES.permute(0, 2, 3, 1).numpy())
    images, labels = read(path)
    assert torch.equal(images, IMAGES)
    assert (labels == -1).all()
    assert open_images(str(path), "samples").made is None


def test_a_part_is_drawn_at_random(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    write_npz(path, 11, (4, 6), batches(), {})
    images, labels = read(path, count=5, seed=1)
    rows = [int((image == IMAGES).all((1, 2, 3)).nonzero()) for image in images]
    assert rows == sorted(rows)
    assert rows != list(range(5))
    assert torch.equal(labels, LABELS[rows])
    assert torch.equal(read(path, 2, count=5, seed=1)[0], images)
    assert not torch.equal(read(path, count=5, seed=2)[0], images)
    with pytest.raises(ValueError, match="count: 12 given, but .* holds 11 images"):
        open_images(str(path), "samples", count=12)
    with pytest.raises(ValueError, match="count: 0 given"):
        open_images(str(path), "samples", count=0)


def test_nothing_is_left_of_a_file_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    with pytest.raises(ValueError, match="12 images expected, 11 given"):
        write_npz(path, 12, (4, 6), batches(), {})
    with pytest.raises(ValueError, match=r"\(B, 3, 5, 6\) expected"):
        write_npz(path, 11, (5, 6), batches(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3), np.float32)}, r"arr_0 must be \(M, h, w, 3\) uint8, it is .* float32"),
        ({"arr_0": np.zeros((2, 3, 4, 4), np.uint8)}, r"arr_0 must be \(M, h, w, 3\) uint8"),
        ({"arr_0": np.zeros((2, 4, 3), np.uint8)}, r"arr_0 must be \(M, h, w, 3\) uint8"),
        ({"arr_0": np.zeros((0, 4, 4, 3), np.uint8)}, r"arr_0 must be \(M, h, w, 3\) uint8"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.zeros(3, int)}, "arr_1 must be 2 whole numbers"),
        ({"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "heptapod": np.array("{")}, "'heptapod' is damaged, not JSON"),
        ({"images": np.zeros(1)}, r"holds no images \(arr_0\); it holds images"),
    ],
)
def test_other_npz_files_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_images(str(tmp_path / "samples.npz"), "samples")


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def test_pickled_arrays_are_not_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "samples.npz", tmp_path / "trace"
    evil = np.array([Evil(trace)], dtype=object)
    np.savez(path, arr_0=IMAGES.permute(0, 2, 3, 1).numpy(), arr_1=evil)
    with pytest.raises(ValueError, match="arr_1 cannot be read"):
        open_images(str(path), "samples")
    np.savez(path, arr_0=evil)
    with pytest.raises(ValueError, match="arr_0 must be .* object"):
        open_images(str(path), "samples")
    assert not trace.exists()


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="not a readable npz file"):
        open_images(str(path), "samples")
    with pytest.raises(FileNotFoundError, match=r"none\.npz does not exist"):
        read_npz_entry(tmp_path / "none.npz", "mu")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, IMAGES.permute(0, 2, 3, 1).numpy())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", stream.getvalue()[:-5])
    with pytest.raises(ValueError, match="damaged, arr_0 ends in image 10"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"\x00")
    with pytest.raises(ValueError, match="arr_0 cannot be read"):
        open_images(str(path), "samples")


def header(shape: str, kind: str) -> bytes:
    """The start of an array that claims a shape."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"arr_0": header("(1099511627776, 4, 4, 3)", "|u1")}, "arr_0 cannot be read .its header claims"),
        ({"arr_1": header("(1099511627776,)", "<i8")}, "arr_1 cannot be read .its header claims"),
        ({"arr_1": header("(2,)", "<i8") + b"12345678"}, "arr_1 cannot be read"),
        ({"arr_1": header("(2,)", "<u8") + b"\xff" * 16}, "arr_1 must be 2 whole numbers below 2.63"),
    ],
)
def test_arrays_that_claim_more_than_the_file_holds(tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    """Nothing is allocated for them."""
    path = tmp_path / "samples.npz"
    entries = {"arr_0": header("(2, 4, 4, 3)", "|u1") + bytes(96), **entries}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    with pytest.raises(ValueError, match=message):
        open_images(str(path), "samples")


def test_labels_of_an_npz_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A label of 2^40 is one class of a reference, and negative ones are none, which is said."""
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=np.zeros((4, 4, 4, 3), np.uint8), arr_1=np.array([2**40, 3, -7, 3]))
    stream = open_images(str(path), "reference")
    labels = torch.cat([labels for _, labels in stream.batches(2)])
    assert labels.tolist() == [2**40, 3, -1, 3]
    assert _classes(labels, []) == (["3", str(2**40)], [2, 1])
    assert "1 of 4 images have no label (negative)" in caplog.text


def test_folder(image_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, labels = read(image_folder, 5)
    assert images.shape == (24, 3, 16, 16)
    assert labels.tolist() == [0] * 12 + [1] * 12
    assert read(image_folder, image_size=8)[0].shape == (24, 3, 8, 8)
    (image_folder / "dark" / "00.png").write_bytes(b"no image")
    assert torch.equal(read(image_folder, 5)[0], images[1:])
    assert "samples: left out, dark/00.png" in caplog.text
    with pytest.raises(FileNotFoundError, match="samples: none does not exist"):
        open_images("none", "samples")


def test_cache_gives_reconstructions(image_folder: Path, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(PixelConfig(levels=4, color=True))
    config = CacheConfig(shard_size=5, batch_size=3, flip=True)
    CacheWriter(tmp_path / "cache", open_source(str(image_folder)), tokenizer, config).run()
    images, labels = read(tmp_path / "cache", 7)
    originals = read(image_folder)[0]
    grid = tokenizer.grid(16, 16)
    expected = to_uint8(tokenizer.decode(tokenizer.encode(to_float(originals)), grid))
    assert torch.equal(images, expected)
    assert not torch.equal(images, originals)
    assert labels.tolist() == [0] * 12 + [1] * 12
    stream = open_images(str(tmp_path / "cache"), "samples", image_size=16, count=4)
    assert stream.record["kind"].startswith("token cache: reconstructions")
    assert (stream.count, stream.class_names) == (4, ["dark", "light"])
    with pytest.raises(ValueError, match=r"image_size: 8 given, but .* \(samples\) holds images of 16×16 pixels"):
        open_images(str(tmp_path / "cache"), "samples", image_size=8)
