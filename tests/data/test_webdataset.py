"""Tar shards are the same images as a folder, in any order; what is wrong with them is told in one line."""

from __future__ import annotations

import io
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from heptapod.cli import main
from heptapod.data import DataConfig, batch_at, load_images
from heptapod.data import webdataset as module
from heptapod.data.images import decode
from heptapod.data.on_demand import ImagesOnDemand
from heptapod.data.sources import open_source
from heptapod.data.tar_shard import index_shard
from heptapod.data.webdataset import INDEX, expand_braces
from heptapod.utils.files import sha256
from tests.conftest import SHARED_DATA
from tests.data.shards import members_of, write_shard, write_shards


def picture(value: int = 0, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(stream, {"jpg": "jpeg"}.get(kind, kind))
    return stream.getvalue()


def test_the_same_images_as_a_folder(image_folder: Path, tmp_path: Path) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 5)
    for path in (str(shards), f"{shards}/train-{{000000..000004}}.tar"):
        source, folder = open_source(path), open_source(str(image_folder))
        assert source.labels == folder.labels
        assert source.class_names == ["dark", "light"]
        assert source.file_sizes() == folder.file_sizes()
        assert source.names[:2] == ["train-000000.tar/dark/00.png", "train-000000.tar/dark/01.png"]
        assert [name.partition("/")[2] for name in source.names] == folder.names
        whole, expected = (decode(which, DataConfig(which.path)) for which in (source, folder))
        assert torch.equal(whole.in_memory(), expected.in_memory())
        some = np.array([0, 3, 4, 5, 17, 23])  # across shards, some of which are not touched
        assert torch.equal(decode(source, DataConfig(path), some).in_memory(), expected.in_memory()[some])
    one = open_source(f"{shards}/train-000001.tar")
    assert [name.partition("/")[2] for name in one.names] == folder.names[5:10]


@pytest.mark.parametrize("memory_gib", [8.0, 1e-6], ids=["in memory", "on demand"])
def test_the_same_batches_as_a_folder(image_folder: Path, tmp_path: Path, memory_gib: float) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 7)
    settings = {"image_size": 16, "flip": True, "validation_fraction": 0.25, "memory_gib": memory_gib}
    pairs = [load_images(DataConfig(str(path), **settings)) for path in (image_folder, shards)]  # type: ignore[arg-type]
    for folder, tar in zip(*pairs, strict=True):
        assert isinstance(tar.images, ImagesOnDemand) == (memory_gib < 1)
        for position in range(0, 40, 8):  # over the end of an epoch
            one, other = (batch_at(images, position, 8, seed=3) for images in (folder, tar))
            assert torch.equal(one.items, other.items)
            assert torch.equal(one.labels, other.labels)
            assert one.keys == other.keys
            assert one.names == [name.partition("/")[2] for name in other.names]


