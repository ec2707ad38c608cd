from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.configs.models import SIZES
from heptapod.configs.objective import ObjectiveConfig
from heptapod.distributions import DistributionConfig
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heads import Head, ReadStates
from heptapod.models.heads.local import window_cells
from heptapod.models.heptapod import build_model, parameters_by_part
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import Linear, RMSNorm, SwiGLU, linear
from heptapod.nn.rotary import CONDITION_CELL, rotary_2d, rotate
from heptapod.objective import draw_supervision, objective_loss
from heptapod.sampling import SamplingConfig, sample_tokens

Make = Callable[..., HeptapodModel]


def test_rotary_depends_on_distance_only() -> None:
    """q·k is a function of the row and column distance: the same after moving both cells."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator).double()

    def score(query_cell: int, key_cell: int) -> float:
        q = rotate(query, rotary_2d(torch.tensor([[query_cell]]), 5, 8, 16, 100.0))
        k = rotate(key, rotary_2d(torch.tensor([[key_cell]]), 5, 8, 16, 100.0))
        return float((q * k).sum())

    assert score(0, 8 + 2) == pytest.approx(score(3 * 8 + 1, 4 * 8 + 3), abs=1e-5)
    assert score(0, 8 + 2) != pytest.approx(score(0, 2 * 8 + 1), abs=1e-2)


def test_rotary_keeps_length_and_leaves_the_condition() -> None:
    x = torch.randn(2, 4, 3, 16, generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([[CONDITION_CELL, 0, 7, 13]]).expand(2, -1)
    turned = rotate(x, rotary_2d(cells, 3, 5, 16, 100.0))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(turned[:, :2], x[:, :2]), "the condition and cell 0 are not rotated"
    assert not torch.allclose(turned[:, 2:], x[:, 2:])


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 4), (1, 16), (33, 2), (0, 3)])
def test_the_product_of_sampling_is_that_of_training(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(*shape, 24, generator=generator), torch.randn(60, 24, generator=generator)
    bias = torch.randn(60, generator=generator)
    for rows, offset in ((weight, bias), (weight[20:40], bias[20:40]), (weight, None)):
        expected = F.linear(x, rows, offset)
        with torch.inference_mode():
            assert torch.allclose(linear(x, rows, offset), expected, atol=1e-5)
            turned = x.transpose(0, 1)
            assert torch.allclose(linear(turned, rows, offset), expected.transpose(0, 1), atol=1e-5)


def test_the_product_of_sampling_keeps_other_types() -> None:
    layer, x = Linear(16, 8), torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.float()(x).dtype == torch.bfloat16
        assert layer.double()(x.double()).dtype == torch.float64


def test_rms_norm_matches_its_formula() -> None:
    norm = RMSNorm(8)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)) * 5
    assert torch.allclose(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt(), atol=1e-6)
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_cache_never_reallocates_and_refuses_too_much() -> None:
    cache = KVCache(2, 1, 2, 4, 8, torch.device("cpu"), torch.float32)
    address = cache.keys.data_ptr()
    for _ in range(4):
        for layer in range(2):
            keys, _ = cache.layer(layer).append(torch.ones(1, 2, 1, 8), torch.ones(1, 2, 1, 8))
            assert keys.data_ptr() in (address, address + keys.stride(0) * 4)
        cache.advance(1)
    assert cache.keys.data_ptr() == address
    assert cache.length == 4
    with pytest.raises(AssertionError):
        cache.layer(0).append(torch.ones(1, 2, 1, 8), torch.ones(1, 2, 1, 8))


def test_window_cells() -> None:
    cells, inside = window_cells(torch.tensor([0, 6, 11]), 3, 4, 3)
    assert cells[1][inside[1]].tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert cells[0][inside[0]].tolist() == [0, 1, 4, 5]
    assert cells[2][inside[2]].tolist() == [6, 7, 10, 11]


def test_h_has_the_size_of_the_paper() -> None:
    """Heptapod-H: 941M parameters, 12 blocks of width 1,536 in the MLP of its cells of 16 channels."""
    cells = DistributionConfig("diffusion", modulation="joint")
    config = ModelConfig(size="H", head=HeadConfig("global"), distribution=cells)
    with torch.device("meta"):
        model = HeptapodModel(config, GridSpec(16, 16, channels=16), 1000)
    assert (config.distribution.mlp_depth, config.distribution.mlp_width) == (12, 1536)
    assert abs(parameters_by_part(model)["total"] / 941e6 - 1) < 0.01


def test_named_sizes() -> None:
    assert {name: (s.depth, s.head_depth, s.width, s.num_heads) for name, s in SIZES.items()} == {
        "tiny": (4, 2, 64, 2),
        "B": (12, 12, 768, 12),
        "L": (16, 16, 1024, 16),
        "H": (20, 20, 1280, 16),
    }
    config = ModelConfig(size="L", width=512, num_heads=8)
    assert (config.width, config.depth, config.head.depth) == (512, 16, 16)


def test_building_is_reproducible_and_touches_no_global_state() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = (build_model(ModelConfig(), GridSpec(4, 4, 8), 2, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_next_token_head_refuses_more_than_the_next_cell(make_model: Make) -> None:
    model = make_model("next_token")
    states = model.read(torch.zeros(1, 2, dtype=torch.long), torch.tensor([[0, 1]]), None)
    with pytest.raises(ValueError, match="targets_per_prefix: 2 given"):
        model.predict(states, torch.tensor([[2, 3]]))


@pytest.mark.parametrize("head", ["global", "local", "cross", "group", "next_token"])
def test_every_parameter_learns(head: str) -> None:
    """A gradient reaches every weight of every head."""
    from heptapod.configs.objective import ObjectiveConfig
    from heptapod.objective import draw_supervision, objective_loss

    model = build_model(ModelConfig(width=32, depth=2, num_heads=2, head=HeadConfig(head, 2)), GridSpec(4, 4, 8), 2, 0)  # type: ignore[arg-type]
    targets = 1 if head == "next_token" else 3
    drawn = draw_supervision(
        ObjectiveConfig("random", 6, targets), 4, 4, [(0, 0, i) for i in range(3)], model.head.window
    )
    tokens = torch.randint(8, (3, 16), generator=torch.Generator().manual_seed(0))
    objective_loss(model, tokens, torch.tensor([0, 1, -1]), drawn).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_compiled_model_gives_the_same_loss() -> None:
    from heptapod.configs.objective import ObjectiveConfig
    from heptapod.objective import draw_supervision, objective_loss

    model = build_model(
        ModelConfig(width=16, depth=1, num_heads=1, head=HeadConfig("cross", 1)), GridSpec(3, 3, 4), 0, 0
    )
    tokens = torch.randint(4, (2, 9), generator=torch.Generator().manual_seed(0))
    drawn = draw_supervision(ObjectiveConfig(), 3, 3, [(0, 0, 0), (0, 0, 1)])
    plain = objective_loss(model, tokens, None, drawn)
    model.compile()
    assert torch.allclose(plain, objective_loss(model, tokens, None, drawn), atol=1e-5)


class PointHead(Head):
    """Predicts every cell from the last state and the cell's position; not registered."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, 2, 100.0)
        self.norm, self.mlp = RMSNorm(width), SwiGLU(width)

    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        position = self.position(targets.flatten(1), states).unflatten(1, targets.shape[1:])
        x = states.at(prefix_lengths).unsqueeze(2) + position
        out: Tensor = x + self.mlp(self.norm(x))
        return out


def test_an_unregistered_head_learns() -> None:
    """Images whose cells are all alike: after the first cell, the others are certain."""
    torch.manual_seed(0)
    model = HeptapodModel(ModelConfig(width=64, depth=2, num_heads=2), GridSpec(4, 4, 2), 0, head=PointHead(64))
    assert not model.head_is_configured
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(300):
        tokens = (torch.rand(32, 1) < 0.5).long().expand(-1, 16)
        supervision = draw_supervision(ObjectiveConfig(), 4, 4, [(0, step, i) for i in range(32)])
        loss = objective_loss(model, tokens, None, supervision).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    samples = sample_tokens(model.eval(), None, seeds=range(8), config=SamplingConfig())
    assert sum(len(set(row)) == 1 for row in samples.tolist()) >= 6
