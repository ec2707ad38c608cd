"""Damaged files of runs, caches and references: read, refused in one line, or skipped; see damage.py."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from heptapod.cli.info import describe
from heptapod.data import DataConfig, TokenSet
from heptapod.data.cache import open_cache, shard_path
from heptapod.data.cached_tokens import load_tokens
from heptapod.evaluation.reference import Reference
from heptapod.tools.ablation.measure import read_row
from heptapod.tools.ablation.plan import read_plan
from heptapod.training.checkpoint import CheckpointWriter, find_checkpoint, problem_of, read_checkpoint
from heptapod.training.folder import RunData, is_finished, read_figures, start
from heptapod.training.logging import MetricsLog, read_metrics
from heptapod.training.recipe import load_recipe
from heptapod.utils.config import from_dict
from heptapod.utils.files import read_json
from tests.conftest import write_classes
from tests.damage import check, json_damage, tensor_damage
from tests.data.test_cache import vae, vq, write


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of warnings are not kept."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def damaged(file: Path, read: Callable[[], object]) -> list[str]:
    """What reading a file gives with every damage; the file is whole afterwards."""
    whole = file.read_bytes()
    if file.suffix == ".safetensors":
        changes = tensor_damage(file)
    else:
        changes = ((what, text.encode(errors="surrogateescape")) for what, text in json_damage(json.loads(whole)))
    results = []
    for what, content in changes:
        file.unlink(missing_ok=True)  # a mapped file keeps its content
        file.write_bytes(content)
        results.append(check(read, f"{file.name}: {what}"))
    file.unlink()
    file.write_bytes(whole)
    assert check(read, "whole") == "read"
    return results


def checkpoint(folder: Path, step: int) -> Path:
    writer = CheckpointWriter(folder, keep_last=9)
    values = {"best_val_loss": 2.5, "figures": {"val_loss": 2.5}, "seconds": 1.0, "resumed_from": 1}
    writer.save(step, {"model": {"w": torch.ones(3, 2)}, "ema": {"w": torch.ones(3, 2)}}, values)
    writer.close()
    return folder / f"step-{step:08d}"


@pytest.mark.parametrize("name", ["state.json", "shard-00001-model-00001-of-00001.safetensors"])
def test_checkpoints(tmp_path: Path, name: str) -> None:
    before, last = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    chosen = []

    def find() -> None:
        found = find_checkpoint(tmp_path)
        chosen.append(found)
        assert found is not None
        assert read_checkpoint(found)["model"]["w"].tolist() == torch.ones(3, 2).tolist(), "what was written"
        if found == before:
            last.with_name(f"damaged-{last.name}").rename(last)

    damaged(last / name, find)
    assert set(chosen) == {before, last}
    damaged(last / name, lambda: describe(last))
    damaged(last / name, lambda: problem_of(last))


@pytest.mark.parametrize("kind", ["codes", "vectors"])
@pytest.mark.parametrize("name", ["cache.json", "index.json", "shards/00001.safetensors"])
def test_caches(tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "c"
    write(folder, write_classes(tmp_path / "images", 4), vq() if kind == "codes" else vae(), shard_size=4)
    expected = {str(shard_path(folder, number)): open_cache(folder).tokens.shards[number].clone() for number in (0, 1)}

    def load() -> None:
        parts = load_tokens(DataConfig(str(folder), validation_fraction=0.25))
        for tokens in parts:
            tokens.check_finite()
            assert len(tokens.names) == len(tokens.labels) == len(tokens)
            assert -1 <= int(tokens.labels.min()) <= int(tokens.labels.max()) < max(len(tokens.class_names), 1)

    results = damaged(folder / name, load)
    assert sum(result == "read" for result in results) < len(results) / 4
    if name == "index.json":
        damaged(folder / name, lambda: describe(folder))
    assert all(torch.equal(open_cache(folder).tokens.shards[n], t) for n, t in enumerate(expected.values()))


def test_references(tmp_path: Path) -> None:
    extractor = {"name": "x", "preprocessing": "y", "num_features": 3, "model_sha256": None}
    source = {"kind": "folder", "path": "p", "sha256": "0"}
    moments = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    reference = Reference(extractor, 4, *moments, torch.ones(2, 3), source, ["a", "b"], [2, 2], [8, 8])
    reference.save(tmp_path / "r.safetensors")
    results = damaged(tmp_path / "r.safetensors", lambda: Reference.load(tmp_path / "r.safetensors"))
    assert results.count("read") <= 2, "only the path of the source is free"


def test_runs(tmp_path: Path) -> None:
    figures = {"best_val_loss": 2.0, "seconds": 1.0, "step": 4.0, "val_loss": 2.0}
    (tmp_path / "training.json").write_text(json.dumps(figures))
    damaged(tmp_path / "training.json", lambda: read_figures(tmp_path))
    recipe = load_recipe("demo")
    images = tokens(tmp_path)
    start(tmp_path, recipe, (images, images))
    file = tmp_path / "data.json"
    damaged(file, lambda: from_dict(RunData, read_json(file), str(file)))
    values = json.loads(file.read_text())
    for key, value in (("sha256", []), ("names_sha256", "x"), ("train_images", {}), ("held_out_images", None)):
        file.write_text(json.dumps(values | {key: value}))
        assert check(lambda: start(tmp_path, recipe, (images, images)), key) != "read"


def tokens(tmp_path: Path) -> TokenSet:
    write(tmp_path / "c", write_classes(tmp_path / "images", 4), shard_size=4)
    return open_cache(tmp_path / "c").tokens.subset(np.arange(4))


def test_recipes_of_runs(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    start(tmp_path, recipe, (tokens(tmp_path / "t"), tokens(tmp_path / "u")))
    file = tmp_path / "config.yaml"
    whole = file.read_text()
    texts = ["", "[]", "x", "1: 2", "train: {1: 2}", "train: []", "train: {steps: []}", "? [1]\n: 2", "a: &a [*a]"]
    texts += ["[" * 500, whole.replace("seed: 0", "seed: .inf"), whole[: len(whole) // 2], "train: null", "\x00"]
    for text in texts:
        file.write_text(text)
        assert check(lambda: is_finished(tmp_path, recipe), text[:40]) != "read"


def test_metrics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.disable(logging.NOTSET)
    file = tmp_path / "metrics.jsonl"
    good = [json.dumps({"step": step, "loss": 1.0 / step}) for step in (1, 2, 3)]
    bad = ["", "{}", "[]", "5", '{"step": "x"}', '{"step": null}', '{"step": 1e400}', '{"loss": 1}', "[" * 10_000,
           '{"step": 1, "a": {}}', '{"step": 1.5}', "\udcff", '{"step": 3, "loss": 0.3']  # fmt: skip
    for line in bad:
        file.write_bytes("\n".join([good[0], line, good[1], good[2]]).encode(errors="surrogateescape"))
        assert [values["step"] for values in read_metrics(file)] == [1, 2, 3]
        assert f"{file}: line 2 is damaged and left out" in caplog.text
        caplog.clear()
        MetricsLog(tmp_path, 2, tensorboard=False)
        assert file.read_text().splitlines() == good[:2]
    caplog.clear()
    file.write_text("\n".join([*good, '{"step": 4, "lo']))
    assert len(read_metrics(file)) == 3
    assert not caplog.text, "a kill cuts the last line"
    file.write_text('{"step": 1, "loss": NaN, "other": Infinity}\n')
    assert str(read_metrics(file)) == "[{'step': 1, 'loss': nan, 'other': inf}]"


def test_studies(tmp_path: Path) -> None:
    cost = {"parameters": 5, "relative_time": 1.0, "seconds_per_step": 0.1}
    (tmp_path / "plan.json").write_text(json.dumps({"arms": {"a": cost}, "first": "a", "hardware": {"cpu": "x"}}))
    damaged(tmp_path / "plan.json", lambda: read_plan(tmp_path))
    (tmp_path / "row.json").write_text(json.dumps({"nll": {"settings": {"images": 2}, "mean": 1.5}}))
    damaged(tmp_path / "row.json", lambda: read_row(tmp_path / "row.json"))