def test_training_on_shards_gives_the_weights_of_the_folder(image_folder: Path, tmp_path: Path) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 10)
    weights = []
    for path, memory_gib in ((image_folder, 8.0), (shards, 8.0), (shards, 1e-6)):
        out = tmp_path / f"run{len(weights)}"
        assert main([
            "train-tokenizer", "demo", "--data", str(path), "--data.image_size", "16", "--data.memory_gib",
            str(memory_gib), "--out", str(out), "--tokenizer.model.width", "8", "--tokenizer.train.steps", "4",
            "--tokenizer.train.batch_size", "4", "--tokenizer.train.precision", "float32",
        ]) == 0  # fmt: skip
        weights.append(sha256(out / "tokenizer" / "last" / "model.safetensors"))
    assert len(set(weights)) == 1


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the data sets are not here")
def test_photos_in_shards_are_those_of_the_parquet_file(tmp_path: Path) -> None:
    """Real photos of many sizes, some of them gray, as they were published."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(SHARED_DATA / "photos" / "photos.parquet")
    contents = [row["bytes"] for row in table["image"].to_pylist()]
    labels = table["label"].to_pylist()
    members = []
    for row, (content, label) in enumerate(zip(contents, labels, strict=True)):
        key = f"n{label:04d}/{row:03d}"
        members += [(f"{key}.jpg", content), (f"{key}.json", json.dumps({"label": label}).encode())]
    for number in range(4):
        write_shard(tmp_path / f"{number}.tar", members[50 * number : 50 * number + 50])
    source, expected = open_source(str(tmp_path)), open_source(str(SHARED_DATA / "photos" / "photos.parquet"))
    assert [int(source.class_names[label]) for label in source.labels] == expected.labels, "labels with gaps are names"
    rows = np.arange(0, 100, 3)
    config = DataConfig(image_size=64)
    assert torch.equal(decode(source, config, rows).in_memory(), decode(expected, config, rows).in_memory())


def test_kinds_of_members(tmp_path: Path) -> None:
    """Every kind of image; .cls before and after it, .json where there is no .cls; long names; what is no sample."""
    long = "/".join(["folder" * 20] * 3) + "/last"
    write_shard(tmp_path / "a.tar", [
        ("./x.y/0.JPG", picture(0, "jpg")), ("./x.y/0.cls", b"2\n"), ("./x.y/0.txt", b"a caption"),
        ("1.json", b'{"label": 1, "width": 8}'), ("1.jpeg", picture(60, "jpeg")),
        ("2.json", b'{"label": 0}'), ("2.webp", picture(90, "webp")), ("2.cls", b"3"), ("2.seg.png", picture(9)),
        (f"{long}.png", picture(120)), (f"{long}.cls", b"0"),
        ("._2.png", b"what a Mac leaves"), ("README.txt", b"no sample"), ("folder/notes", b"nor this"),
    ])  # fmt: skip
    source = open_source(str(tmp_path))
    assert source.names == ["a.tar/./x.y/0.JPG", "a.tar/1.jpeg", "a.tar/2.webp", f"a.tar/{long}.png"]
    assert source.labels == [2, 1, 3, 0]
    assert source.class_names == ["0", "1", "2", "3"]
    images = decode(source, DataConfig()).in_memory()
    assert [int(image[0, 4, 4]) for image in images] == pytest.approx([0, 60, 90, 120], abs=2)


def test_names_with_several_dots(tmp_path: Path) -> None:
    """The key ends at the first dot; an image without more dots comes first, another one is taken where it is alone."""
    write_shard(tmp_path / "a.tar", [
        ("0.input.jpg", picture(60, "jpg")), ("0.cls", b"0"), ("1.mask.png", picture(9)), ("1.png", picture(120)),
        ("1.cls", b"1"), ("2.bmp", picture(90, "bmp")), ("2.cls", b"1"), (".ipynb_checkpoints/3.png", picture()),
        ("__MACOSX/4.png", picture()),
    ])  # fmt: skip
    source = open_source(str(tmp_path))
    assert source.names == ["a.tar/0.input.jpg", "a.tar/1.png", "a.tar/2.bmp"]
    assert source.labels == [0, 1, 1]
    write_shard(tmp_path / "b.tar", [("5.input.jpg", picture()), ("5.target.png", picture())])
    with pytest.raises(ValueError, match=r"b\.tar: sample 5 has two images, 5\.input\.jpg and 5\.target\.png"):
        open_source(str(tmp_path))


def test_samples_without_an_image_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shard(tmp_path / "a.tar", [("0.png", picture()), ("1.cls", b"0"), ("2.png", picture()), ("README.txt", b"-")])
    for _ in range(2):  # also when the index is there
        assert open_source(str(tmp_path)).names == ["a.tar/0.png", "a.tar/2.png"]
        assert f"2 sample(s) of {tmp_path} have no image and are skipped; the first is a.tar/1" in caplog.text
        caplog.clear()


def test_without_labels(tmp_path: Path) -> None:
    members = [(f"{row}.png", picture(row)) for row in range(3)] + [("1.json", b'{"caption": "x", "label": null}')]
    write_shard(tmp_path / "a.tar", members)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    source = open_source(str(tmp_path / "a.tar"))
    assert (source.labels, source.class_names) == ([-1, -1, -1], [])


def test_shards_of_several_folders(tmp_path: Path) -> None:
    for number, part in enumerate("ab"):
        write_shard(tmp_path / part / "0.tar", [("x.png", picture(100 * number)), ("x.cls", b"0")])
        (tmp_path / part / "classes.txt").write_text("one\n")
    pattern = f"{tmp_path}/{{a,b}}/{{0..0}}.tar"
    source = open_source(pattern)
    assert source.names == ["a/0.tar/x.png", "b/0.tar/x.png"]
    assert decode(source, DataConfig()).in_memory()[:, 0, 0, 0].tolist() == [0, 100]
    assert all((tmp_path / part / INDEX).is_file() for part in "ab")
    (tmp_path / "b" / "classes.txt").write_text("another\n")
    with pytest.raises(ValueError, match=r"b/classes\.txt and .*a/classes\.txt have different classes"):
        open_source(pattern)


def test_what_is_no_image_is_reported_by_name(image_folder: Path, tmp_path: Path) -> None:
    members = members_of(image_folder, sorted(image_folder.rglob("*.png")))
    members[7] = ("dark/03.png", b"no image")
    members[11] = ("dark/05.png", members[11][1][:60])
    write_shard(tmp_path / "a.tar", members)
    images = decode(open_source(str(tmp_path / "a.tar")), DataConfig())
    assert len(images) == 22
    assert [line.partition(":")[0] for line in images.unreadable] == ["a.tar/dark/03.png", "a.tar/dark/05.png"]


def test_patterns() -> None:
    assert expand_braces("a.tar") == ["a.tar"]
    assert expand_braces("a{b}c{}") == ["a{b}c{}"]
    assert expand_braces("{8..11}.tar") == ["8.tar", "9.tar", "10.tar", "11.tar"]
    assert expand_braces("t-{08..11}.tar") == ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]
    assert expand_braces("t-{000..100}.tar")[::50] == ["t-000.tar", "t-050.tar", "t-100.tar"]
    assert expand_braces("{a,b}/{0..1}.tar") == ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are indexed from now on."""
    seen: list[str] = []

    def watching(path: Path) -> object:
        seen.append(path.name)
        return index_shard(path)

    monkeypatch.setattr(module, "index_shard", watching)
    return seen


