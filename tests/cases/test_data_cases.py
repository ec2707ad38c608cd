"""The folders of cases about finding the images of a data set: what is read, and what is said about the rest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from heptapod.cli import main
from heptapod.configs.data import SplitName
from heptapod.data import DataConfig, load_images
from heptapod.data.sources import open_source
from heptapod.data.splits import SplitChoice
from heptapod.data.webdataset import MAX_SHARDS
from tests.cases.paths import case


def copied(name: str, tmp_path: Path) -> Path:
    """A copy of a case: reading shards writes their index next to them."""
    shutil.copytree(case(name), tmp_path / name)
    return tmp_path / name


def names(path: Path, split: SplitName | None = None) -> tuple[list[str], list[str]]:
    source = open_source(str(path), choice=SplitChoice(split))
    return source.names, source.class_names


def test_01_split_folders(caplog: pytest.LogCaptureFixture) -> None:
    root = case("01-split-folders/splits")
    caplog.set_level("INFO")
    train, held_out = load_images(DataConfig(str(root)))
    assert train.class_names == held_out.class_names == ["cats", "dogs"]
    assert sorted([*train.names, *held_out.names]) == [
        f"train/{name}/{number}.png" for name in ("cats", "dogs") for number in range(5)
    ]
    assert "train, 10 images; left out: test (10 images), validation (10 images); data.split chooses" in caplog.text
    for split, folder in (("test", "test"), ("validation", "val")):
        chosen, classes = names(root, split)  # type: ignore[arg-type]
        assert (len(chosen), classes) == (10, ["cats", "dogs"])
        assert {name.partition("/")[0] for name in chosen} == {folder}
    assert len(names(root, "all")[0]) == 30
    _, asked = load_images(DataConfig(str(root), validation_split="validation"))
    assert {name.partition("/")[0] for name in asked.names} == {"val"}
    alone = names(root / "test")
    assert (alone[0][0], alone[1]) == ("cats/0.png", ["cats", "dogs"]), "a split that is named is read"


def test_01_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(case("01-split-folders/splits")), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["images"], facts["split"]) == (10, "train")
    assert facts["other_splits"] == {"test": "10 images", "validation": "10 images"}
    assert [(one["name"], one["training"] + one["held_out"]) for one in facts["classes"]] == [("cats", 5), ("dogs", 5)]


def test_02_splits_in_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    root = copied("02-splits-in-one-folder", tmp_path)
    for folder, first in (("hfdata", "train-00000-of-00001.parquet"), ("wds_split", "imagenet-train-0000.tar")):
        source = open_source(str(root / folder))
        assert {name.partition("[")[0].partition("/")[0] for name in source.names} == {first}
        assert source.split == "train"
        assert list(source.other_splits.values()) == ["1 file(s)"]
    assert {name.partition("/")[0] for name in names(root / "wds_split", "validation")[0]} == {
        "imagenet-validation-00.tar"
    }
    (root / "hfdata" / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(ValueError, match=r"has only the split test; to train on it, ask for it: data\.split test"):
        load_images(DataConfig(str(root / "hfdata")))


@pytest.mark.parametrize("folder", ["macosx", "appledouble"])
def test_03_macosx_zip(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    found, classes = names(case(f"03-macosx-zip/{folder}"))
    assert found == [f"{name}/{number}.jpg" for name in ("cats", "dogs") for number in range(6)]
    assert classes == ["cats", "dogs"]
    expected = "1 hidden folder(s) (__MACOSX)" if folder == "macosx" else "12 hidden file(s) (cats/._0.jpg, …)"
    assert f"left out: {expected}" in caplog.text


def test_04_nested_ipynb() -> None:
    found, classes = names(case("04-nested-ipynb/ipynb"))
    assert (len(found), classes) == (12, ["cats", "dogs"])
    assert not any(".ipynb" in name for name in found)


@pytest.mark.parametrize("path", ["wds_gz", "wds_gz/s-0.tar.gz", "wds_gz/s-{0..0}.tar.gz", "wds_gzname"])
def test_17_gzipped_shards(path: str, tmp_path: Path) -> None:
    root = copied("17-gzipped-shards", tmp_path)
    with pytest.raises(ValueError, match=r"s-0\.tar(\.gz)?: compressed with gzip, .*gunzip < s-0\.tar"):
        open_source(f"{root}/{path}")


def test_21_img2dataset_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pyarrow")
    caplog.set_level("INFO")
    found, _ = names(copied("21-img2dataset-folder", tmp_path) / "wds_img2ds")
    assert found == [f"00000.tar/{number:09d}.jpg" for number in range(12)]
    assert "1 table(s) without images (00000.parquet)" in caplog.text


def test_22_few_per_class() -> None:
    train, held_out = load_images(DataConfig(str(case("22-few-per-class/few")), validation_fraction=0.3))
    assert train.labels.bincount(minlength=5).min() >= 1
    total = len(train) + len(held_out)
    assert len(held_out) == round(0.3 * total)


@pytest.mark.parametrize("pattern", ["{0..99999999999}.tar", "{0..9}" * 6 + ".tar", "{0.." + "9" * 5000 + "}.tar"])
def test_fuzz_patterns_are_counted_before_they_are_expanded(pattern: str) -> None:
    with pytest.raises(ValueError, match=f"more than {MAX_SHARDS:,} shards|is too large") as error:
        open_source(pattern)
    assert len(str(error.value)) < 250
