"""FLOPs told without computing, against those that torch counts while it computes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from heptapod.configs.models import SIZES
from heptapod.nn.layers import Block
from heptapod.sampling import sample_tokens
from heptapod.tools.planning.fake import checkpoint_blocks, meta_model
from heptapod.tools.planning.flops import training_flops
from heptapod.tools.planning.sampling import sampling_flops
from heptapod.tools.planning.training_setup import TrainingSetup
from tests.tools.planning.steps import KINDS, real_batch, real_loss, real_model, training_setup

SHALLOW = ["--model.depth", "2", "--model.head.depth", "2"]


def counted_step(what: TrainingSetup, images: int, checkpointed: bool = False) -> tuple[float, float]:
    """Forward and backward FLOPs per image of a real training step on the CPU; attention by plain products, which alone
    torch counts there."""
    model = real_model(what)
    if checkpointed:
        checkpoint_blocks(model)
    batch = real_batch(what, model, images)
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = real_loss(what, model, batch)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops() / images, backward.get_total_flops() / images


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_is_what_torch_counts(kind: str) -> None:
    what = training_setup(kind)
    forward, backward = counted_step(what, images=3)
    planned = training_flops(what)
    # A global head tells the cells where they lie once for all images: one product that is not linear in them.
    within = 0.005 if kind == "global" else 1e-9
    assert planned.forward == pytest.approx(forward, rel=within)
    assert planned.backward == pytest.approx(backward, rel=within)
    assert planned.recomputed == 0
    assert all(part.forward > 0 and part.backward > part.forward for part in planned.parts.values())


def test_b_is_what_torch_counts() -> None:
    what = training_setup("flow", "--model.size", "B", side=4)
    assert what.recipe.model.width == SIZES["B"].width
    forward, backward = counted_step(what, images=1)
    planned = training_flops(what)
    assert planned.forward == pytest.approx(forward, rel=0.03)
    assert planned.total == pytest.approx(forward + backward, rel=0.03)


def test_attention_is_counted() -> None:
    """The backbone, written out: matrices of every block, two products of its attention, and the embeddings."""
    what = training_setup("next_token", side=8)
    config, tokens = what.recipe.model, 64  # the condition and all tokens but the last
    model = meta_model(what)
    matrices = sum(
        parameter.numel()
        for block in model.backbone.blocks.modules()
        if isinstance(block, Block)
        for parameter in block.parameters()
        if parameter.ndim == 2
    )
    attention = 4 * tokens**2 * config.width * config.depth
    embedding = 2 * (tokens - 1) * model.cell_embedding.project.weight.numel()
    planned = training_flops(what).parts["backbone"]
    assert planned.forward == 2 * tokens * matrices + attention + embedding
    # Twice as many backwards, but for the gradient of the waves that cells are embedded by.
    assert planned.backward == 2 * planned.forward - embedding


@pytest.mark.parametrize("kind", ["cross", "global", "next_token"])
def test_recomputed_are_the_blocks(kind: str) -> None:
    what = training_setup(kind, "--train.activation_checkpointing", *SHALLOW)
    plain, checkpointed = (sum(counted_step(what, images=2, checkpointed=value)) for value in (False, True))
    planned = training_flops(what)
    assert planned.recomputed == checkpointed - plain
    assert planned.total == pytest.approx(plain)
    assert 0.1 * planned.forward < planned.recomputed < planned.forward


SAMPLED = {
    "cross": ("cross", ["--sampling.steps", "7"]),
    "cross by confidence": ("cross", ["--sampling.steps", "5", "--sampling.token_order", "confidence"]),
    "global": ("global", ["--sampling.steps", "7"]),
    "global, approximate": ("global", ["--sampling.steps", "7", "--sampling.approximate_head"]),
    "global by confidence": ("global", ["--sampling.steps", "5", "--sampling.token_order", "confidence"]),
    "group": ("group", ["--sampling.steps", "7"]),
    "local": ("local", []),
    "next_token": ("next_token", []),
    "flow": ("flow", ["--sampling.steps", "4", "--sampling.cell_solver", "heun"]),
    "flow by confidence": ("flow", ["--sampling.steps", "3", "--sampling.token_order", "confidence"]),
    "diffusion": ("diffusion", ["--sampling.steps", "4"]),
    "diffusion, ancestral": ("diffusion", ["--sampling.cell_solver", "ancestral", "--sampling.cell_steps", "9"]),
}


def linear_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object) -> int:
    """Of oneDNN's linear layer, which sampling takes on a CPU."""
    return 2 * math.prod(x) * weight[0]


@pytest.mark.parametrize("case", SAMPLED)
def test_sampling_is_what_torch_counts(case: str) -> None:
    kind, settings = SAMPLED[case]
    what = training_setup(kind, *settings, *SHALLOW, side=5)
    model = real_model(what).eval()
    config = what.recipe.sampling.with_token_order(what.recipe.objective.token_order)
    onednn = (
        {torch.ops.mkldnn._linear_pointwise: linear_flops} if hasattr(torch.ops.mkldnn, "_linear_pointwise") else {}
    )
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=onednn) as counted:
        sample_tokens(model, None, [0], config)
    with torch.no_grad(), FlopCounterMode(display=False) as once:  # for all cells and images of a batch: no cost of one
        model.distribution.schedule(model.distribution.plan(config))
    planned = sampling_flops(what)
    assert planned.total == pytest.approx(counted.get_total_flops() - once.get_total_flops())
    assert planned.steps == (config.steps or 25)
    assert min(planned.backbone, planned.head, planned.distribution) > 0