def test_the_index_is_kept_and_made_again_for_a_shard_that_changes(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 6)
    (shards / "train-000000.tar").chmod(0o640)
    seen = watched(monkeypatch)
    before = open_source(str(shards))
    assert (shards / INDEX).stat().st_mode & 0o777 == 0o640, "whoever may read the shards may read the index"
    assert sorted(seen) == [f"train-{number:06d}.tar" for number in range(4)]  # several threads index them
    again = open_source(f"{shards}/train-{{000001..000003}}.tar")
    assert (len(seen), again.names, again.sha256()) == (4, before.names[6:], open_source(again.path).sha256())
    assert [again.open_one(row)() for row in (0, 17)] == [before.open_one(row)() for row in (6, 23)]  # type: ignore[misc]

    files = sorted(image_folder.rglob("*.png"))
    changed = shards / "train-000001.tar"
    first = changed.stat()
    write_shard(changed, members_of(image_folder, files[7:12] + files[6:7]))  # the same size, another order
    os.utime(changed, ns=(first.st_atime_ns, first.st_mtime_ns + 1))
    write_shard(shards / "train-000004.tar", members_of(image_folder, files[:1]))
    (shards / "train-000003.tar").unlink()
    del seen[:]
    now = open_source(str(shards))
    assert sorted(seen) == ["train-000001.tar", "train-000004.tar"]
    assert now.names[6:12] == [
        f"train-000001.tar/{file.relative_to(image_folder)}" for file in files[7:12] + files[6:7]
    ]
    assert now.open_one(6)() == files[7].read_bytes()  # type: ignore[misc]
    assert now.sha256() != before.sha256()

    (shards / INDEX).write_bytes((shards / INDEX).read_bytes()[:-9])  # damaged: as if there were none
    del seen[:]
    assert open_source(str(shards)).sha256() == now.sha256()
    assert len(seen) == 4


