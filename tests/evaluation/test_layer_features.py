"""Features of layers: against models cut off after the layer, and without a trace of the label."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from heptapod.evaluation.layer_features import check_unlabeled, layer_features, layer_names
from heptapod.grid import tokens_at
from heptapod.models import HeptapodModel
from heptapod.models.heads import CrossHead, LocalHead
from heptapod.objective import draw_token_order, next_cell_supervision
from heptapod.utils.random import KeyedGenerator, Stream
from tests.conftest import GRID, HEADS, VECTORS

Make = Callable[..., HeptapodModel]
N = GRID.num_cells
TOKENS = torch.randint(7, (9, N), generator=torch.Generator().manual_seed(0))


def order_of(kind: str) -> Tensor:
    return draw_token_order(kind, N, KeyedGenerator(Stream.EVALUATION, [(0, i) for i in range(9)]))  # type: ignore[arg-type]


def cut(model: HeptapodModel, part: str, depth: int) -> HeptapodModel:
    """A copy whose backbone or head ends after so many blocks, without the last norm."""
    model = copy.deepcopy(model)
    place = getattr(model, part)
    for name in ("blocks", "cross_blocks", "self_blocks"):
        if hasattr(place, name):
            setattr(place, name, getattr(place, name)[:depth])
    place.norm = nn.Identity()
    return model


def head_mean(model: HeptapodModel, kind: str, order: Tensor) -> Tensor:
    """What the head answers, averaged, by the way of the likelihood (global: once, after all tokens)."""
    if kind == "global":
        states = model.read(tokens_at(TOKENS, order), order, None)
        return model.head(states, torch.full((1, 1), N), order.unsqueeze(1)).mean((1, 2))
    ask = next_cell_supervision(order)
    return model.features(TOKENS, None, order, ask.prefix_lengths, ask.targets).mean((1, 2))


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("trained", ["raster", "random"])
def test_features_are_means_of_hidden_states(make_model: Make, kind: str, trained: str) -> None:
    model, order = make_model(kind), order_of(trained)
    found = layer_features(model, TOKENS, trained)  # type: ignore[arg-type]
    names = ["embedding", "backbone.1", "backbone.2", "backbone.norm", "head.1", "head.2", "head.norm"]
    assert list(found) == layer_names(model) == names
    assert all(each.shape == (9, 32) and each.dtype == torch.float32 for each in found.values())
    embedded = model.token_embedding(TOKENS) + model.cell_embedding(torch.arange(N)[None], GRID.height, GRID.width)
    expected = {"embedding": embedded.mean(1), "head.norm": head_mean(model, kind, order)}
    for depth in (1, 2):
        hidden = cut(model, "backbone", depth).read(tokens_at(TOKENS, order), order, None).hidden
        expected[f"backbone.{depth}"] = hidden[:, 1:].mean(1)
        expected[f"head.{depth}"] = head_mean(cut(model, "head", depth), kind, order)
    expected["backbone.norm"] = model.read(tokens_at(TOKENS, order), order, None).hidden[:, 1:].mean(1)
    for name in names:
        torch.testing.assert_close(found[name], expected[name], atol=2e-4, rtol=1e-4, msg=name)
        assert float(expected[name].std(0).mean()) > 0.01, "images differ"


def test_mixed_models_read_in_raster_order(make_model: Make) -> None:
    model = make_model("cross")
    mixed, raster, random = (layer_features(model, TOKENS, order) for order in ("mixed", "raster", "random"))  # type: ignore[arg-type]
    assert all(torch.equal(mixed[name], raster[name]) for name in mixed)
    assert not torch.allclose(random["backbone.norm"], raster["backbone.norm"], atol=1e-2)


@pytest.mark.parametrize("kind", HEADS)
def test_the_label_never_reaches_a_layer(make_model: Make, kind: str) -> None:
    model = make_model(kind)
    before = layer_features(model, TOKENS)
    with torch.no_grad():
        model.condition_embedding.weight[: model.num_classes] += 1
    after = layer_features(model, TOKENS)
    assert all(torch.equal(before[name], after[name]) for name in before)
    with torch.no_grad():
        model.condition_embedding.weight[model.num_classes] += 1
    moved = layer_features(model, TOKENS)
    assert all(torch.equal(before[name], moved[name]) == (name == "embedding") for name in before)


@pytest.mark.parametrize("order", ["raster", "random"])
def test_the_batch_size_does_not_show(make_model: Make, order: str) -> None:
    model = make_model("cross")
    whole, parts = (layer_features(model, TOKENS, order, batch_size=size) for size in (9, 4))  # type: ignore[arg-type]
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=1e-5, rtol=1e-5)


def test_hooks_are_removed(make_model: Make) -> None:
    def hooks(model: HeptapodModel) -> int:
        return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())

    model = make_model("local")
    layer_features(model, TOKENS)
    assert hooks(model) == 0
    with pytest.raises(IndexError):
        layer_features(model, TOKENS + 7)  # no such codes
    assert hooks(model) == 0


def test_layers_can_be_chosen(make_model: Make) -> None:
    model = make_model("cross")
    whole = layer_features(model, TOKENS)
    some = layer_features(model, TOKENS, layers=["head.1", "backbone.2"])
    assert list(some) == ["backbone.2", "head.1"]
    assert all(torch.equal(some[name], whole[name]) for name in some)
    asked: list[str] = []
    model.head.register_forward_hook(lambda *_: asked.append("head"))
    layer_features(model, TOKENS, layers=["backbone.1"])
    assert not asked, "a head whose layers are not wanted is not run"
    with pytest.raises(ValueError, match="layers: head.3 given, must be among embedding, backbone.1"):
        layer_features(model, TOKENS, layers=["head.3"])


def test_precision_is_float32_under_autocast(make_model: Make) -> None:
    model = make_model("cross")
    expected = layer_features(model, TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(each, expected[name]) for name, each in layer_features(model, TOKENS).items())


def test_continuous_tokens(make_model: Make) -> None:
    tokens = torch.randn(3, VECTORS.num_cells, 3, generator=torch.Generator().manual_seed(0))
    found = layer_features(make_model("cross", VECTORS), tokens)
    assert all(each.shape == (3, 32) and bool(each.isfinite().all()) for each in found.values())


class OwnHead(CrossHead):
    pass


class StrangeHead(nn.Module):
    window = None


def test_layers_of_other_heads(make_model: Make) -> None:
    model = make_model("cross")
    model.head = OwnHead(32, 1, 2, 100.0)
    assert layer_names(model)[-2:] == ["head.1", "head.norm"]
    model.head = StrangeHead()  # type: ignore[assignment]
    assert list(layer_features(model, TOKENS)) == ["embedding", "backbone.1", "backbone.2", "backbone.norm"]


def test_local_windows_count_their_next_cell_only(make_model: Make) -> None:
    """A window of one cell has nothing else: then all of its outputs are the next cell's."""
    model = make_model("local", window=1)
    assert isinstance(model.head, LocalHead)
    expected = head_mean(cut(model, "head", 1), "local", order_of("raster"))
    torch.testing.assert_close(layer_features(model, TOKENS)["head.1"], expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(("classes", "dropout"), [(0, 0.0), (0, None), (3, 0.1), (3, 1.0)])
def test_models_that_know_images_without_labels(classes: int, dropout: float | None) -> None:
    check_unlabeled(classes, dropout)


@pytest.mark.parametrize(("dropout", "message"), [(0.0, "never trained without the label"), (None, "not known")])
def test_models_that_do_not(dropout: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=f"label_dropout: .*{message}"):
        check_unlabeled(3, dropout)
