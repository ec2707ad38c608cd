"""A whole study on a tiny cache: trained, measured, resumed, reported."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from heptapod.cli import main
from heptapod.data.cache_writer import CacheConfig, CacheWriter
from heptapod.data.cached_tokens import load_tokens
from heptapod.data.sources import open_source
from heptapod.evaluation.features import CallableFeatures
from heptapod.inference.pipeline import Heptapod
from heptapod.likelihood import far_cell_nats, negative_log_likelihood
from heptapod.tokenizers import VQConfig, VQTokenizer
from heptapod.tokenizers.store import build_trainable
from heptapod.tools.ablation import measure, run
from heptapod.training.recipe import Recipe
from heptapod.training.trainer import NonFiniteLossError
from heptapod.utils.config import from_dict
from heptapod.utils.files import locked, read_json, read_metadata, write_json
from heptapod.utils.yaml_text import read_yaml
from tests.conftest import write_classes

STUDY: dict[str, Any] = {
    "recipe": "cifar10",
    "changes": {
        "data": {"image_size": 16, "flip": False, "validation_fraction": 0.2},
        "model": {"width": 16, "depth": 1, "num_heads": 1, "head": {"depth": 1}},
        "train": {"batch_size": 4},
    },
    "heads": [{"kind": "next_token"}, {"kind": "local", "window": 3, "densities": ["2/all"]},
              {"kind": "cross", "densities": ["all/2"]}],
    "token_orders": ["random"],
    "budgets": [{"equal": "time", "steps": 30, "seeds": [0, 1], "arms": ["next*", "cross*"]},
                {"equal": "steps", "steps": 10, "arms": ["local*"]}],
    "measures": {"samples": 20, "sampling_steps": [0, 2], "nll_images": 4, "probe_images": 60},
}  # fmt: skip


def tiny_vq() -> VQTokenizer:
    tokenizer = build_trainable(VQConfig(width=8, codebook_size=8, code_width=4), 0)
    assert isinstance(tokenizer, VQTokenizer)
    tokenizer.codebook.vectors.copy_(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)) / 4)
    return tokenizer.eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, a cache of their codes, a study of them, and the study worked off once."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("ablation")
    write_classes(folder / "images", 40)
    CacheWriter(folder / "cache", open_source(str(folder / "images")), tiny_vq(), CacheConfig()).run()
    values = {**STUDY, "codes": str(folder / "cache"), "out": str(folder / "out")}
    values["measures"] = {**STUDY["measures"], "reference": str(folder / "images")}
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(autouse=True)
def fast_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colors of the corners in place of a network."""
    features = CallableFeatures("corners", 12, lambda images: images[:, :, ::15, ::15].flatten(1).float() / 255)
    monkeypatch.setattr(measure, "EfficientNetLite0Features", lambda device: features)


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    patch = pytest.MonkeyPatch()
    fast_features.__wrapped__(patch)  # type: ignore[attr-defined]
    assert main(["ablate", str(place / "study.yaml")]) == 0
    patch.undo()
    return place / "out"


def test_every_run_has_a_row_with_its_figures(finished: Path) -> None:
    results = read_json(finished / "results.json")
    rows = results["rows"]
    names = [(row["budget"], row["arm"], row["seed"]) for row in rows]
    pair = ["next_token-all-1-random", "cross-all-2-random"]
    assert names == [("time-30", a, s) for s in (0, 1) for a in pair] + [("steps-10", "local3-2-all-random", 0)]
    plan = results["plan"]["arms"]
    assert plan[pair[0]]["relative_time"] == 1
    for row in rows:
        relative = plan[row["arm"]]["relative_time"]
        assert row["steps"] == (10 if row["budget"] == "steps-10" else round(30 / relative))
        assert row["training_seconds"] == pytest.approx(row["steps"] * plan[row["arm"]]["seconds_per_step"])
        assert 1 < row["nll"]["nats_per_token"] < 4
        many, few = row["samples_at_16"], row.get("samples_at_2")
        assert (few is not None) == (row["head"] == "cross"), "the others cannot draw far cells"
        assert many["features"] == "corners"
        assert 0 <= many["recognised"] <= 1
        probe = row["probe"]
        assert probe["accuracy"] == probe["linear_by_layer"][probe["best_layer"]] > 0.4, "bright and dark"
        assert read_json(finished / row["run"] / "training.json")["step"] == row["steps"]


