"""What the planner says of a GPU's memory, against torch's allocator."""

from __future__ import annotations

import copy

import pytest
import torch

from heptapod.tools.planning.budget import Budget
from tests.tools.planning.steps import real_batch, real_loss, real_model, training_setup

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIZE = ["--model.width", "512", "--model.depth", "6", "--model.num_heads", "8", "--model.head.depth", "6"]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", ["cross", "global", "flow"])
def test_the_peak_of_a_training_step(kind: str, precision: str, checkpointing: bool) -> None:
    """Two micro-batches and an update; the second step is measured, when everything is allocated."""
    from heptapod.tools.planning.fake import checkpoint_blocks

    settings = ["--train.batch_size", "32", "--train.accumulation", "2", "--train.precision", precision]
    settings += ["--train.activation_checkpointing"] if checkpointing else []
    what = training_setup(kind, *SIZE, *settings, side=16)
    before = torch.cuda.memory_allocated()
    model = real_model(what, "cuda")
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    if checkpointing:
        checkpoint_blocks(model)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        optimizer.zero_grad(set_to_none=True)
        for _ in range(2):
            real_loss(what, model, real_batch(what, model, 16, "cuda")).backward()
        optimizer.step()
    peak = torch.cuda.max_memory_allocated() - before
    del average
    budget = Budget(what, gpus=1)
    assert budget.memory(budget.configured_option).training == pytest.approx(peak, rel=0.1)
