"""Dropout of the model: only in training, the same for the same step, and no other random numbers change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from heptapod import load_recipe
from heptapod.models.heptapod import build_model
from heptapod.nn.layers import Block
from heptapod.objective import next_cell_supervision, objective_loss
from heptapod.tools.planning.memory import MemoryModel, Variant
from heptapod.training.run import train_model
from heptapod.utils.random import seeded_dropout
from tests.conftest import GRID, HEADS
from tests.tools.planning.steps import training_setup
from tests.training.test_resume import TINY, photos, run  # noqa: F401
from tests.training.test_trainer import Stop, final_bytes, stop_at


@pytest.mark.parametrize("head", HEADS)
def test_every_head_drops_values_in_training_only(head: str) -> None:
    recipe = load_recipe(TINY, ["--model.head.kind", head, "--model.dropout", "0.5"])
    model = build_model(recipe.model, GRID, 3, 0)
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    assert {block.dropout for block in blocks} == {0.5}
    tokens = torch.randint(GRID.vocabulary_size, (2, GRID.num_cells), generator=torch.Generator().manual_seed(0))
    supervision = next_cell_supervision(torch.arange(GRID.num_cells).expand(2, -1))

    def loss(*key: int) -> torch.Tensor:
        with seeded_dropout(torch.device("cpu"), *key):
            return objective_loss(model, tokens, None, supervision)

    assert torch.equal(loss(0, 1), loss(0, 1))
    assert not torch.equal(loss(0, 1), loss(0, 2))
    model.eval()
    assert torch.equal(loss(0, 1), loss(0, 2))


def test_the_share_of_zeros_and_the_scale_of_the_others() -> None:
    block = Block(64, 2)
    block.dropout = 0.25
    with seeded_dropout(torch.device("cpu"), 0, 0):
        dropped = block._drop(torch.ones(1000, 64))
    values, counts = dropped.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0, 4 / 3])
    assert counts[0] / dropped.numel() == pytest.approx(0.25, abs=0.01)


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded_dropout(torch.device("cpu"), 1, 2, 3):
        torch.rand(7)
    assert torch.equal(torch.rand(3), expected)


def test_resume_and_recomputed_blocks_are_bit_exact(
    photos: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped = ("--model.dropout", "0.3", "--train.accumulation", "2")
    run(tmp_path / "whole", photos, *dropped)
    run(tmp_path / "without", photos, "--train.accumulation", "2")
    run(tmp_path / "recomputed", photos, *dropped, "--train.activation-checkpointing", "true")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_at(patch, 3)
        run(tmp_path / "broken", photos, *dropped)
    run(tmp_path / "broken", photos, *dropped)
    whole = final_bytes(tmp_path / "whole")
    assert final_bytes(tmp_path / "broken") == whole
    assert final_bytes(tmp_path / "recomputed") == whole
    assert final_bytes(tmp_path / "without") != whole


def test_micro_batches_and_steps_have_their_own_masks(
    photos: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys: list[tuple[int, ...]] = []

    def noted(device: torch.device, *key: int) -> object:
        keys.append(key)
        return seeded_dropout(device, *key)

    monkeypatch.setattr("heptapod.training.trainer.seeded_dropout", noted)
    changes = ["--data.path", str(photos), "--out", str(tmp_path / "run"), "--train.accumulation", "2"]
    train_model(load_recipe(TINY, changes))
    assert len(keys) == len(set(keys)) == 8, "4 steps of 2 micro-batches"


def test_a_run_of_a_version_without_dropout_resumes(photos: Path, tmp_path: Path) -> None:  # noqa: F811
    run(tmp_path / "run", photos)
    before = final_bytes(tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    values = yaml.safe_load(config.read_text())
    assert values["model"].pop("dropout") == 0
    config.write_text(yaml.safe_dump(values))
    run(tmp_path / "run", photos)
    assert final_bytes(tmp_path / "run") == before
    with pytest.raises(ValueError, match=r"model\.dropout = 0\.0, now 0\.1 is given"):
        run(tmp_path / "run", photos, "--model.dropout", "0.1")


def test_a_plan_counts_masks_of_one_byte() -> None:
    setups = [
        training_setup("cross", "--model.dropout", value, "--train.precision", "float32") for value in ("0", "0.1")
    ]
    plain, dropped = (MemoryModel(setup).step(Variant(8)).activations for setup in setups)
    tokens, width, depth = 36, setups[0].recipe.model.width, setups[0].recipe.model.depth
    assert dropped - plain > 8 * tokens * width * 2 * depth
    assert dropped - plain < 8 * (tokens + 5) * width * 2 * (depth + 2) * 2
