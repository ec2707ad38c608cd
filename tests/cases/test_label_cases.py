"""The folders of cases about labels, odd images and samples of several sizes; see ``../shared/cases``."""

from __future__ import annotations

import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from heptapod.cli import main
from heptapod.data import DataConfig
from heptapod.data.images import decode
from heptapod.data.sources import open_source
from heptapod.data.webdataset import INDEX
from heptapod.evaluation.streams import open_images
from heptapod.inference.images_in import read_image
from heptapod.inference.record import record_fields
from tests.cases.paths import case
from tests.small import CODES, small_model


def labels_of(path: Path) -> tuple[list[int], list[str]]:
    source = open_source(str(path))
    return source.labels, source.class_names


def copied(name: str, tmp_path: Path) -> Path:
    """A copy of a case: reading shards writes their index next to them."""
    shutil.copytree(case(name), tmp_path / "case")
    return tmp_path / "case"


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command says."""
    assert main([*arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("heptapod: error")]
    assert len(lines) == 1
    return lines[0]


def test_05_ids_are_names(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert labels_of(case("05-large-label-ids/wnid")) == ([1, 0] * 6, ["1440764", "2119789"])
    assert "the labels are ids (1440764 … 2119789): 2 classes, named after them" in caplog.text
    labels, names = labels_of(case("05-large-label-ids/bigids"))
    assert labels == list(range(12))
    assert names == [str(10**9 + number) for number in range(12)]


@pytest.mark.parametrize("name", ["parquet-74d192", "parquet-875b30", "parquet-f4ee69"])
def test_one_label_beyond_all_reason_is_one_class_more(name: str) -> None:
    labels, names = labels_of(case(f"fuzz/{name}/x.parquet"))
    assert (labels[0], sorted(set(labels)), len(names)) == (3, [0, 1, 2, 3], 4)
    assert names[:3] == ["0", "1", "2"]
    assert int(names[3]) in (10**7, 2**40, 2**63 - 1)


def test_06_thin_images() -> None:
    """5.7 GB before; most of what a process holds is PyTorch."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("wide2", "wide3"):
        path = str(case(f"06-thin-image/{name}"))
        images = decode(open_source(path), DataConfig(path, image_size=256))
        assert (tuple(images.images.shape), images.unreadable) == ((7, 3, 256, 256), [])
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 200 * 2**20


def test_07_odd_exif() -> None:
    """The pixels decide: every file is read, in a folder and by itself, upright where its orientation is readable."""
    folder = case("07-odd-exif/badexif")
    images = decode(open_source(str(folder)), DataConfig(str(folder), image_size=28))
    assert (len(images), images.unreadable) == (12, [])
    turned = ["dupl.jpg", "rational.jpg", "short2.jpg", "usercomment.jpg", "wrongtype.jpg"]
    for file in sorted((folder / "x").iterdir()):
        plain = np.asarray(Image.open(file).convert("RGB"))
        upright = np.rot90(plain, -1) if file.name in turned else plain
        assert (read_image(str(file)).numpy() == upright.transpose(2, 0, 1)).all(), file.name


def test_07_odd_exif_in_the_studio() -> None:
    pytest.importorskip("fastapi")
    from heptapod.studio.schemas import Limits
    from heptapod.studio.uploads import read_upload

    limits = Limits(count=1, steps=1, side=64, cells=99, upload_bytes=10**6, upload_pixels=10**6, waiting=1)
    heptapod = small_model(CODES)
    height, width = heptapod.image_size
    for file in sorted((case("07-odd-exif/badexif") / "x").iterdir()):
        picture, _ = read_upload(file.read_bytes(), limits, heptapod, keep=False)
        assert picture.size == (width, height), file.name


@pytest.mark.parametrize("name", ["neglabels", "nulllabels"])
def test_09_no_label_is_counted(caplog: pytest.LogCaptureFixture, name: str) -> None:
    assert labels_of(case(f"09-null-negative-labels/{name}")) == ([0, 1, -1] * 2 + [0, 1] * 3, ["0", "1"])
    assert "2 of 12 images have no label (null, negative or none given), for example a.parquet[2]" in caplog.text


