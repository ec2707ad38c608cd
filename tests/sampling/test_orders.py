"""Spiral and confidence, and what the sampler tells about its steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from heptapod.grid import GridSpec
from heptapod.models import HeptapodModel
from heptapod.sampling import Known, SamplingConfig, sample_stream, sample_tokens
from heptapod.sampling.order import fill_order, spiral, split_by_confidence
from tests.conftest import GRID, VECTORS

N = GRID.num_cells
Make = Callable[..., HeptapodModel]
EVERY_ORDER = ["raster", "random", "spread", "spiral", "confidence"]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 1), (2, 2), (3, 3), (4, 5), (7, 7), (16, 8)])
def test_a_spiral_visits_every_cell_ring_by_ring(height: int, width: int) -> None:
    order = spiral(height, width)
    assert sorted(order.tolist()) == list(range(height * width))
    rows, columns = order // width, order % width
    from_edge = torch.stack([rows, columns, height - 1 - rows, width - 1 - columns]).amin(0)
    assert (from_edge.diff() <= 0).all(), "outwards"
    inside_a_ring = from_edge.diff() == 0
    steps = rows.diff().abs() + columns.diff().abs()
    assert (steps[inside_a_ring] == 1).all(), "to a neighbor"


def test_the_spiral_of_nine_cells() -> None:
    assert spiral(3, 3).tolist() == [4, 1, 2, 5, 8, 7, 6, 3, 0]


def test_known_cells_come_first_in_a_spiral() -> None:
    known = torch.zeros(9, dtype=torch.bool)
    known[[0, 8]] = True
    assert fill_order("spiral", [3], 3, 3, known).tolist() == [[8, 0, 4, 1, 2, 5, 7, 6, 3]]


def test_the_most_certain_cells_are_chosen_and_ties_keep_raster_order() -> None:
    unread = torch.tensor([[2, 5, 7, 9]])
    cells, places, rest = split_by_confidence(unread, torch.tensor([[0.5, 0.1, 0.9, 0.1]]), 3)
    assert (cells.tolist(), places.tolist(), rest.tolist()) == ([[5, 9, 2]], [[1, 3, 0]], [[7]])


@pytest.mark.parametrize("head", ["global", "cross"])
@pytest.mark.parametrize("steps", [5, N])
def test_confidence_takes_the_cells_of_least_entropy(make_model: Make, head: str, steps: int) -> None:
    config = SamplingConfig(steps=steps, token_order="confidence", schedule="constant")
    for state in sample_stream(make_model(head), torch.tensor([0, 2]), [1, 2], config, belief=True):
        assert state.uncertainty is not None
        entropy = state.uncertainty.masked_fill(state.is_read, torch.inf)
        chosen = entropy.gather(1, state.cells)
        assert (chosen.diff(dim=1) >= 0).all(), "the most certain is read first"
        left = entropy.scatter(1, state.cells, torch.inf)
        if state.cells.shape[1]:
            assert (chosen.amax(1) <= left.amin(1) + 1e-5).all()


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_confidence_of_vectors(make_model: Make, kind: str) -> None:
    model = make_model("cross", VECTORS, distribution=kind)
    config = SamplingConfig(steps=4, token_order="confidence", cell_steps=3)
    labels = torch.tensor([0, 1, 2])
    together = sample_tokens(model, labels, [4, 5, 6], config)
    for row in range(3):
        alone = sample_tokens(model, labels[row : row + 1], [4 + row], config)
        assert torch.allclose(alone, together[row : row + 1], atol=1e-5 * float(together.abs().max()))
    cold = SamplingConfig(steps=4, token_order="confidence", cell_steps=3, temperature=0)
    states = list(sample_stream(model, labels, [4, 5, 6], cold))
    assert not torch.equal(states[0].cells[0], states[0].cells[1]), "without noise the order is still the model's"


@pytest.mark.parametrize("head", ["local", "next_token"])
def test_confidence_needs_a_head_that_sees_the_grid(make_model: Make, head: str) -> None:
    with pytest.raises(ValueError, match="token_order: confidence given, but it needs a cross, global or group head"):
        sample_tokens(make_model(head), None, [0], SamplingConfig(token_order="confidence"))


@pytest.mark.parametrize("order", EVERY_ORDER)
def test_known_cells_are_kept_in_every_order(make_model: Make, order: str) -> None:
    mask = torch.zeros(N, dtype=torch.bool)
    mask[[1, 6, 19]] = True
    given = torch.randint(GRID.vocabulary_size, (2, N), generator=torch.Generator().manual_seed(0))
    config = SamplingConfig(steps=6, token_order=order)  # type: ignore[arg-type]
    states = list(sample_stream(make_model("cross"), torch.tensor([0, 1]), [1, 2], config, Known(given, mask)))
    assert torch.equal(states[-1].tokens[:, mask], given[:, mask])
    assert torch.equal(states[0].is_read, mask.expand(2, -1))
    assert sorted(states[-1].prefix[0].tolist()) == list(range(N))


@pytest.mark.parametrize("order", EVERY_ORDER)
def test_a_stream_tells_prefix_cells_and_values(make_model: Make, order: str) -> None:
    config = SamplingConfig(steps=7, token_order=order)  # type: ignore[arg-type]
    model, labels = make_model("cross"), torch.tensor([0, 1])
    states = list(sample_stream(model, labels, [1, 2], config))
    assert torch.equal(states[-1].tokens, sample_tokens(model, labels, [1, 2], config))
    for state, after in zip(states, states[1:], strict=False):
        assert torch.equal(after.prefix, torch.cat([state.prefix, state.cells], dim=1))
        assert torch.equal(after.tokens.gather(1, state.cells), state.values)
        assert torch.equal(torch.zeros_like(state.is_read).scatter(1, state.prefix, True), state.is_read)


class HostReads(TorchDispatchMode):
    """Counts the numbers that Python asks of a tensor: on a GPU each waits for all work before it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("order", EVERY_ORDER)
