"""Splits of a data set: which folders and files are one, and which is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

from heptapod.cli import main
from heptapod.configs.data import SplitName
from heptapod.data import DataConfig, load_images
from heptapod.data.cached_tokens import load_tokens
from heptapod.data.selection import split_images
from heptapod.data.sources import Source, open_source
from heptapod.data.splits import SplitChoice, split_of_file, split_of_folder
from tests.data.shards import write_shard
from tests.data.test_images import png, write_parquet


def make(root: Path, files: Sequence[str]) -> str:
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            write_parquet(root / name, [png(np.full((8, 8, 3), number, np.uint8))] * 3, [0, 1, 0], ["a", "b"])
        elif name.endswith(".tar"):
            write_shard(root / name, [(f"{k}.png", png(np.full((8, 8, 3), number, np.uint8))) for k in range(3)])
        elif name.endswith(".png"):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(root / name)
        else:
            (root / name).write_text("-")
    return str(root)


def read(root: str, split: SplitName | None = None) -> Source:
    return open_source(root, choice=SplitChoice(split))


def test_names() -> None:
    for name in ("train", "Train", "TRAINING", "train_images", "train2017", "train-1", "train_set"):
        assert split_of_folder(name) == "train"
    for name in ("val", "valid", "Validation", "dev", "val2017"):
        assert split_of_folder(name) == "validation"
    for name in ("test", "test1", "eval", "testing"):
        assert split_of_folder(name) == "test"
    for name in ("bullet_train", "trains", "tester", "value", "developer", "toy-train", "contest", "latest"):
        assert split_of_folder(name) is None
    for name, split in {
        "train-00000-of-00002.parquet": "train", "imagenet-train-0000.tar": "train", "data/train/0000.parquet": "train",
        "cifar10_test.parquet": "test", "imagenet-validation-00.tar": "validation", "val0.tar": "validation",
        "default/Test/0000.parquet": "test", "00000.tar": None, "trainer.tar": None, "latest-0.tar": None,
    }.items():  # fmt: skip
        assert split_of_file(PurePath(name)) == split, name


@pytest.mark.parametrize(
    ("files", "train", "test", "classes"),
    [
        (["Train/a/0.png", "train/b/1.png", "TEST/a/2.png"], 2, 1, ["a", "b"]),
        (["README.md", "dataset_infos.json", "data/train/a/0.png", "data/test/a/1.png"], 1, 1, ["a"]),
        (["README.md", "train/0.png", "train/1.png", "test/2.png"], 2, 1, []),
        (["README.md", "banner.png", "train/a/0.png", "test/a/1.png"], 1, 1, ["a"]),
        (["train/train/0.png", "test1/test1/1.png"], 1, 1, []),
        (["a/train/0.png", "a/test/1.png", "b/train/2.png", "b/test/3.png"], 2, 2, ["a", "b"]),
        (["train/a/0.png", "test/a/1.png", "extra/a/2.png"], 1, 1, ["a"]),
        (["0.png", "1.png", "test/2.png"], 2, 1, []),
    ],
    ids=["any case", "repository", "without classes", "a banner", "twice", "in classes", "extra", "loose"],
)
def test_folders(tmp_path: Path, files: list[str], train: int, test: int, classes: list[str]) -> None:
    root = make(tmp_path, files)
    found = read(root)
    assert (found.split, len(found.names), found.class_names) == ("train", train, classes)
    assert len(read(root, "test").names) == test
    assert "test" in found.other_splits


@pytest.mark.parametrize(
    ("files", "split"),
    [
        (
            [
                "README.md",
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test.parquet",
            ],
            1,
        ),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], 1),
        (["x-train-0.tar", "x-train-1.tar", "x-val-0.tar"], 1),
        (["train/0.tar", "train/1.tar", "test/0.tar"], 1),
        (["0.tar", "1.tar", "test.tar"], 1),
        (["train.parquet", "more_train.parquet", "unseen.parquet"], 1),
    ],
    ids=["repository", "folders", "shards", "folders of shards", "the rest is train", "the rest is left out"],
)
def test_files(tmp_path: Path, files: list[str], split: int) -> None:
    pytest.importorskip("pyarrow")
    root = make(tmp_path, files)
    found = read(root)
    assert (found.split, len(found.names), list(found.other_splits.values())) == ("train", 6, ["1 file(s)"])
    whole = read(root, "all")
    assert (whole.split, len(whole.names), len(set(whole.names))) == (None, 9, 9)


def test_without_splits_all_is_read(tmp_path: Path) -> None:
    vehicles = ["bus/0.png", "train/1.png", "train/2.png", "car/toy/train/3.png"]
    found = read(make(tmp_path, vehicles))
    assert (found.class_names, found.names) == (["bus", "car", "train"], [vehicles[i] for i in (0, 3, 1, 2)])
    assert (found.split, found.other_splits, found.left_out) == (None, {}, [])
    with pytest.raises(ValueError, match=r"split: test given, but .* has no splits"):
        read(str(tmp_path / "bus"), "test")
    with pytest.raises(ValueError, match="split: test given, but mnist5k has no splits"):
        read("mnist5k", "test")


@pytest.mark.parametrize(
    "files",
    [["cats/0.png", "dogs/1.png", "test/2.png"], ["cats/0.png", "val/cats/1.png"], ["cats/0.png", "train/cats/1.png"]],
)
def test_a_split_or_a_class(tmp_path: Path, files: list[str]) -> None:
    root = make(tmp_path, files)
    name = files[-1].partition("/")[0]
    with pytest.raises(ValueError, match=rf"data\.path: the folder {name} next to cats may be the split .* or a class"):
        read(root)
    assert read(root, split_of_folder(name)).names == [files[-1]]


def test_training_on_another_split_must_be_asked_for(tmp_path: Path) -> None:
    root = make(tmp_path, ["test/a/0.png", "test/a/1.png", "test/a/2.png"])
    assert len(read(root).names) == 3, "evaluated without asking"
    with pytest.raises(ValueError, match=r"has only the split test; to train on it, ask for it: data\.split test"):
        load_images(DataConfig(root))
    train, held_out = load_images(DataConfig(root, split="test"))
    assert (len(train), len(held_out)) == (2, 1)
    make(tmp_path, ["val/a/0.png"])
    with pytest.raises(ValueError, match="has the splits validation, test and no train; choose one with split"):
        read(root)


def test_held_out_splits(tmp_path: Path) -> None:
    root = make(tmp_path, [f"{split}/a/{n}.png" for split in ("train", "val", "test") for n in range(4)])
    train, held_out = load_images(DataConfig(root))
    assert {name[:5] for name in (*train.names, *held_out.names)} == {"train"}, "only if asked for"
    for config in (DataConfig(root, validation_path=root), DataConfig(root, validation_split="validation")):
        train, held_out = load_images(config)
        assert (len(train), sorted(held_out.names)) == (4, [f"val/a/{n}.png" for n in range(4)])
    _, held_out = load_images(DataConfig(root, validation_path=root, validation_split="test"))
    assert sorted(held_out.names) == [f"test/a/{n}.png" for n in range(4)]
    for split, count in (("held_out", 4), ("validation", 4), ("test", 4), ("train", 3), ("all", 12)):
        images = split_images("test", root, split, 0, None, None, 0, 8.0)  # type: ignore[arg-type]
        assert len(images) == count
    assert sorted(split_images("test", root, "held_out", 0, None, None, 0, 8.0).names)[0] == "val/a/0.png"


def test_named_shards_are_all_read(tmp_path: Path) -> None:
    root = make(tmp_path, ["train-0.tar", "test-0.tar"])
    pattern = f"{root}/{{train,test}}-0.tar"
    assert len(read(pattern).names) == 6
    assert read(pattern, "test").names == [f"test-0.tar/{k}.png" for k in range(3)]
    assert len(read(f"{root}/test-0.tar").names) == 3
    with pytest.raises(ValueError, match=r"split: validation given, but .* has the split\(s\) train, test"):
        read(pattern, "validation")


def test_shards_of_several_sets(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    root = make(tmp_path, ["big/train/0.parquet", "small/train/0.parquet"])
    with pytest.raises(ValueError, match=r"holds shards in several folders \(big/train, small/train\); name one of"):
        read(root)


def test_commands_and_caches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"{split}/{name}/{n}.png" for split in ("train", "test") for name in "ab" for n in range(3)]
    root = make(tmp_path / "data", files)
    assert main([
        "train-tokenizer", "demo", "--data", root, "--out", str(tmp_path / "run"), "--tokenizer.model.width", "8",
        "--tokenizer.train.steps", "1", "--tokenizer.train.batch_size", "2",
    ]) == 0  # fmt: skip
    error = capsys.readouterr().err
    assert "train, 6 images; left out: test (6 images); data.split chooses" in error
    assert "classes (training + held out): a " in error
    for options, images in (((), 6), (("--split", "test"), 6), (("--split", "all"), 12)):
        out = tmp_path / f"cache{len(options)}{images}"
        assert main(["tokenize", str(tmp_path / "run"), "--data", root, "--out", str(out), *options]) == 0
        printed = capsys.readouterr().out
        assert f"classes: a {images // 2}, b {images // 2}\n" in printed
    test = str(tmp_path / "cache26")
    with pytest.raises(ValueError, match=r"holds the split test; to train on it, ask for it: data\.split test"):
        load_tokens(DataConfig(test))
    load_tokens(DataConfig(test, split="test"))
    with pytest.raises(ValueError, match=r"data\.split: train given, but .* holds test"):
        load_tokens(DataConfig(test, split="train"))
    train, held_out = load_tokens(DataConfig(str(tmp_path / "cache06"), validation_path=test))
    assert (len(train), len(held_out)) == (6, 6)
    assert main(["tokenize", str(tmp_path / "run"), "--data", root, "--out", test]) == 2
    assert "holds a cache with" in capsys.readouterr().err