def test_an_index_that_cannot_be_kept_is_in_memory(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 12)
    (shards / INDEX).mkdir()  # a file cannot take its place
    assert len(open_source(str(shards)).names) == 24
    assert "cannot be stored there" in caplog.text
    assert sorted(path.name for path in shards.iterdir()) == sorted(
        ["class_names.txt", INDEX, "train-000000.tar", "train-000001.tar"]
    )
    (shards / INDEX).rmdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert len(open_source(str(shards)).names) == 24
    assert "is not writable" in caplog.text
    assert not (shards / INDEX).exists()


def test_processes_index_a_folder_one_after_another(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits, and finds it done."""
    shards = write_shards(image_folder, tmp_path / "shards", 6)
    seen = watched(monkeypatch)
    lock = FileLock(shards / module.LOCK)  # as another process has it
    lock.acquire()
    waiting = threading.Event()
    monkeypatch.setattr(module.logger, "info", lambda message: waiting.set())
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(open_source, str(shards))
        assert waiting.wait(20), "it says that it waits"
        assert (seen, second.done()) == ([], False)
        indices = {path.name: index_shard(path) for path in sorted(shards.glob("*.tar"))}
        module._write_index(shards, indices)
        lock.release()
        assert len(second.result(timeout=20).names) == 24
    assert seen == []


def test_many_threads_read_more_shards_than_are_held_open(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_SHARDS", 2)
    source = open_source(str(write_shards(image_folder, tmp_path / "shards", 1)))
    expected = [file.read_bytes() for file in sorted(image_folder.rglob("*.png"))]
    rows = np.random.default_rng(0).integers(0, 24, 2000).tolist()
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir())) if open_files.is_dir() else 0
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda row: source.open_one(row)(), rows))  # type: ignore[misc]
    assert got == [expected[row] for row in rows]
    after = len(list(open_files.iterdir())) if open_files.is_dir() else 0
    assert after <= before + 2, "those that are not in use are closed"


def test_a_shard_that_goes_or_changes_in_use_is_an_error(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not so many images that cannot be read."""
    monkeypatch.setattr(module, "OPEN_SHARDS", 1)  # one that is held open can be read to the end, whatever happens
    shards = write_shards(image_folder, tmp_path / "shards", 6)
    source = open_source(str(shards))
    train, _ = load_images(DataConfig(str(shards), 16, memory_gib=1e-6))
    (shards / "train-000002.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-000002\.tar"):
        decode(source, DataConfig())
    write_shard(shards / "train-000002.tar", [("0.png", picture())])
    for read in (lambda: decode(source, DataConfig()), lambda: train.images[:]):
        with pytest.raises(ValueError, match=r"train-000002\.tar: changed while it was in use"):
            read()


def damage(content: bytes, how: str) -> bytes:
    if how == "cut in a member":
        return content[:1800]
    if how == "cut before the end mark":
        return content.rstrip(b"\0") + b"\0" * (-len(content.rstrip(b"\0")) % 512)
    if how == "a header overwritten":
        return content[:1024] + b"\xff" * 512 + content[1536:]
    if how == "two tars in one":
        return content + content
    return {"empty": b"", "no tar": b"hello" * 1000}[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut in a member", "truncated or damaged tar file"),
        ("cut before the end mark", "truncated tar file (its end mark is missing)"),
        ("a header overwritten", "damaged tar file (no header at byte 1,024"),
        ("two tars in one", "but more data follow"),
        ("empty", "truncated or damaged tar file"),
        ("no tar", "truncated or damaged tar file"),
    ],
)
def test_damage_names_the_shard(tmp_path: Path, how: str, message: str) -> None:
    whole = write_shard(tmp_path / "0.tar", [("0.png", picture()), ("1.png", picture(9)), ("2.txt", b"x" * 512)])
    (tmp_path / "1.tar").write_bytes(damage(whole.read_bytes(), how))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        open_source(str(tmp_path))
    assert str(error.value).startswith(f"data.path: {tmp_path}/1.tar: ")
    assert message in str(error.value)
    assert (tmp_path / INDEX).is_file(), "what was learned of the whole ones is kept"