def test_the_report_says_what_the_rows_say(finished: Path) -> None:
    rows = read_json(finished / "results.json")["rows"]
    with (finished / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(line["nll.nats_per_token"]) for line in table] == [row["nll"]["nats_per_token"] for row in rows]
    text = " ".join((finished / "report.md").read_text().split())
    cross = [row["nll"]["nats_per_token"] for row in rows if row["head"] == "cross"]
    spread = abs(cross[0] - cross[1]) / 2  # standard error of two seeds
    assert (
        f"| cross all/2 | {rows[1]['parameters']:,} | {rows[1]['steps']} | 2 | {sum(cross) / 2:.3f} ± {spread:.3f}"
        in text
    )
    apart = [rows[i + 1]["nll"]["nats_per_token"] - rows[i]["nll"]["nats_per_token"] for i in (0, 2)]
    assert [row["difference"]["mean"] for row in (rows[1], rows[3])] == pytest.approx(apart, abs=1e-5)
    assert all(row["difference"]["standard_error"] > 0 for row in (rows[1], rows[3]))
    assert not any("difference" in row for row in (rows[0], rows[2], rows[4])), "the first arms of their tables"
    assert f"| {sum(apart) / 2:+.3f} ± {abs(apart[0] - apart[1]) / 2:.3f} |" in text
    assert "differences from next_token all/1" in text
    summary = read_json(finished / "results.json")["summary"]
    assert summary[1]["figures"]["nll"]["difference"] == {
        "mean": pytest.approx(sum(apart) / 2, abs=1e-5),
        "standard_error": pytest.approx(abs(apart[0] - apart[1]) / 2, abs=1e-5),
        "seeds": 2,
    }
    for picture in ("training.png", "sampling_steps.png", "samples.png"):
        assert f"]({picture})" in text
        assert (finished / picture).stat().st_size > 1000