def test_10_shards_have_the_union_of_their_names() -> None:
    labels, names = labels_of(case("10-string-label-shards/strshards"))
    assert (labels, names) == ([0, 1] * 6 + [1, 2] * 6, ["ant", "bee", "cow"])


def test_11_categories_and_views() -> None:
    assert labels_of(case("11-categorical-labels/dict")) == ([0, 1] * 6, ["cat", "dog"])
    path = str(case("11-categorical-labels/views"))
    assert labels_of(Path(path)) == ([0, 1] * 5, ["a", "b"])
    assert len(decode(open_source(path), DataConfig(path))) == 10


def test_13_numbers_as_names() -> None:
    """Sorted as text, as torchvision does; text is a name, a number an index, everywhere."""
    labels, names = labels_of(case("13-numeric-class-folders/numeric"))
    assert (names, labels) == (["1", "10", "2"], [0] * 5 + [1] * 5 + [2] * 5)
    heptapod = small_model(CODES)
    heptapod.class_names = names
    assert heptapod.label_indices(["1", "10", "2"]) == [0, 1, 2]
    assert heptapod.label_indices([1, 0]) == [1, 0]
    assert heptapod.label_indices("1") == [0]
    with pytest.raises(ValueError, match=r"label: '0' is no class of this model \(1, 10, 2\)"):
        heptapod.label_indices(["0"])
    with pytest.raises(ValueError, match=r"label: 10 given, .* an index; the text '10' is the class of this name"):
        heptapod.label_indices([10])
    config = heptapod.sampling_config()
    assert record_fields(heptapod, [0, 0, 2], [1, 2, 3], config, None)["classes"] == {"0": "1", "2": "2"}


def test_13_the_command_says_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    heptapod = small_model(CODES)
    heptapod.class_names = ["1", "10", "2"]
    heptapod.save_pretrained("model")
    assert main(["sample", "model", "--labels", "2", "1", "--count", "1"]) == 0
    assert "labels: class '1' (id 0), class '2' (id 2)" in capsys.readouterr().err
    assert "is no class of this model (1, 10, 2)" in fails(capsys, "sample", "model", "--labels", "0")


def test_14_samples_of_several_sizes(tmp_path: Path) -> None:
    """Each command says what it can do about them."""
    path = str(case("14-mixed-size-samples/mixed"))
    with pytest.raises(
        ValueError, match=r"^samples: \d\d\.png is .* pixels, images before it .*: samples are compared as"
    ):
        list(open_images(path, "samples").batches(4))
    with pytest.raises(ValueError, match=r"^reference: .*: set image_size to resize them"):
        list(open_images(path, "reference").batches(4))
    assert [len(images) for images, _ in open_images(path, "reference", 32).batches(4)] == [4, 4, 4]
    with pytest.raises(ValueError, match=r"set image_size \(in a recipe data\.image_size\) to resize them"):
        decode(open_source(path), DataConfig(path))
    arrays = np.empty(2, dtype=object)
    arrays[:] = [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)]
    np.savez(tmp_path / "mixed.npz", arr_0=arrays)
    with pytest.raises(ValueError, match=r"arr_0 must be .* object, perhaps because the images have several sizes"):
        open_images(str(tmp_path / "mixed.npz"), "samples")


def test_nested_json_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"d-000000\.tar: a\.json contains b'\[\[\[\[.*JSON was expected"):
        open_source(str(copied("fuzz/tar-5f1fc5", tmp_path)))


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    folder = copied("fuzz/tar-f7280d", tmp_path)
    damaged = (folder / INDEX).read_bytes()
    source = open_source(str(folder))
    (folder / INDEX).unlink()
    assert source.labels == open_source(str(folder)).labels
    assert source.class_names == ["0", "1", "2"]
    assert (folder / INDEX).read_bytes() != damaged


def test_a_device_is_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small_model(CODES).save_pretrained("model")
    line = fails(capsys, "edit", "model", "/dev/zero", "--keep_cells", "3", "--out", "o.png")
    assert "image: /dev/zero cannot be read: a folder, device, pipe or socket, not a file" in line
    assert not Path("o.png").exists()
