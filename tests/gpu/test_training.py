"""Training on a GPU: no step waits for it, and a resumed run is the same to the bit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from heptapod.configs.objective import ObjectiveConfig
from heptapod.distributed.errors import NonFiniteLossError
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import HeptapodModel, build_model
from heptapod.tools.bench.training_cases import random_tokens
from heptapod.training.config import TrainConfig
from heptapod.training.model_task import ModelTask
from heptapod.training.trainer import Trainer
from tests.small import CODES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CONFIG = TrainConfig(
    steps=8, batch_size=8, accumulation=2, precision="bfloat16", log_every=100, eval_every=100, preview_every=100,
    save_every=4,
)  # fmt: skip


OBJECTIVES = {
    "raster": ObjectiveConfig(token_order="raster"),
    "random": ObjectiveConfig(token_order="random", label_dropout=0.1),
    "groups": ObjectiveConfig(token_order="random", group_size="random"),
}


def trainer(folder: Path, objective: str = "random", settings: TrainConfig = CONFIG, grid: GridSpec = CODES) -> Trainer:
    config = ModelConfig(
        width=64, depth=2, num_heads=2, head=HeadConfig("group" if objective == "groups" else "cross", 2)
    )
    tokens = random_tokens(grid, 3, images=64)
    model = build_model(config, grid, 3, 0)

    def preview(model: HeptapodModel) -> Image.Image:
        return Image.new("RGB", (4, 4))

    def export(model: HeptapodModel, folder: Path, metadata: dict[str, str]) -> None:
        pass

    task = ModelTask(model, tokens, tokens, OBJECTIVES[objective], settings.steps, preview, export)
    return Trainer(task, settings, folder, 0, torch.device("cuda"))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_step_waits_for_the_gpu(tmp_path: Path, objective: str) -> None:
    running = trainer(tmp_path, objective)
    for _ in range(2):  # what is allocated and compiled at first
        running._train_step()
        running.state.step += 1
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        running._train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_resumed_run_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run()
    broken = trainer(tmp_path / "broken")
    with monkeypatch.context() as patch:
        original = Trainer._train_step

        def breaking(self: Trainer, stop_requested: bool = False) -> tuple[dict[str, object], bool]:
            if self.step == 5:
                raise InterruptedError
            return original(self, stop_requested)

        patch.setattr(Trainer, "_train_step", breaking)
        with pytest.raises(InterruptedError):
            broken.run()
    resumed = trainer(tmp_path / "broken")
    assert resumed.step == 4
    resumed.run()
    for name, weight in whole.module.state_dict().items():
        assert torch.equal(weight, resumed.module.state_dict()[name]), name


def test_a_loss_that_is_not_finite_is_found(tmp_path: Path) -> None:
    running = trainer(tmp_path)
    before = {name: weight.clone() for name, weight in running.module.state_dict().items()}
    with torch.no_grad():
        running.module.get_parameter("condition_embedding.weight").fill_(torch.nan)
    with pytest.raises(NonFiniteLossError, match="step 1: loss nan"):
        running.run()
    changed = [name for name, weight in running.module.state_dict().items() if not torch.equal(weight, before[name])]
    assert changed == ["condition_embedding.weight"]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_flex_attention_trains_the_same_model(tmp_path: Path, objective: str, checkpointing: bool) -> None:
    compiled = dataclasses.replace(CONFIG, compile=True, activation_checkpointing=checkpointing)
    grid = dataclasses.replace(CODES, height=16, width=16)
    plain, flex = (
        trainer(tmp_path / str(on), objective, dataclasses.replace(compiled, flex_attention=on), grid)
        for on in (False, True)
    )
    assert flex.module.head.flex_attention
    for _ in range(3):
        losses = [float(running._train_step()[0]["loss"]) for running in (plain, flex)]
        assert losses[0] == pytest.approx(losses[1], rel=2e-2), "in bfloat16"
