from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from heptapod.configs.models import HEADS
from heptapod.configs.objective import ObjectiveConfig
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.objective import draw_supervision, drop_labels, next_cell_supervision, objective_loss

H, W = 3, 4
N = H * W
KEYS = [(0, 0, i) for i in range(6)]


@pytest.mark.parametrize("order", ["raster", "random", "mixed"])
@pytest.mark.parametrize("prefixes", [1, 5, "all"])
@pytest.mark.parametrize("targets", [1, 3, 30, "all"])
@pytest.mark.parametrize("window", [None, 3])
def test_supervision_is_what_it_says(order: str, prefixes: int | str, targets: int | str, window: int | None) -> None:
    config = ObjectiveConfig(order, prefixes, targets)  # type: ignore[arg-type]
    drawn = draw_supervision(config, H, W, KEYS, window)
    assert torch.equal(drawn.token_order.sort(1).values, torch.arange(N).expand(6, -1))
    assert drawn.prefix_lengths.shape[1] == (N if prefixes == "all" else prefixes)
    lengths = drawn.prefix_lengths.expand(6, -1)
    for b in range(6):
        assert len(set(lengths[b].tolist())) == lengths.shape[1]
        for s, t in enumerate(lengths[b].tolist()):
            chosen = drawn.targets[b, s][drawn.weights.expand_as(drawn.targets)[b, s] > 0].tolist()
            unread = drawn.token_order[b, t:].tolist()
            if window is not None:
                unread = [c for c in unread if max(abs(c // W - unread[0] // W), abs(c % W - unread[0] % W)) <= 1]
            assert chosen[0] == unread[0], "the next cell comes first"
            assert len(set(chosen)) == len(chosen), "no cell twice"
            assert set(chosen) <= set(unread)
            assert len(chosen) == (len(unread) if targets == "all" else min(int(targets), len(unread)))


def test_other_targets_are_uniform() -> None:
    config = ObjectiveConfig("raster", "all", 3)
    counts: Counter[tuple[int, ...]] = Counter()
    for epoch in range(400):
        drawn = draw_supervision(config, 1, 6, [(0, epoch, i) for i in range(5)])
        counts.update(tuple(sorted(row[1:])) for row in drawn.targets[:, 1].tolist())
    assert len(counts) == 6  # pairs out of the four cells 2..5
    assert all(abs(count / 2000 - 1 / 6) < 0.03 for count in counts.values())


def test_randomness_belongs_to_the_image() -> None:
    config = ObjectiveConfig("mixed", 4, 3)
    together = draw_supervision(config, H, W, KEYS)
    alone = draw_supervision(config, H, W, KEYS[3:4])
    for name in ("token_order", "prefix_lengths", "targets", "weights"):
        assert torch.equal(getattr(together, name)[3:4], getattr(alone, name))
    assert not torch.equal(together.targets, draw_supervision(config, H, W, [(0, 1, i) for i in range(6)]).targets)


def test_mixed_uses_both_orders() -> None:
    orders = draw_supervision(ObjectiveConfig("mixed", 1, 1), H, W, [(0, 0, i) for i in range(200)]).token_order
    share = float((orders == torch.arange(N)).all(1).double().mean())
    assert 0.4 < share < 0.6


@pytest.mark.parametrize("head", ["cross", "group", "next_token", "global", "local"])
def test_next_token_prediction_is_a_special_case(head: str) -> None:
    """T = all, U = {σ(t+1)}: the objective is the mean cross-entropy of a language model."""
    grid = GridSpec(H, W, 5)
    model = build_model(ModelConfig(width=32, depth=1, num_heads=2, head=HeadConfig(head, 1)), grid, 0, 0)  # type: ignore[arg-type]
    tokens = torch.randint(5, (6, N), generator=torch.Generator().manual_seed(0))
    drawn = draw_supervision(ObjectiveConfig("random", "all", 1), H, W, KEYS, model.head.window)
    loss = objective_loss(model, tokens, None, drawn)
    order = drawn.token_order
    assert torch.equal(drawn.targets, next_cell_supervision(order).targets)
    states = model.read(tokens.gather(1, order[:, :-1]), order[:, :-1], None)
    logits = model.distribution.logits(model.head(states, torch.arange(N).unsqueeze(0), order.unsqueeze(-1)))
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 2), tokens.gather(1, order).flatten(), reduction="none")
    assert torch.allclose(loss, plain.view(6, N).mean(1), atol=1e-5)


def test_masked_autoencoding_is_a_special_case() -> None:
    """One prefix in random order, all unread cells: the mean over the masked cells of one forward pass."""
    grid = GridSpec(H, W, 5)
    model = build_model(ModelConfig(width=32, depth=1, num_heads=2, head=HeadConfig("global", 1)), grid, 0, 0)
    tokens = torch.randint(5, (6, N), generator=torch.Generator().manual_seed(0))
    drawn = draw_supervision(ObjectiveConfig("random", 1, "all"), H, W, KEYS)
    loss = objective_loss(model, tokens, None, drawn)
    for b in range(6):
        t, order = int(drawn.prefix_lengths[b, 0]), drawn.token_order[b : b + 1]
        read, masked = order[:, :t], order[:, t:]
        features = model.predict(model.read(tokens[b : b + 1].gather(1, read), read, None), masked)
        logits = model.distribution.logits(features).squeeze(0)
        expected = torch.nn.functional.cross_entropy(logits, tokens[b, masked[0]])
        assert torch.allclose(loss[b], expected, atol=1e-5)


def test_label_dropout() -> None:
    labels = torch.arange(1000) % 10
    keys = [(0, 0, i) for i in range(1000)]
    assert torch.equal(drop_labels(labels, 0.0, keys), labels)
    assert (drop_labels(labels, 1.0, keys) == -1).all()
    dropped = drop_labels(labels, 0.1, keys)
    assert 0.07 < float((dropped == -1).double().mean()) < 0.13
    assert torch.equal(dropped[dropped >= 0], labels[dropped >= 0])


@pytest.mark.parametrize("field", ["prefixes_per_image", "targets_per_prefix"])
def test_refuses_densities_below_one(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: 0 given"):
        ObjectiveConfig(**{field: 0})


def test_refuses_impossible_dropout() -> None:
    with pytest.raises(ValueError, match="label_dropout: 1.5 given"):
        ObjectiveConfig(label_dropout=1.5)


def resolved(**settings: Any) -> ObjectiveConfig:
    return ObjectiveConfig(**settings).for_head("cross")


@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("near_share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("far_prefixes", [None, 2, 5])
def test_far_cells_are_unread_and_not_next(order: Any, near_share: float, far_prefixes: int | None) -> None:
    drawn = draw_supervision(
        resolved(token_order=order, far_cells=10 / N, near_share=near_share, far_prefixes=far_prefixes), H, W, KEYS
    )
    assert drawn.targets.shape == (6, N + 10, 1)
    next_cells = next_cell_supervision(drawn.token_order)
    assert torch.equal(drawn.prefix_lengths[:, :N], next_cells.prefix_lengths.expand(6, -1))
    assert torch.equal(drawn.targets[:, :N], next_cells.targets)
    for b in range(6):
        lengths, cells = drawn.prefix_lengths[b, N:].tolist(), drawn.targets[b, N:, 0].tolist()
        assert len(set(lengths)) <= (far_prefixes or 10)
        assert lengths == sorted(lengths), "one prefix of each part of the sequence"
        for t, cell in zip(lengths, cells, strict=True):
            sequence = drawn.token_order[b].tolist()
            assert cell in sequence[t + 1 :]
            near = [c for c in sequence[t + 1 :] if any(adjacent(c, read) for read in sequence[:t])]
            if near_share == 1 and near:
                assert cell in near


def adjacent(cell: int, other: int) -> bool:
    return max(abs(cell // W - other // W), abs(cell % W - other % W)) == 1


def test_far_cells_are_uniform() -> None:
    counts: Counter[int] = Counter()
    for epoch in range(400):
        keys = [(0, epoch, i) for i in range(5)]
        drawn = draw_supervision(resolved(far_cells=1.0), 1, 6, keys)  # strata of 5/6: prefixes 0, 0 or 1, ...
        rows = drawn.prefix_lengths[:, 6:] == 0
        counts.update(drawn.targets[:, 6:, 0][rows].tolist())
    total = sum(counts.values())
    assert set(counts) == {1, 2, 3, 4, 5}
    assert all(abs(count / total - 1 / 5) < 0.03 for count in counts.values())


@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_the_loss_is_next_plus_weighted_far(weight: float) -> None:
    """Both ways to have far cells: targets of every prefix, and cells of their own."""
    grid = GridSpec(H, W, 5)
    model = build_model(ModelConfig(width=32, depth=1, num_heads=2, head=HeadConfig("cross", 1)), grid, 0, 0)
    tokens = torch.randint(5, (6, N), generator=torch.Generator().manual_seed(0))
    for settings in ({"targets_per_prefix": 3}, {"far_cells": 0.5}):
        drawn = draw_supervision(resolved(token_order="random", far_weight=weight, **settings), H, W, KEYS)
        losses = model(tokens, None, drawn.token_order, drawn.prefix_lengths, drawn.targets).detach()
        if "far_cells" in settings:
            expected = losses[:, :N].mean((1, 2)) + weight * losses[:, N:].mean((1, 2))
        else:
            counts = (drawn.targets[..., 1:] != drawn.targets[..., :1]).float()  # the next cell again is padding
            others = (losses[..., 1:] * counts).sum(-1) / counts.sum(-1).clamp(min=1)
            expected = losses[..., 0].mean(1) + weight * others.mean(1)
        assert torch.allclose(objective_loss(model, tokens, None, drawn), expected, atol=1e-5)


def test_schedule_of_the_far_weight() -> None:
    config = resolved(far_warmup=0.25, far_decay=0.5)
    assert [config.far_scale(p) for p in (0.0, 0.2, 0.25, 0.5, 0.75, 1.0)] == [0, 0, 1, 1, 0.5, 0]
    assert resolved().far_scale(0.0) == resolved().far_scale(1.0) == 1
    only_next = draw_supervision(config, H, W, KEYS, far_scale=0.0)
    assert torch.equal(only_next.targets, next_cell_supervision(only_next.token_order).targets)
    half, whole = (draw_supervision(config, H, W, KEYS, far_scale=scale) for scale in (0.5, 1.0))
    assert torch.equal(half.targets, whole.targets)
    assert torch.allclose(half.weights[:, N:], whole.weights[:, N:] / 2)
    assert torch.equal(half.weights[:, :N], whole.weights[:, :N])


@pytest.mark.parametrize(
    ("kind", "prefixes", "targets", "far", "weight"),
    [
        ("cross", "all", 1, 0.25, 0.2),
        ("next_token", "all", 1, 0, None),
        ("global", 1, "all", 0, "uniform"),
        ("local", "all", 3, 0, "uniform"),
    ],
)
def test_unset_values_follow_the_head(kind: str, prefixes: Any, targets: Any, far: float, weight: Any) -> None:
    config = ObjectiveConfig().for_head(kind)
    found = (config.prefixes_per_image, config.targets_per_prefix, config.far_cells, config.far_weight)
    assert found == (prefixes, targets, far, weight)
    assert config.for_head(kind) == config
    facts = HEADS.get(kind)
    assert (facts.density, facts.separate_targets) == (
        HEADS.fact(kind, "density"),
        HEADS.fact(kind, "separate_targets"),
    )


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"far_weight": -1}, "cross", "far_weight: -1.0 given, must be at least 0"),
        ({"far_cells": 17}, "cross", "far_cells: 17.0 given, must be at least 0 and at most 16"),
        ({"far_weight": "even"}, "cross", "far_weight: 'even' given"),
        ({"far_weight": "uniform", "far_cells": 0.5}, "cross", "far_weight: uniform given"),
        ({"targets_per_prefix": 3, "far_warmup": 0.5}, "cross", "far_warmup: 0.5 given, but far_weight is uniform"),
        ({"far_warmup": 0.6, "far_decay": 0.6}, "cross", "together at most 1"),
        ({"far_cells": 0.5, "targets_per_prefix": 3}, "cross", "set targets_per_prefix to 1"),
        ({"far_cells": 0, "near_share": 0.5}, "cross", "near_share: 0.5 given, but far_cells is 0"),
        ({"near_share": 0.5}, "global", "near_share: 0.5 given, but far_cells is 0"),
        ({"far_decay": 0.5}, "next_token", "far_decay: 0.5 given, but far_weight is None"),
        ({"spread_share": 0.3}, "cross", "no groups of random size"),
        ({"far_cells": 0.5}, "global", "a global head does not predict them apart"),
        ({"far_weight": 0.5}, "next_token", "only next cells are supervised"),
    ],
)
def test_refuses_settings_without_effect(settings: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**settings).for_head(kind)


@pytest.mark.parametrize("token_order", ["raster", "random", "mixed"])
@pytest.mark.parametrize("group_size", [None, "random"])
def test_what_is_pinned_has_no_repeated_memory(
    token_order: str, group_size: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinning an expanded tensor fails on a GPU; here pinning only looks at what it gets."""
    seen: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        seen.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    config = ObjectiveConfig(token_order=token_order, group_size=group_size)  # type: ignore[arg-type]
    head = "group" if group_size else "cross"
    drawn = draw_supervision(config.for_head(head), 3, 4, [(0, 0, i) for i in range(5)])
    pinned = drawn.pin_memory()
    assert len(seen) == 4
    assert all(torch._debug_has_internal_overlap(tensor) == 0 for tensor in seen)
    for name in ("token_order", "prefix_lengths", "targets", "weights"):
        assert torch.equal(getattr(pinned, name), getattr(drawn, name))
