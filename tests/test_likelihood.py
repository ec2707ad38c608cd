"""Likelihood over several orders and of pixels; what was not trained is refused. (Also test_evaluation.py.)"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from heptapod import Heptapod
from heptapod.grid import GridSpec
from heptapod.likelihood import (
    bits_per_dimension,
    dimensions,
    far_cell_nats,
    negative_log_likelihood,
    trained_order,
)
from heptapod.models import HeptapodModel
from heptapod.tokenizers import PixelConfig, VQConfig, build_tokenizer
from heptapod.tokenizers.base import to_uint8
from heptapod.tokenizers.encode import encode_pixels
from tests.conftest import GRID, VECTORS

Make = Callable[..., HeptapodModel]
SMALL = GridSpec(2, 2, 3)


def every_grid() -> Tensor:
    """All 81 token grids of 2×2 cells with 3 codes."""
    return torch.tensor(list(itertools.product(range(3), repeat=4)))


def nats(model: HeptapodModel, label: int, order: str = "random", orders: int = 1, number: int = 0) -> Tensor:
    """−log p of every grid in nats, all read in the order(s) of one image number."""
    x = every_grid()
    same = torch.full((len(x),), number)
    labels = torch.full((len(x),), label)
    return 4 * negative_log_likelihood(model, x, labels, order, numbers=same, orders=orders).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [-1, 0, 2])
@pytest.mark.parametrize(("order", "orders"), [("raster", 1), ("random", 1), ("random", 4), ("mixed", 3)])
def test_likelihoods_of_all_grids_sum_to_one(make_model: Make, label: int, order: str, orders: int) -> None:
    model = make_model("cross", SMALL)
    for number in (0, 5):
        assert float((-nats(model, label, order, orders, number)).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_several_orders_are_the_mean_of_p(make_model: Make) -> None:
    """And not of log p, whose exponentials sum to less than one; the first of more orders are those of fewer."""
    model = make_model("cross", SMALL)
    p = [(-nats(model, 1, orders=k)).exp() for k in (1, 2, 3)]
    second, third = 2 * p[1] - p[0], 3 * p[2] - 2 * p[1]
    each = torch.stack([p[0], second, third])
    assert (each > 0).all()
    assert torch.allclose(each.sum(1), torch.ones(3, dtype=torch.float64), atol=1e-5)
    assert (each[0] - each[1]).abs().max() > 1e-4
    assert float(each.log().mean(0).exp().sum()) < 1 - 1e-4


@pytest.mark.parametrize("head", ["global", "cross", "group"])
def test_far_cells_are_given_the_prefix_alone(make_model: Make, head: str) -> None:
    """Of two cells, the far one is the second, given nothing."""
    model = make_model(head, GridSpec(1, 2, 3))
    x = torch.tensor(list(itertools.product(range(3), repeat=2)))
    far = far_cell_nats(model, x, None, "raster").view(3, 3)  # by the first cell and the second
    assert torch.allclose(far, far[:1].expand(3, 3), atol=1e-6)
    assert float((-far[0].double()).exp().sum()) == pytest.approx(1, abs=1e-5)
    assert far[0].max() - far[0].min() > 1e-3


def test_far_cells_of_a_larger_grid(make_model: Make) -> None:
    """Every one of the N-1 is unread and not the next, and its nats are those of the belief after its prefix."""
    model = make_model("cross", SMALL)
    x = every_grid()[40:41]
    beliefs = []
    for prefix in range(3):
        states = model.read(x[:, :prefix], torch.arange(prefix).view(1, -1), None)
        cells = torch.arange(prefix + 1, 4).view(1, -1)
        logits = model.distribution.logits(model.predict(states, torch.cat([torch.tensor([[prefix]]), cells], 1)))
        log_p = logits.log_softmax(-1)[0, 1:]
        beliefs.append(-log_p[torch.arange(len(log_p)), x[0, prefix + 1 :]])
    found = 3 * float(far_cell_nats(model, x, None, "raster"))
    sums = [float(sum(choice)) for choice in itertools.product(*(belief.tolist() for belief in beliefs))]
    assert min(abs(found - one) for one in sums) < 1e-4
    assert max(sums) - min(sums) > 0.01, "so that the choice matters"
    with pytest.raises(ValueError, match="NextTokenHead given, but it does not predict the whole grid"):
        far_cell_nats(make_model("next_token", SMALL), x, None)


def test_seed_and_number_key_the_order(make_model: Make) -> None:
    model = make_model("cross")
    tokens = torch.randint(7, (6, GRID.num_cells), generator=torch.Generator().manual_seed(0))

    def measured(**options: object) -> Tensor:
        return negative_log_likelihood(model, tokens, None, "random", **options)  # type: ignore[arg-type]

    plain = measured(orders=2)
    assert torch.allclose(plain, measured(orders=2, batch_size=4), atol=1e-5)
    assert not torch.allclose(plain, measured(orders=2, seed=1), atol=1e-3)
    moved = negative_log_likelihood(model, tokens[3:], None, "random", numbers=torch.arange(3, 6), orders=2)
    assert torch.allclose(plain[3:], moved, atol=1e-5)


@pytest.mark.parametrize(
    ("trained", "allowed"),
    [("raster", ["raster"]), ("random", ["random"]), ("mixed", ["raster", "random", "mixed"])],
)
def test_only_trained_orders(make_model: Make, trained: str, allowed: list[str]) -> None:
    heptapod = Heptapod(
        make_model("cross"), build_tokenizer(PixelConfig(levels=7)), list("abc"), trained  # type: ignore[arg-type]
    )  # fmt: skip
    images = torch.randint(256, (5, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert trained_order(None, trained) == trained  # type: ignore[arg-type]
    tokens = heptapod.encode(images, 2)
    for order in ("raster", "random", "mixed"):
        if order in allowed:
            found = heptapod.negative_log_likelihood(images, [0, 1, 2, 0, 1], 2, token_order=order)  # type: ignore[arg-type]
            labels = torch.tensor([0, 1, 2, 0, 1])
            assert torch.allclose(found, negative_log_likelihood(heptapod.model, tokens, labels, order), atol=1e-5)  # type: ignore[arg-type]
        else:
            message = f"token_order: {order} given, but the model was trained on {trained} order; must be {trained}"
            with pytest.raises(ValueError, match=message):
                heptapod.negative_log_likelihood(images, token_order=order)  # type: ignore[arg-type]


def test_refusals(make_model: Make) -> None:
    model, tokens = make_model("cross"), torch.zeros(2, 20, dtype=torch.long)
    with pytest.raises(ValueError, match="orders: 2 given, but there is only one raster order"):
        negative_log_likelihood(model, tokens, None, "raster", orders=2)
    with pytest.raises(ValueError, match="orders: 0 given, must be at least 1"):
        negative_log_likelihood(model, tokens, None, "random", orders=0)
    with pytest.raises(ValueError, match="batch_size: 0 given, must be at least 1"):
        negative_log_likelihood(model, tokens, None, batch_size=0)
    diffusion = make_model("cross", VECTORS, distribution="diffusion")
    with pytest.raises(ValueError, match="DiffusionDistribution has no likelihood; flow and categorical"):
        negative_log_likelihood(diffusion, torch.zeros(1, 20, 3), None)


def pictures_on(levels: int, color: bool = False) -> tuple[Tensor, Tensor, GridSpec]:
    """Random codes of a pixel tokenizer on 4×5 cells, and the pictures they stand for."""
    tokenizer = build_tokenizer(PixelConfig(levels=levels, color=color))
    grid = tokenizer.grid(4, 5)
    codes = torch.randint(grid.vocabulary_size, (6, 20), generator=torch.Generator().manual_seed(0))
    return codes, to_uint8(tokenizer.decode(codes, grid)), grid


@pytest.mark.parametrize(("levels", "color", "numbers"), [(256, False, 20), (7, False, 20), (5, True, 60)])
def test_bits_per_dimension(levels: int, color: bool, numbers: int) -> None:
    codes, images, grid = pictures_on(levels, color)
    tokenizer = build_tokenizer(PixelConfig(levels=levels, color=color))
    assert torch.equal(encode_pixels(tokenizer, images, 4), codes), "nothing is lost"
    assert dimensions(images) == numbers
    uniform = torch.full((6,), math.log(grid.vocabulary_size))
    bits = bits_per_dimension(tokenizer, grid, images, codes, uniform, batch_size=4)
    expected = math.log2(levels)  # the same for the three channels of a color as for a gray level
    assert torch.allclose(bits, torch.full((6,), expected, dtype=torch.float64), atol=1e-5)


def test_bits_per_dimension_are_refused_where_something_is_lost() -> None:
    codes, images, grid = pictures_on(7)
    tokenizer = build_tokenizer(PixelConfig(levels=7))
    off = images.clone()
    off[5, :, 3, 4] ^= 1
    assert torch.equal(encode_pixels(tokenizer, off, 4), codes), "rounded away"
    with pytest.raises(ValueError, match="not all pixels lie on the levels of the tokenizer"):
        bits_per_dimension(tokenizer, grid, off, codes, torch.ones(6), batch_size=4)
    vq = build_tokenizer(VQConfig(width=8, codebook_size=7, code_width=4))
    with pytest.raises(ValueError, match="VQTokenizer loses detail"):
        bits_per_dimension(vq, GRID, torch.zeros(1, 3, 16, 20, dtype=torch.uint8), codes[:1], torch.ones(1))
