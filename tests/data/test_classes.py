"""The hold-out leaves every class an image to train on; classes are reported by name with their counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heptapod.cli import main
from heptapod.data import DataConfig, load_images
from heptapod.data.classes import class_lines, count_classes, keep_classes
from heptapod.data.images import split_rows
from heptapod.utils.random import Stream, numpy_generator
from tests.data.test_images import save


def held_out(labels: list[int], share: int) -> np.ndarray:
    return keep_classes(numpy_generator(Stream.SPLIT, 0).permutation(len(labels)), share, np.array(labels))


def test_nothing_changes_where_every_class_has_training_images() -> None:
    for labels in ([], [-1] * 100, [0, 1] * 50, [-1, 0, 1, 1] * 25):
        order = numpy_generator(Stream.SPLIT, 0).permutation(100)
        assert keep_classes(order, 30, np.array(labels, dtype=np.int64)).tolist() == order[:30].tolist()


@pytest.mark.parametrize("share", [1, 20, 50, 90])
def test_every_class_keeps_an_image(share: int) -> None:
    rng = np.random.default_rng(share)
    for _ in range(50):
        labels = rng.integers(-1, 12, 100)
        labels[:3] = (20, 21, 21)
        order = rng.permutation(100)
        chosen = keep_classes(order, share, labels)
        left = np.delete(labels, chosen)
        assert len(set(chosen.tolist())) == len(chosen) <= share
        assert set(left[left >= 0]) == set(labels[labels >= 0])
        possible = (labels < 0).sum() + (labels >= 0).sum() - len(set(labels[labels >= 0]))
        assert len(chosen) == min(share, possible)
        kept = [row for row in order[:share].tolist() if row in set(chosen.tolist())]
        assert kept == chosen[: len(kept)].tolist(), "as before, except for what is exchanged"


def test_classes_of_one_image() -> None:
    assert len(held_out([0, 1, 2, 3], 1)) == 1, "nothing to exchange it for"
    chosen = held_out([*range(30), 30, 30], 1)
    assert chosen.tolist() in ([30], [31])


def test_few_images_per_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, count in {"a": 40, "b": 1, "c": 1, "d": 2}.items():
        for number in range(count):
            save(tmp_path / name / f"{number}.png")
    train, held = load_images(DataConfig(str(tmp_path), validation_fraction=0.5))
    assert (len(train), len(held)) == (22, 22)
    counts = train.labels.bincount(minlength=4).tolist()
    assert counts[1:3] == [1, 1]
    assert counts[3] >= 1
    old = numpy_generator(Stream.SPLIT, 0).permutation(44)[:22]
    rows = split_rows(np.zeros(44, bool), DataConfig(str(tmp_path), validation_fraction=0.5))[1]
    assert rows.tolist() == sorted(old.tolist()), "without labels as ever"


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    few = count_classes(["a", "b", "c"], [0, 0, 1, -1], [1, 2])
    assert few[0] == {"name": "a", "training": 2, "held_out": 0}
    assert class_lines(few) == [
        "classes (training + held out): a 2 + 0, b 1 + 1, c 0 + 1",
        "1 class(es) with no training image: c",
    ]
    many = count_classes([f"n{n}" for n in range(1000)], [n for n in range(1000) for _ in range(1 + n)], [0] * 1500)
    assert class_lines(many)[0].endswith("n9 10 + 0, and 990 more")
    assert class_lines(many)[1] == "fewest: n0 1 + 1,500; most: n999 1,000 + 0"
    assert class_lines([]) == []
    assert class_lines(count_classes(["a", "b"], [0, 1, 1], [])) == [
        "classes: a 1, b 2",
        "1 class(es) with a single image: a",
    ]
    assert class_lines(count_classes(["a", "b"], [0, 1, 1], [1]))[1] == (
        "1 class(es) with a single image, which is trained on: a"
    )


def test_info_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in {"cats": 3, "dogs": 2}.items():
        for number in range(count):
            save(tmp_path / name / f"{number}.png")
    assert main(["info", str(tmp_path)]) == 0
    assert "cats 2 + 1, dogs 2 + 0" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert main(["info", str(tmp_path), "--split", "test"]) == 2
    assert "split: test given, but" in capsys.readouterr().err