def test_wherever_it_is_cut_off_a_shard_is_refused(tmp_path: Path) -> None:
    members = [("0.png", picture()), ("0.cls", b"0"), ("1.png", picture(9)), ("1.cls", b"1")]
    whole = write_shard(tmp_path / "0.tar", members).read_bytes()
    end = -(-len(whole.rstrip(b"\0")) // 512) * 512
    for length in [*range(0, end, 19), end - 1, end, end + 511]:
        (tmp_path / "1.tar").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"1\.tar: truncated"):
            index_shard(tmp_path / "1.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.txt", b"x"), ("a.cls", b"1")], "0.tar: has no images (members that end in jpg, jpeg, png, webp, …)"),
        ([], "0.tar: has no images"),
        ([("a.png", b"x"), ("a.jpg", b"x")], "0.tar: sample a has two images, a.png and a.jpg"),
        ([("a.png", b"x"), ("a.png", b"x")], "0.tar: sample a has two images, a.png and a.png"),
        ([("a.png", b"x"), ("a.cls", b"\xff\xfe")], r"0.tar: a.cls contains b'\xff\xfe', a class was expected"),
        ([("a.png", b"x"), ("a.cls", b"1\n2")], r"0.tar: a.cls: label '1\n2' given, must be a whole number or a name"),
        ([("a.png", b"x"), ("a.cls", b"9" * 40)], "0.tar: a.cls: label 18446744073709551616 given, must be a whole"),
        ([("a.png", b"x"), ("a.json", b"{label")], "0.tar: a.json contains b'{label', JSON was expected"),
        ([("a.png", b"x"), ("a.json", b"[" * 9999)], "0.tar: a.json contains b'[[[[[[[[[[[[[[[[[[[[', JSON was"),
        ([("a.png", b"x"), ("a.json", b'{"label": 1.5}')], "0.tar: a.json: label 1.5 given, must be a whole number"),
        ([("a.png", b"x"), ("a.json", b'{"label": [1]}')], "0.tar: a.json: label [1] given, must be a whole number"),
        ([("a.png", b"x"), ("a.json", b'{"label": "\\ud800"}')], r"0.tar: a.json: label '\ud800' given, must be"),
        ([("a.png", b"x"), ("a.cls", b"dog")], "0.tar/a.png: label 'dog' is none of the classes of {}/class_names.txt"),
        (
            [("a.png", b"x"), ("a.cls", b"0"), ("b.png", b"x"), ("b.cls", b"2")],
            "0.tar/b.png: label 2 is out of range, {}/class_names.txt has 2 classes",
        ),
        (
            [("a.png", b"x"), ("a.cls", b"0"), ("b.png", b"x"), ("b.cls", b"cats")],
            "0.tar/b.png has the label 'cats', but 0.tar/a.png has 0; all must be numbers, or all names",
        ),
    ],
)
def test_samples_that_are_refused(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    write_shard(tmp_path / "0.tar", members)
    (tmp_path / "class_names.txt").write_text("cats\ndogs\n")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        open_source(str(tmp_path))
    assert message.replace("{}", str(tmp_path)) in str(error.value)
    assert str(error.value).startswith("data.path: ")


def test_labels_in_one_shard_and_none_in_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shard(tmp_path / "0.tar", [("a.png", b"x"), ("a.cls", b"0")])
    write_shard(tmp_path / "1.tar", [("b.png", b"x"), ("c.png", b"x"), ("c.cls", b"-1")])
    source = open_source(str(tmp_path))
    assert (source.labels, source.class_names) == ([0, -1, -1], ["0"])
    assert "2 of 3 images have no label (null, negative or none given), for example 1.tar/b.png" in caplog.text


def test_names_and_ids_are_kept_in_the_index(tmp_path: Path) -> None:
    """Every form of a label in JSON and text; the second time they come from the index."""
    write_shard(tmp_path / "names" / "0.tar", [("a.png", b"x"), ("a.cls", b"dog\n"), ("b.png", b"x")])
    write_shard(tmp_path / "names" / "1.tar", [("a.png", b"x"), ("a.json", b'{"label": "bee"}')])
    write_shard(tmp_path / "ids" / "0.tar", [
        ("a.png", b"x"), ("a.cls", b"2119789"), ("b.png", b"x"), ("b.json", b'{"label": 1440764.0}'),
        ("c.png", b"x"), ("c.json", b'{"label": NaN}'), ("d.png", b"x"), ("d.json", b'{"label": null}'),
    ])  # fmt: skip
    write_shard(tmp_path / "bools" / "0.tar", [("a.png", b"x"), ("a.json", b'{"label": true}')])
    for _ in range(2):
        names, ids, bools = (open_source(str(tmp_path / name)) for name in ("names", "ids", "bools"))
        assert (names.labels, names.class_names) == ([1, -1, 0], ["bee", "dog"])
        assert (ids.labels, ids.class_names) == ([1, 0, -1, -1], ["1440764", "2119789"])
        assert (bools.labels, bools.class_names) == ([0], ["true"])


@pytest.mark.parametrize("place", [-1, -20, -60, 30])
def test_an_index_with_a_changed_byte_is_made_anew(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 12)
    whole = open_source(str(shards))
    content = bytearray((shards / INDEX).read_bytes())
    before = bytes(content)
    content[place] ^= 1
    (shards / INDEX).write_bytes(content)
    again = open_source(str(shards))
    assert (again.labels, again.names) == (whole.labels, whole.names)
    assert f"{INDEX} is damaged and made again" in caplog.text
    assert (shards / INDEX).read_bytes() == before


def test_missing_and_mixed(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 6)
    (shards / "train-000001.tar").unlink()
    pattern = f"{shards}/train-{{000000..000005}}.tar"
    message = rf"data\.path: {shards}/train-000001\.tar is missing; 3 of the 6 shards of .*000005}}\.tar exist"
    with pytest.raises(FileNotFoundError, match=message):
        open_source(pattern)
    assert main(["train-tokenizer", "demo", "--data", pattern, "--out", str(tmp_path / "run")]) == 2
    assert "train-000001.tar is missing" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"counts from 000003 down to 000000"):
        open_source(f"{shards}/train-{{000003..000000}}.tar")
    with pytest.raises(ValueError, match=r"a pattern can only name \.tar shards"):
        open_source(f"{image_folder}/dark/{{00..03}}.png")
    with pytest.raises(FileNotFoundError, match=r"validation: .* does not exist \(a folder, .*\.tar shards"):
        open_source(f"{shards}/other.tar", "validation")
    Image.new("RGB", (8, 8)).save(shards / "preview.png")
    with pytest.raises(ValueError, match=r"both \.tar shards \(train-000000\.tar\) and other images \(preview\.png\)"):
        open_source(str(shards))
    (shards / "preview.png").rename(shards / "rows.parquet")
    with pytest.raises(ValueError, match=r"both \.tar shards .* and other images \(rows\.parquet\)"):
        open_source(str(shards))
    assert len(open_source(f"{shards}/train-{{000002,000003}}.tar").names) == 12


def test_a_set_larger_than_memory_needs_an_image_size(image_folder: Path, tmp_path: Path) -> None:
    shards = write_shards(image_folder, tmp_path / "shards", 6)
    with pytest.raises(ValueError, match=r"data\.memory_gib: .* give a folder or \.tar shards and an image_size"):
        load_images(DataConfig(str(shards), memory_gib=1e-6))
