"""Labels of every kind become class indices by one rule."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heptapod.data import DataConfig, load_images
from heptapod.data.labels import array_labels, class_labels, listed_labels
from heptapod.data.sources import Source, open_source

pa = pytest.importorskip("pyarrow")

ROWS = 6


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def written(path: Path, labels: Any, names: list[str] | None = None) -> Source:
    """A parquet file with a column of labels, opened."""
    import pyarrow.parquet as pq

    table = pa.table({"image": [png(10 * row) for row in range(len(labels))], "label": labels})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)
    return open_source(str(path))


DENSE = [0, 2, 1, 0, 1, 2]
IDS = [5, 900, 70, 5, 70, 900]
NAMES = ["ant", "cow", "bee", "ant", "bee", "cow"]
KINDS: dict[str, tuple[Any, list[int], list[str]]] = {
    **{
        str(kind): (pa.array(DENSE, kind), DENSE, ["0", "1", "2"])
        for kind in (pa.int8(), pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64())
    },
    "ids": (pa.array(IDS, pa.uint16()), DENSE, ["5", "70", "900"]),
    "gap": (pa.array([0, 3, 1, 0, 1, 3]), DENSE, ["0", "1", "3"]),
    "huge": (
        pa.array([0, 2**64 - 1, 2**40, 0, 2**40, 2**64 - 1], pa.uint64()),
        DENSE,
        ["0", str(2**40), str(2**64 - 1)],
    ),
    "float ids": (pa.array([5.0, 900.0, 70.0, 5.0, 70.0, 900.0]), DENSE, ["5", "70", "900"]),
    "bool": (pa.array([False, True] * 3), [0, 1] * 3, ["false", "true"]),
    "string": (pa.array(NAMES), DENSE, ["ant", "bee", "cow"]),
    "large_string": (pa.array(NAMES, pa.large_string()), DENSE, ["ant", "bee", "cow"]),
    "string_view": (pa.array(NAMES, pa.string_view()), DENSE, ["ant", "bee", "cow"]),
    "categories": (pa.array(NAMES).dictionary_encode(), DENSE, ["ant", "bee", "cow"]),
    "categories of numbers": (pa.array(IDS).dictionary_encode(), DENSE, ["5", "70", "900"]),
    "numeric text": (pa.array(["1", "2", "10", "1", "10", "2"]), DENSE, ["1", "10", "2"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_columns(tmp_path: Path, kind: str) -> None:
    column, labels, names = KINDS[kind]
    source = written(tmp_path / "a.parquet", column)
    assert (source.labels, source.class_names) == (labels, names)


@pytest.mark.parametrize(
    ("column", "labels", "names", "missing"),
    [
        (pa.array([0, None, 1, -1, -7, 1]), [0, -1, 1, -1, -1, 1], ["0", "1"], 3),
        (pa.array([0.0, None, 1.0, float("nan"), -1.0, 1.0]), [0, -1, 1, -1, -1, 1], ["0", "1"], 3),
        (pa.array(["b", None, "a", "", "b", "a"]), [1, -1, 0, -1, 1, 0], ["a", "b"], 2),
        (pa.array(["b", None, "a", None, "b", "a"]).dictionary_encode(), [1, -1, 0, -1, 1, 0], ["a", "b"], 2),
        (pa.array([True, None, False]), [1, -1, 0], ["false", "true"], 1),
        (pa.nulls(3), [-1] * 3, [], 3),
        (pa.array([-1, -1, -1]), [-1] * 3, [], 3),
    ],
)
def test_no_label(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: Any, labels: list[int], names: list[str], missing: int
) -> None:
    source = written(tmp_path / "a.parquet", column)
    assert (source.labels, source.class_names) == (labels, names)
    first = labels.index(-1)
    assert f"{missing} of {len(labels)} images have no label (null, negative or none given)" in caplog.text
    assert f"for example a.parquet[{first}]" in caplog.text


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([0.0, 1.5, 2.0]), r"a\.parquet\[1\]: label 1\.5 given, must be a whole number below 2\^63"),
        (pa.array([0.0, 1.0, float("inf")]), r"a\.parquet\[2\]: label inf given"),
        (pa.array([b"a", b"b", b"c"]), r"a\.parquet\[0\]: a label of type binary given"),
        (pa.array([{"a": 1}] * 3), r"a label of type struct<a: int64> given"),
        (pa.array(["a", "b" * 1001, "c"]), r"a\.parquet\[1\]: label 'b{56}… given, at most 1,000 characters"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path: Path, column: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.path: .*{message}"):
        written(tmp_path / "a.parquet", column)


def test_declared_names_stay(tmp_path: Path) -> None:
    source = written(tmp_path / "a.parquet", pa.array([2, 0, -1, 2]), ["x", "y", "z"])
    assert (source.labels, source.class_names) == ([2, 0, -1, 2], ["x", "y", "z"])
    with pytest.raises(ValueError, match=r"b\.parquet\[1\]: label 7 is out of range, the file has 2 classes"):
        written(tmp_path / "b.parquet", pa.array([0, 7]), ["x", "y"])


def test_shards_of_different_kinds(tmp_path: Path) -> None:
    for name, column in (("0", pa.array([3, 1])), ("1", pa.array(["a", "b"]))):
        written(tmp_path / f"{name}.parquet", column)
    with pytest.raises(ValueError, match=r"1\.parquet\[0\] has the label 'a', but 0\.parquet\[1\] has 1; all must be"):
        open_source(str(tmp_path))
    written(tmp_path / "1.parquet", pa.array([1, 8]))
    source = open_source(str(tmp_path))
    assert (source.labels, source.class_names) == ([1, 0, 0, 2], ["1", "3", "8"])


def test_many_distinct_labels_take_little_memory() -> None:
    values = (np.arange(50_000, dtype=np.uint64) * np.uint64(10**14))[::-1]
    labels, names = class_labels("x", [array_labels(values, str), listed_labels([None])], ["row"] * 50_001)
    assert labels[:2] == [49_999, 49_998]
    assert labels[-1] == -1
    assert names[:2] == ["0", "100000000000000"]


def test_held_out_classes_are_matched_by_name(tmp_path: Path) -> None:
    """The held-out file has some of the classes only, so its own numbers are others."""
    written(tmp_path / "train.parquet", pa.array([10, 20, 30, 20]))
    written(tmp_path / "held.parquet", pa.array([30, 20]))
    config = DataConfig(str(tmp_path / "train.parquet"), validation_path=str(tmp_path / "held.parquet"))
    train, held_out = load_images(config)
    assert train.class_names == held_out.class_names == ["10", "20", "30"]
    found = {name: int(label) for name, label in zip(held_out.names, held_out.labels, strict=True)}
    assert found == {"held.parquet[0]": 2, "held.parquet[1]": 1}
    written(tmp_path / "held.parquet", pa.array([30, 40]))
    with pytest.raises(ValueError, match=r"data\.validation_path: .* has other classes than .* \(1 of 2: '40'\)"):
        load_images(config)