@pytest.mark.parametrize(("grid", "head"), [(GRID, "cross"), (GRID, "global"), (VECTORS, "cross")])
def test_no_step_waits_for_a_number(make_model: Make, grid: GridSpec, head: str, order: str) -> None:
    config = SamplingConfig(steps=6, token_order=order, cell_steps=None if grid.is_discrete else 3)  # type: ignore[arg-type]
    stream = sample_stream(make_model(head, grid), torch.tensor([0, 1]), [1, 2], config)
    next(stream)
    with HostReads() as reads:
        for _ in stream:
            pass
    assert reads.count == 0
    with HostReads() as reads:
        assert float(torch.ones(1)) == 1
    assert reads.count == 1


def test_caches_are_allocated_once(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = make_model("cross"), []
    new_cache = model.new_cache
    monkeypatch.setattr(model, "new_cache", lambda *args, **kwargs: made.append(new_cache(*args, **kwargs)) or made[-1])

    def buffers() -> list[int]:
        (cache,) = made
        assert cache.head is not None
        held: list[Tensor] = [cache.backbone.keys, cache.backbone.values, cache.head.keys, cache.head.values]
        return [tensor.data_ptr() for tensor in (*held, cache.hidden, cache.cells)]

    stream = sample_stream(model, None, [0], SamplingConfig(steps=5))
    next(stream)
    before = buffers()
    assert len(list(stream)) == 5
    assert buffers() == before


@pytest.mark.parametrize("order", EVERY_ORDER)
def test_64_seeds_in_batches_of_1_and_32(make_model: Make, order: str) -> None:
    model = make_model("cross")
    config = SamplingConfig(steps=4, token_order=order)  # type: ignore[arg-type]
    labels = torch.arange(64) % 3
    many = [sample_tokens(model, labels[i : i + 32], range(i, i + 32), config) for i in (0, 32)]
    single = [sample_tokens(model, labels[i : i + 1], [i], config) for i in range(64)]
    assert torch.equal(torch.cat(many), torch.cat(single))
