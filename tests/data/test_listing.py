"""Which files below a folder are images: by content, not hidden, linked or not; the rest is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heptapod.data import listing as module
from heptapod.data.sources import open_source
from tests.data.shards import write_shard
from tests.data.test_images import png, save, write_parquet


def test_junk_at_any_depth(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    save(tmp_path / "cats" / "deep" / "0.png")
    for name in (
        "__MACOSX/cats/1.png", "cats/__MACOSX/1.png", "cats/deep/.ipynb_checkpoints/1.png", ".git/1.png",
        "cats/@eaDir/1.png", "cats/._0.png",
    ):  # fmt: skip
        save(tmp_path / name)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "notes.txt"):
        (tmp_path / "cats" / name).write_bytes(b"x")
    (tmp_path / "birds" / "young").mkdir(parents=True)
    source = open_source(str(tmp_path))
    assert (source.names, source.class_names) == (["cats/deep/0.png"], ["cats"])
    assert source.left_out == [
        "1 folder(s) without images (birds)", "1 hidden file(s) (cats/._0.png)", "5 hidden folder(s) (.git, …)",
    ]  # fmt: skip
    assert f"data: {tmp_path}: left out: 1 folder(s) without images (birds)" in caplog.text


def test_images_by_content(tmp_path: Path) -> None:
    save(tmp_path / "a" / "0.png")
    for format_, name in (
        ("JPEG", "1.jfif"), ("PNG", "2"), ("WEBP", "3.photo"), ("JPEG", "4.JPG"), ("GIF", "5.image"), ("BMP", "6"),
        ("TIFF", "7.scan"), ("JPEG2000", "8.j2"),
    ):  # fmt: skip
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / name, format=format_)
    (tmp_path / "a" / "9.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "a" / "empty").write_bytes(b"")
    source = open_source(str(tmp_path))
    assert [Path(name).stem for name in source.names] == [str(number) for number in range(9)]
    assert source.left_out == ["1 .heic file(s) (a/9.heic)", "1 file(s) without a suffix (a/empty)"]
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "9.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match=r"holds no images .*; found: 1 \.heic file\(s\) \(9\.heic\)"):
        open_source(str(tmp_path))


def test_links(tmp_path: Path) -> None:
    save(tmp_path / "pool" / "x" / "0.png")
    save(tmp_path / "set" / "a" / "1.png")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "pool")
    (tmp_path / "set" / "a" / "more").symlink_to(tmp_path / "pool" / "x")
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "2.png").symlink_to(tmp_path / "set" / "a" / "1.png")
    (tmp_path / "set" / "a" / "3.png").symlink_to("nowhere")
    source = open_source(str(tmp_path / "set"))
    assert source.names == ["a/1.png", "a/2.png", "b/x/0.png"]
    assert source.left_out == ["1 broken link(s) (a/3.png)", "2 link(s) to a folder that is read already (a/more, …)"]


def test_devices_and_pipes(tmp_path: Path) -> None:
    save(tmp_path / "0.png")
    os.mkfifo(tmp_path / "1.png")
    assert open_source(str(tmp_path)).left_out == ["1 file(s) that are devices, pipes or sockets (1.png)"]
    for path in ("/dev/zero", str(tmp_path / "1.png")):
        with pytest.raises(ValueError, match=f"{path} is a device, pipe or socket"):
            open_source(path)
    with pytest.raises(ValueError, match=r"data\.path: x{80} cannot be opened \(File name too long\)"):
        open_source("x" * 5000)


def test_a_folder_that_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY_OTHERS", 200)
    save(tmp_path / "a" / "0.png")
    for number in range(250):
        (tmp_path / f"{number}.c").touch()
        (tmp_path / "a" / f"{number}.txt").touch()
    message = "has {} images among {} files of other kinds; .*: give the folder that holds the images"
    with pytest.raises(ValueError, match=message.format(1, 250)):
        open_source(str(tmp_path))
    for number in range(3):
        save(tmp_path / "a" / f"{number}.png")
    assert len(open_source(str(tmp_path)).names) == 3, "enough images, and captions do not count"
    monkeypatch.setattr(module, "STOP_AT", 200)  # the files directly in the folder come first
    with pytest.raises(ValueError, match=message.format(0, 200)):
        open_source(str(tmp_path))


def test_long_listings_say_how_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    save(tmp_path / "0.png")
    open_source(str(tmp_path))
    assert f"data: listing {tmp_path}: 1 images and 0 other files so far" in caplog.text


def test_what_img2dataset_writes(tmp_path: Path) -> None:
    """Folders of files that are numbered, not classes, and parquet files with a column jpg."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for number in range(2):
        save(tmp_path / "files" / f"0000{number}" / f"{number}.jpg")
        pq.write_table(pa.table({"url": ["x"], "key": ["0"]}), tmp_path / "files" / f"0000{number}.parquet")
    source = open_source(str(tmp_path / "files"))
    assert (source.names, source.class_names) == (["00000/0.jpg", "00001/1.jpg"], [])
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"key": ["0"], "jpg": [png(np.zeros((8, 8, 3), np.uint8))]}), tmp_path / "tables/0.parquet")
    assert open_source(str(tmp_path / "tables")).names == ["0.parquet[0]"]


def test_tables_next_to_images(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    save(tmp_path / "a" / "0.png")
    pq.write_table(pa.table({"file_name": ["a/0.png"]}), tmp_path / "metadata.parquet")
    source = open_source(str(tmp_path))
    assert (source.names, source.left_out) == (["a/0.png"], ["1 table(s) without images (metadata.parquet)"])
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "0.parquet", [png(np.zeros((8, 8, 3), np.uint8))], [0], None)
    with pytest.raises(ValueError, match=r"both \.parquet files \(data/0\.parquet\) and other images \(a/0\.png\)"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("a.tar.zst", b"\x28\xb5\x2f\xfd", "compressed with zstandard, .* unzstd < a.tar.zst > a.tar"),
        ("a.tar", b"\xfd7zXZ\0", "compressed with xz, .* unxz < a.tar > a-plain.tar"),
        ("a.tbz2", b"BZh9", "compressed with bzip2, .* bunzip2 < a.tbz2 > a.tar"),
        ("a.tgz", b"\x1f\x8b", "compressed with gzip, .* gunzip < a.tgz > a.tar"),
    ],
)
def test_compressed_shards(tmp_path: Path, name: str, start: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(start + bytes(600))
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=message):
            open_source(str(path))
    if name.endswith(".tar"):
        return
    write_shard(tmp_path / "a.tar", [("0.png", b"x")])
    assert open_source(str(tmp_path)).left_out == [f"1 compressed .tar file(s) ({name})"], "its plain copy is there"
