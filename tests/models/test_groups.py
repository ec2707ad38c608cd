"""Cells that are predicted together: the group head, and how its groups are drawn and packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.models import HeptapodModel
from heptapod.objective import Supervision, draw_supervision, objective_loss
from tests.conftest import GRID

N = GRID.num_cells
Make = Callable[..., HeptapodModel]
KEYS = [(0, 0, i) for i in range(5)]
TOKENS = torch.randint(GRID.vocabulary_size, (5, N), generator=torch.Generator().manual_seed(0))


def draw(keys: list[tuple[int, int, int]] = KEYS, side: tuple[int, int] = (4, 5), **settings: object) -> Supervision:
    config = ObjectiveConfig("random", **settings).for_head("group")  # type: ignore[arg-type]
    return draw_supervision(config, *side, keys)


def groups_of(drawn: Supervision, row: int) -> dict[int, list[int]]:
    """The cells of every prefix of an image that count."""
    found: dict[int, list[int]] = {}
    shape = drawn.targets.shape
    prefixes = drawn.prefix_lengths.expand(shape[:2]).unsqueeze(-1).expand(shape)
    weights = drawn.weights.expand(shape)
    for t, cell, weight in zip(*(x[row].flatten().tolist() for x in (prefixes, drawn.targets, weights)), strict=True):
        if weight:
            found.setdefault(t, []).append(cell)
    return found


@torch.no_grad()
def predict(model: HeptapodModel, prefixes: Tensor, targets: Tensor, order: Tensor) -> Tensor:
    return model.features(TOKENS[: len(order)], None, order, prefixes, targets)


def test_cells_of_one_prefix_see_each_other_and_no_others(make_model: Make) -> None:
    model, order = make_model("group"), torch.arange(N).unsqueeze(0)
    prefixes = torch.tensor([[3, 8]])
    targets = torch.tensor([[[3, 10, 15], [8, 9, 10]]])
    before = predict(model, prefixes, targets, order)
    targets[0, 0, 2] = 16
    after = predict(model, prefixes, targets, order)
    assert torch.equal(before[:, 1], after[:, 1])
    assert not torch.allclose(before[:, 0, :2], after[:, 0, :2], atol=1e-3)


def test_the_order_in_a_group_does_not_matter(make_model: Make) -> None:
    model, order = make_model("group"), torch.arange(N).unsqueeze(0)
    prefixes, targets = torch.tensor([[3]]), torch.tensor([[[3, 10, 15, 7]]])
    swap = torch.tensor([2, 0, 3, 1])
    one, other = predict(model, prefixes, targets, order), predict(model, prefixes, targets[..., swap], order)
    assert torch.allclose(one[:, :, swap], other, atol=1e-5)


def test_padding_changes_nothing(make_model: Make) -> None:
    model, order = make_model("group"), torch.arange(N).unsqueeze(0)
    prefixes, targets = torch.tensor([[3]]), torch.tensor([[[3, 10, 15]]])
    padded = torch.cat([targets, targets[..., :1].expand(-1, -1, 4)], dim=-1)
    one = predict(model, prefixes, targets, order)
    assert torch.allclose(one, predict(model, prefixes, padded, order)[:, :, :3], atol=1e-5)


@pytest.mark.parametrize("settings", [{"prefixes_per_image": 6, "targets_per_prefix": "all"}, {}])
def test_packed_groups_have_the_loss_of_single_prefixes(make_model: Make, settings: dict[str, object]) -> None:
    model = make_model("group")
    if not settings:
        settings = {"prefixes_per_image": 6, "targets_per_prefix": 4}
    drawn = draw(**settings)
    assert drawn.targets.shape[2] == 1, "packed"
    together = objective_loss(model, TOKENS, None, drawn)
    for row in range(5):
        loss = torch.zeros(())
        groups = groups_of(drawn, row)
        for t, cells in groups.items():
            targets = torch.tensor([[cells]])
            weights = torch.full(targets.shape, 1 / len(cells))
            part = Supervision(drawn.token_order[row : row + 1], torch.tensor([[t]]), targets, weights)
            loss = loss + objective_loss(model, TOKENS[row : row + 1], None, part) / 6
        assert torch.allclose(loss, together[row], atol=1e-5)


@pytest.mark.parametrize("side", [(4, 5), (3, 3), (5, 5)])
@pytest.mark.parametrize("count", [2, 4])
def test_pairs_of_prefixes_have_all_unread_cells(side: tuple[int, int], count: int) -> None:
    cells, seen = side[0] * side[1], Counter[int]()
    keys = [(0, epoch, i) for epoch in range(60) for i in range(4)]
    drawn = draw(keys, side, prefixes_per_image=count, targets_per_prefix="all")
    assert drawn.targets.shape == (240, count // 2 * (cells + 1), 1)
    for row in range(240):
        groups = groups_of(drawn, row)
        assert {cells - 1 - t for t in groups} == set(groups)
        for t, members in groups.items():
            assert members == drawn.token_order[row, t:].tolist()
        seen.update(list(groups))
    assert max(seen.values()) < 2 * 240 * count / cells
    assert set(seen) == set(range(cells))


@pytest.mark.parametrize("prefixes", [1, 6, "all"])
@pytest.mark.parametrize("targets", [1, 4, 30, "all"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_groups_are_what_they_say(prefixes: int | str, targets: int | str, share: float) -> None:
    drawn = draw(
        prefixes_per_image=prefixes,
        targets_per_prefix=targets,
        group_size="random",
        spread_share=share,
        near_share=share,
    )
    most = N if targets == "all" else min(int(targets), N)
    for row in range(5):
        groups = groups_of(drawn, row)
        assert len(groups) == (N if prefixes == "all" else prefixes)
        for t, members in groups.items():
            assert members[0] == drawn.token_order[row, t], "the next cell comes first"
            assert len(set(members)) == len(members) <= most
            assert set(members) <= set(drawn.token_order[row, t:].tolist())
        assert abs(float(drawn.weights.expand_as(drawn.targets)[row].sum()) - 1) < 1e-5


def test_every_size_is_drawn() -> None:
    keys = [(0, 1, i) for i in range(200)]
    drawn = draw(keys, prefixes_per_image=4, targets_per_prefix=4)
    sizes = Counter(len(group) for row in range(200) for t, group in groups_of(drawn, row).items() if t <= N - 4)
    assert set(sizes) == {1, 2, 3, 4}
    assert max(sizes.values()) < 1.2 * min(sizes.values())


def test_spread_groups_lie_apart() -> None:
    def nearest(share: float) -> float:
        keys = [(0, 0, i) for i in range(100)]
        drawn = draw(keys, (8, 8), prefixes_per_image=8, targets_per_prefix=4, spread_share=share)
        found = []
        for row in range(100):
            for t, group in groups_of(drawn, row).items():
                if len(group) == 4 and t < 24:
                    cells = torch.tensor(group)
                    rows, columns = (x.unsqueeze(0) - x.unsqueeze(1) for x in (cells // 8, cells % 8))
                    found.append(float((torch.maximum(rows.abs(), columns.abs()) + 99 * torch.eye(4)).min()))
        return sum(found) / len(found)

    one, other = nearest(1.0), nearest(0.0)
    assert one > 1.4 * other, (one, other)


def test_randomness_belongs_to_the_image() -> None:
    for settings in ({"targets_per_prefix": 4}, {"targets_per_prefix": "all"}):
        together, alone = draw(prefixes_per_image=4, **settings), draw(KEYS[3:4], prefixes_per_image=4, **settings)
        for name in ("token_order", "prefix_lengths", "targets", "weights"):
            assert torch.equal(getattr(together, name)[3:4], getattr(alone, name))


def test_group_size_is_for_groups() -> None:
    with pytest.raises(ValueError, match="group_size: random given, but the targets of a cross head"):
        ObjectiveConfig(group_size="random").for_head("cross")
