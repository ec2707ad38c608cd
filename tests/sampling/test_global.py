"""What the global head saves: its last block for the asked cells only, and the states of read cells on request."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.nn.layers import SelfBlock
from heptapod.nn.rotary import rotary_2d
from heptapod.sampling import SamplingConfig, sample_stream, sample_tokens
from tests.conftest import GRID, randomized

N = GRID.num_cells


def of_depth(depth: int) -> HeptapodModel:
    config = ModelConfig(width=32, depth=2, num_heads=2, head=HeadConfig("global", depth))
    return randomized(build_model(config, GRID, 3, 0))


def test_some_outputs_of_a_block_are_those_of_all() -> None:
    block = SelfBlock(32, 2)
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    cells, tokens = torch.arange(6).expand(2, -1), torch.tensor([[5, 0, 0], [2, 3, 1]])
    rotary = rotary_2d(cells, 2, 3, 16, 100.0)
    some = block(x, rotary, only=(tokens, rotary_2d(tokens, 2, 3, 16, 100.0)))
    assert torch.allclose(some, block(x, rotary).gather(1, tokens.unsqueeze(-1).expand(-1, -1, 32)), atol=1e-6)


def features(model: HeptapodModel, approximate: bool, steps: list[int]) -> list[torch.Tensor]:
    """Features of all unread cells after each of several steps over given tokens in random order."""
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1)).expand(2, -1)
    tokens = torch.randint(GRID.vocabulary_size, (2, N), generator=torch.Generator().manual_seed(2))
    cache = model.new_cache(2, approximate_head=approximate)
    out, read = [], 0
    with torch.inference_mode():
        states = model.read_condition(cache, torch.tensor([0, 1]))
        for count in steps:
            out.append(model.predict(states, order[:, read:], cache))
            assert torch.allclose(out[-1], model.predict(states, order[:, read:], cache), atol=1e-6), "asked twice"
            cells = order[:, read : read + count]
            states = model.read_more(cache, tokens.gather(1, cells), cells)
            read += count
    return out


@pytest.mark.parametrize("steps", [[1] * N, [3, 5, 12]])
def test_one_block_is_exact(steps: list[int]) -> None:
    """What the keys of a first block are made of never changes, so a head of one block has nothing to approximate."""
    for exact, kept in zip(features(of_depth(1), False, steps), features(of_depth(1), True, steps), strict=True):
        assert torch.allclose(exact, kept, atol=1e-5)


def test_the_first_step_of_a_deep_head_is_exact_and_later_ones_are_not() -> None:
    exact, kept = (features(of_depth(3), approximate, [4, 8, 8]) for approximate in (False, True))
    assert torch.allclose(exact[0], kept[0], atol=1e-5)
    assert torch.allclose(exact[1], kept[1], atol=1e-5), "cells read now see the same unread ones"
    assert not torch.allclose(exact[2], kept[2], atol=1e-3)


def test_it_is_asked_for_by_name(make_model: Callable[..., HeptapodModel]) -> None:
    config = SamplingConfig(steps=5, approximate_head=True)
    tokens = sample_tokens(make_model("global"), None, [0, 1], config)
    assert torch.equal(tokens, list(sample_stream(make_model("global"), None, [0, 1], config, belief=True))[-1].tokens)
    assert not torch.equal(tokens, sample_tokens(make_model("global"), None, [0, 1], SamplingConfig(steps=5)))
    with pytest.raises(ValueError, match="approximate_head: given, but sampling with a CrossHead is exact"):
        sample_tokens(make_model("cross"), None, [0], config)


@pytest.mark.parametrize(("head", "approximate"), [("cross", False), ("global", True)])
def test_compiled_blocks_draw_the_same_tokens(head: str, approximate: bool) -> None:
    config = ModelConfig(width=16, depth=2, num_heads=1, head=HeadConfig(head, 2))  # type: ignore[arg-type]
    model = randomized(build_model(config, GRID, 3, 0))
    way = SamplingConfig(steps=N if head == "cross" else 3, approximate_head=approximate)
    plain = sample_tokens(model, torch.tensor([0, 1]), [1, 2], way)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.compile_blocks()
    assert torch.equal(plain, sample_tokens(model, torch.tensor([0, 1]), [1, 2], way))
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < graphs <= 6, "one program for all layers and lengths"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_no_step_waits_and_compiled_blocks_agree() -> None:
    config = ModelConfig(width=32, depth=2, num_heads=2, head=HeadConfig("cross", 2))
    model = randomized(build_model(config, GRID, 3, 0)).cuda()
    labels, way = torch.tensor([0, 1]), SamplingConfig(steps=6)
    plain = sample_tokens(model, labels, [1, 2], way)
    stream = sample_stream(model, labels, [1, 2], way)
    next(stream)
    torch.cuda.set_sync_debug_mode("error")
    try:
        *_, last = stream
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(last.tokens, plain)
    model.compile_blocks()
    assert torch.equal(sample_tokens(model, labels, [1, 2], way), plain)
