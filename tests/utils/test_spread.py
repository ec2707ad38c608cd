from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heptapod.utils.random import KeyedGenerator, Stream
from heptapod.utils.spread import spread_order


def orders(height: int, width: int, images: int = 8) -> Tensor:
    return spread_order(height, width, KeyedGenerator(Stream.SAMPLE_ORDER, [(i,) for i in range(images)]))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 1), (2, 2), (4, 5), (7, 7), (3, 12), (16, 16)])
def test_every_cell_once(height: int, width: int) -> None:
    assert torch.equal(orders(height, width).sort(1).values, torch.arange(height * width).expand(8, -1))


@pytest.mark.parametrize(("count", "apart"), [(4, 8), (16, 4), (64, 2)])
def test_cells_of_a_step_lie_far_apart(count: int, apart: int) -> None:
    """Steps of 4, 16 or 64 cells of 16×16 at any time."""
    steps = orders(16, 16).view(8, -1, count)
    rows, columns = steps // 16, steps % 16
    distance = torch.maximum(*((x.unsqueeze(-1) - x.unsqueeze(-2)).abs() for x in (rows, columns)))
    assert int((distance + 99 * torch.eye(count, dtype=torch.long)).min()) == apart


def test_half_the_cells_are_a_checkerboard() -> None:
    half = orders(8, 8)[:, :32]
    color = (half // 8 + half % 8) % 2
    assert (color == color[:, :1]).all()


def test_the_seed_decides() -> None:
    some = orders(7, 7)
    assert torch.equal(some, orders(7, 7))
    assert len({tuple(row) for row in some.tolist()}) == 8
    alone = spread_order(7, 7, KeyedGenerator(Stream.SAMPLE_ORDER, [(3,)]))
    assert torch.equal(alone, some[3:4])