def test_again_trains_nothing_and_says_the_same(place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished / "results.json").read_text()
    monkeypatch.setattr(measure, "image_features", None)  # no features of real or generated images again
    stamps = {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")}
    assert main(["ablate", str(place / "study.yaml")]) == 0
    assert (finished / "results.json").read_text() == before
    assert stamps == {path: path.stat().st_mtime_ns for path in finished.rglob("model.safetensors")}


def test_lost_figures_and_runs_come_back_the_same(place: Path, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    rows = read_json(copy / "results.json")["rows"]
    (copy / rows[0]["run"] / "row.json").unlink()
    shutil.rmtree(copy / rows[1]["run"])
    arguments = ["ablate", str(place / "study.yaml"), "--out", str(copy)]
    assert main([*arguments, "--report"]) == 0
    assert len(read_json(copy / "results.json")["rows"]) == len(rows) - 2
    assert main(arguments) == 0
    again = read_json(copy / "results.json")["rows"]
    assert without_seconds(again) == without_seconds(rows)


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_seconds(one) for key, one in value.items() if key not in ("seconds", "wall_seconds")}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


def test_a_run_that_another_process_is_at_is_left_to_it(
    place: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    name = read_json(copy / "results.json")["rows"][1]["run"]
    shutil.rmtree(copy / name)
    with locked(copy / name):
        assert main(["ablate", str(place / "study.yaml"), "--out", str(copy)]) == 0
    assert "another process is running it" in capsys.readouterr().err
    assert len(read_json(copy / "results.json")["rows"]) == 4


def test_mistakes(place: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, new = str(place / "study.yaml"), ["--out", str(tmp_path / "new")]
    for arguments, message in (
        ([study, "--recipe", "demo"], "holds a study with recipe = cifar10, now demo is given"),
        ([study, "--budgets", "[{steps: 5}]"], "steps: 5 given, must be at least 10"),
        ([study, "--codes", str(tmp_path), *new], "codes: "),
        ([study, "--measures.reference", str(tmp_path / "none"), *new], "does not exist"),
        ([study, "--measures.probe_images", "20", *new], "measures.probe_images: 20 training images, too few"),
        ([study, "--changes", "{objective: {label_dropout: 0}, data: {image_size: 16, flip: false}}", *new], "label"),
        ([study, "--report", *new], "nothing to report"),
        (["--report"], "a study comes first: cifar10"),
        ([study, "--nonsense", "3"], "unknown setting 'nonsense'"),
    ):
        assert main(["ablate", *arguments]) == 2, arguments
        assert message in " ".join(capsys.readouterr().err.split()), arguments
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").rglob("*.safetensors"))


def test_help_and_print_config(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--help"]) == 0
    assert "STUDY is one of cifar10" in capsys.readouterr().out
    assert main(["ablate", str(place / "study.yaml"), "--measures.samples", "0", "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["measures"]["samples"], printed["heads"][0]["kind"]) == (0, "next_token")


def test_changed_measures_are_measured_anew_and_the_others_kept(place: Path, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    before = read_json(copy / "results.json")["rows"]
    arguments = ["ablate", str(place / "study.yaml"), "--out", str(copy), "--measures.temperature", "0"]
    assert main([*arguments, "--report"]) == 2, "no row is measured like this yet"
    assert main(arguments) == 0
    after = read_json(copy / "results.json")["rows"]
    for old, new in zip(before, after, strict=True):
        assert (old["nll"], old["probe"]) == (new["nll"], new["probe"])
        assert new["samples_at_16"]["sampling"]["temperature"] == 0
        assert old["samples_at_16"]["sampling"]["temperature"] == 0.95
        assert old["samples_at_16"]["kernel_distance"] != new["samples_at_16"]["kernel_distance"]
    assert "temperature 0" in (copy / "report.md").read_text()


def test_a_row_that_is_not_finished_is_left_out(place: Path, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(finished, copy)
    path = copy / read_json(copy / "results.json")["rows"][2]["run"] / "row.json"
    write_json(path, {name: value for name, value in read_json(path).items() if name != "samples_at_16"})
    assert main(["ablate", str(place / "study.yaml"), "--out", str(copy), "--report"]) == 0
    assert len(read_json(copy / "results.json")["rows"]) == 4


def test_a_run_that_diverges_is_left_out(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(recipe: Recipe) -> None:
        raise NonFiniteLossError("step 3: loss nan")

    monkeypatch.setattr(run, "train_model", diverge)
    assert main(["ablate", str(place / "study.yaml"), "--out", str(tmp_path / "new")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("skipped, step 3: loss nan") == 5
    assert "there is nothing to report" in said


def test_arms_with_changes_measured_on_a_test_cache(place: Path, tmp_path: Path) -> None:
    write_classes(tmp_path / "test", 4)
    CacheWriter(tmp_path / "cache", open_source(str(tmp_path / "test")), tiny_vq(), CacheConfig()).run()
    values = yaml.safe_load((place / "study.yaml").read_text())
    values |= {
        "out": str(tmp_path / "out"),
        "heads": [
            {"kind": "cross", "densities": ["all/2"], "name": "base"},
            {"kind": "cross", "densities": ["all/2"], "name": "fast", "changes": {"train": {"learning_rate": 0.01}},
             "sampling": {"2": {"token_order": "confidence"}}},
        ],
        "budgets": [{"equal": "epochs", "epochs": 2}],
    }  # fmt: skip
    values["measures"] |= {"test": str(tmp_path / "cache"), "weights": "best", "copies": True, "nll_images": 100,
                           "sampling": {"temperature": 1.0}}  # fmt: skip
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["ablate", str(file)]) == 0
    rows = read_json(tmp_path / "out" / "results.json")["rows"]
    assert [(row["arm"], row["budget"]) for row in rows] == [
        ("base-all-2-random", "epochs-2"), ("fast-all-2-random", "epochs-2"),
    ]  # fmt: skip
    assert rows[0]["steps"] == rows[1]["steps"]
    for row in rows:
        metadata = read_metadata(tmp_path / "out" / row["run"] / "best" / "model.safetensors")
        assert row["weights_step"] == int(metadata["step"])
        assert row["nll"]["images"] == len(list((tmp_path / "test").rglob("*.png"))), "all test images"
        assert 0 <= row["samples_at_16"]["copied"] <= 1
    assert [row["samples_at_2"]["sampling"]["token_order"] for row in rows] == ["random", "confidence"]
    text = (tmp_path / "out" / "report.md").read_text()
    for piece in ("| fast all/2", "copies, 2", "k-NN", "best at step", "standard error over seeds", "of test images"):
        assert piece in text
    values["heads"][1]["changes"] = {"train": {"learning_rate": 0.02}}
    file.write_text(yaml.safe_dump(values))
    assert main(["ablate", str(file)]) == 2, "another arm of the same name"


def test_mixed_arms_are_read_in_raster_and_over_several_orders(place: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((place / "study.yaml").read_text())
    values |= {
        "out": str(tmp_path / "out"),
        "heads": [{"kind": "cross"}, {"kind": "next_token"}],
        "token_orders": ["mixed"],
        "budgets": [{"equal": "steps", "steps": 10}],
        "measures": {"samples": 0, "probe_images": 0, "nll_images": 8, "orders": 5, "far_images": 8},
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["ablate", str(file)]) == 0
    results = read_json(tmp_path / "out" / "results.json")
    for row in results["rows"]:
        folder = tmp_path / "out" / row["run"]
        heptapod = Heptapod.from_pretrained(folder / "last")
        recipe = from_dict(Recipe, read_yaml(folder / "config.yaml"), "recipe")
        tokens = load_tokens(recipe.data)[1]
        images, labels = tokens.head(8), tokens.labels[:8]
        in_raster = negative_log_likelihood(heptapod.model, images, labels, "raster")
        over_orders = negative_log_likelihood(heptapod.model, images, labels, "mixed", orders=5)
        assert row["nll"]["nats_per_token"] == pytest.approx(float(in_raster.mean()), abs=1e-6)
        assert row["nll_orders"]["nats_per_token"] == pytest.approx(float(over_orders.mean()), abs=1e-6)
        assert (row["nll"]["settings"]["token_order"], row["nll_orders"]["settings"]["orders"]) == ("raster", 5)
    cross, next_token = results["rows"]
    far = far_cell_nats(Heptapod.from_pretrained(tmp_path / "out" / cross["run"]).model, images, labels, "mixed")
    assert cross["far"]["nats_per_cell"] == pytest.approx(float(far.mean()), abs=1e-6)
    assert "far" not in next_token, "it does not predict the grid"
    assert {"nll", "nll_orders", "far"} == set(results["summary"][0]["figures"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert (
        "in the trained order (raster where it was mixed), and of the mean of the probabilities over 5 orders" in text
    )


def test_a_test_cache_of_another_tokenizer(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = build_trainable(VQConfig(width=8, codebook_size=8, code_width=4), 1).eval()
    write_classes(tmp_path / "test", 4)
    CacheWriter(tmp_path / "cache", open_source(str(tmp_path / "test")), other, CacheConfig()).run()
    for path, message in ((tmp_path / "cache", "differ in their tokenizer"), (place / "cache", "training reads too"),
                          (tmp_path, "is not a cache")):  # fmt: skip
        arguments = ["ablate", str(place / "study.yaml"), "--measures.test", str(path), "--out", str(tmp_path / "new")]
        assert main(arguments) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "measures.test" in said
        assert message in said
