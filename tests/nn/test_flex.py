"""FlexAttention gives what dense masks give; its backward pass needs a GPU (tests/gpu)."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from heptapod.configs.objective import ObjectiveConfig
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heads.cross import CrossHead
from heptapod.models.heptapod import build_model
from heptapod.nn.flex import block_mask
from heptapod.objective import draw_supervision, objective_loss
from heptapod.utils.random import KeyedGenerator, Stream
from tests.conftest import randomized
from tests.small import CODES

GRID = dataclasses.replace(CODES, height=12, width=12)
KEYS = [(0, 0, 0), (0, 0, 1)]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("head", ["cross", "group"])
@pytest.mark.parametrize("order", ["raster", "random"])
@torch.no_grad()
def test_the_loss_is_that_of_a_dense_mask(head: str, order: str) -> None:
    model = randomized(build_model(ModelConfig(width=32, depth=1, num_heads=2, head=HeadConfig(head, 2)), GRID, 3, 0))
    assert isinstance(model.head, CrossHead)
    objective = ObjectiveConfig(order).for_head(head)  # type: ignore[arg-type]
    supervision = draw_supervision(objective, GRID.height, GRID.width, KEYS)
    tokens = torch.randint(GRID.vocabulary_size, (2, GRID.num_cells), generator=torch.Generator().manual_seed(0))
    losses = []
    for flex in (False, True):
        model.head.flex_attention = flex
        noise = KeyedGenerator(Stream.LOSS, KEYS)
        losses.append(objective_loss(model, tokens, None, supervision, noise))
    assert torch.allclose(*losses, rtol=1e-5)


def test_a_block_mask_skips_empty_blocks() -> None:
    """Of a causal mask over four blocks per side the upper triangle, 6 of 16 blocks."""
    mask = torch.ones(512, 512, dtype=torch.bool).tril().expand(2, 1, -1, -1)
    assert block_mask(mask).sparsity() == pytest.approx(100 * 6 / 16)
