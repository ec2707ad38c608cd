from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from heptapod.models import HeptapodModel
from heptapod.sampling import Known, SamplingConfig, cells_per_step, sample_stream, sample_tokens
from heptapod.sampling.order import fill_order
from tests.conftest import GRID

N = GRID.num_cells
Make = Callable[..., HeptapodModel]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("cells", [1, 5, 49, 256])
def test_schedules_fill_the_grid(schedule: str, cells: int) -> None:
    for steps in {1, min(2, cells), cells // 3 or 1, cells}:
        counts = cells_per_step(SamplingConfig(steps=steps, schedule=schedule), cells)  # type: ignore[arg-type]
        assert len(counts) == steps
        assert sum(counts) == cells
        assert min(counts) >= 1
    if cells == 256:
        counts = cells_per_step(SamplingConfig(steps=16, schedule=schedule), cells)  # type: ignore[arg-type]
        assert counts == ([16] * 16 if schedule == "constant" else sorted(counts))


def test_cosine_schedule_follows_the_cosine() -> None:
    assert cells_per_step(SamplingConfig(steps=4), 100) == [8, 21, 33, 38]  # 100·(1 - cos(π/2 · i/4)), rounded


def test_list_schedule() -> None:
    assert cells_per_step(SamplingConfig(schedule=[1, 4, 5]), 10) == [1, 4, 5]
    for bad in ([1, 4], [0, 10], [11]):
        with pytest.raises(ValueError, match="schedule: "):
            cells_per_step(SamplingConfig(schedule=bad), 10)


@pytest.mark.parametrize("steps", [0, -1, 11])
def test_refuses_impossible_steps(steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps: {steps} given"):
        cells_per_step(SamplingConfig(steps=steps), 10)


def test_orders() -> None:
    raster = fill_order("raster", [0, 1], 2, 3)
    assert raster.tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    random = fill_order("random", [0, 1, 0], 5, 10)
    assert torch.equal(random[0], random[2])
    assert not torch.equal(random[0], random[1])
    known = torch.tensor([False, True, False, False, True, False])
    assert fill_order("raster", [0], 2, 3, known).tolist() == [[1, 4, 0, 2, 3, 5]]


@pytest.mark.parametrize("head", ["global", "cross"])
@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("steps", [1, 3, 8, N])
def test_stream(make_model: Make, head: str, order: str, steps: int) -> None:
    model = make_model(head)
    config = SamplingConfig(steps=steps, token_order=order)  # type: ignore[arg-type]
    trace = list(sample_stream(model, torch.tensor([0, 1]), [1, 2], config, belief=True))
    assert len(trace) == steps + 1
    for before, after in zip(trace, trace[1:], strict=False):
        filled = before.is_read.scatter(1, before.cells, True)
        assert torch.equal(filled, after.is_read), "a step fills the cells it names"
        assert torch.equal(before.tokens[before.is_read], after.tokens[before.is_read]), "and changes no other"
    for state in trace:
        assert state.believed is not None
        assert state.uncertainty is not None
        assert torch.equal(state.believed[state.is_read], state.tokens[state.is_read])
        assert (state.uncertainty[state.is_read] == 0).all()
        assert (state.uncertainty[~state.is_read] > 0).all()
    plain = sample_tokens(model, torch.tensor([0, 1]), [1, 2], config)
    uncached = sample_tokens(model, torch.tensor([0, 1]), [1, 2], config, use_cache=False)
    assert torch.equal(plain, trace[-1].tokens), "looking at the belief changes nothing"
    assert torch.equal(plain, uncached)


def test_belief_is_the_model_s_own_prediction(make_model: Make) -> None:
    model = make_model("cross")
    config = SamplingConfig(token_order="raster")
    state = list(sample_stream(model, torch.tensor([1]), [3], config, belief=True))[6]
    cells = torch.arange(N).unsqueeze(0)
    with torch.no_grad():
        states = model.read(state.tokens[:, :6], cells[:, :6], torch.tensor([1]))
        logits = model.distribution.logits(model.predict(states, cells[:, 6:]))
    assert state.believed is not None
    assert state.uncertainty is not None
    assert torch.equal(state.believed[:, 6:], logits.argmax(-1))
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(state.uncertainty[:, 6:], entropy, atol=1e-4)


@pytest.mark.parametrize("head", ["global", "local", "cross", "group", "next_token"])
@pytest.mark.parametrize("order", ["raster", "random"])
def test_known_cells_are_kept_and_matter(make_model: Make, head: str, order: str) -> None:
    model = make_model(head)
    known = torch.zeros(N, dtype=torch.bool)
    known[[0, 3, 7, 12, 13]] = True
    given = torch.randint(GRID.vocabulary_size, (9, N), generator=torch.Generator().manual_seed(0))
    config = SamplingConfig(token_order=order)  # type: ignore[arg-type]
    labels, seeds = torch.arange(9) % 3, range(5, 14)
    out = sample_tokens(model, labels, seeds, config, Known(given, known))
    assert torch.equal(out[:, known], given[:, known])
    other = given.clone()
    other[:, ~known] = 0
    assert torch.equal(out, sample_tokens(model, labels, seeds, config, Known(other, known))), (
        "only known cells are read"
    )
    other = (given + 1) % GRID.vocabulary_size
    assert not torch.equal(out[:, ~known], sample_tokens(model, labels, seeds, config, Known(other, known))[:, ~known])


def test_everything_known_leaves_nothing_to_do(make_model: Make) -> None:
    given = torch.ones(1, N, dtype=torch.long)
    out = sample_tokens(make_model("cross"), None, [0], SamplingConfig(), Known(given, torch.ones(N, dtype=torch.bool)))
    assert torch.equal(out, given)


def test_samples_follow_the_distribution(make_model: Make) -> None:
    """The first cell over many seeds has the frequencies of the model's own probabilities."""
    model = make_model("cross", num_classes=0)
    count = 4000
    with torch.no_grad():
        states = model.read(torch.zeros(1, 0, dtype=torch.long), torch.zeros(1, 0, dtype=torch.long), None)
        p = model.distribution.logits(model.predict(states, torch.tensor([[0]]))).softmax(-1).flatten()
    stream = sample_stream(model, None, range(count), SamplingConfig(token_order="raster"))
    next(stream)
    first = next(stream).tokens[:, 0]
    frequencies = torch.bincount(first, minlength=GRID.vocabulary_size) / count
    assert (frequencies - p).abs().max() < 4 * (0.25 / count) ** 0.5


def test_local_head_says_what_it_cannot_reach(make_model: Make) -> None:
    model = make_model("local", window=3)
    with pytest.raises(ValueError, match="local head's window of 3 reaches 1"):
        sample_tokens(model, None, [0], SamplingConfig(steps=2, token_order="raster"))
    sample_tokens(model, None, [0], SamplingConfig(steps=N, token_order="raster"))
    with pytest.raises(ValueError, match="belief over the whole grid"):
        list(sample_stream(model, None, [0], SamplingConfig(), belief=True))


def test_next_token_head_fills_one_cell_per_step(make_model: Make) -> None:
    with pytest.raises(ValueError, match=f"fills one cell per step: use {N}"):
        sample_tokens(make_model("next_token"), None, [0], SamplingConfig(steps=4))


@pytest.mark.parametrize(
    ("labels", "seeds", "message"),
    [
        ([1], [0, 1, 2], r"labels: \(1,\) given for 3 seeds, must be one per seed"),
        ([0, 1, 2], [0, 1], "labels: .* given for 2 seeds"),
        ([3], [0], r"labels: \[3\] given, must be between -1 \(no label\) and 2"),
        ([], [], "seeds: none given"),
    ],
)
def test_refuses_labels_that_do_not_go_with_the_seeds(
    make_model: Make, labels: list[int], seeds: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample_tokens(make_model("cross"), torch.tensor(labels), seeds, SamplingConfig())


def test_belief_at_chosen_steps_only(make_model: Make) -> None:
    trace = list(sample_stream(make_model("cross"), None, [0], SamplingConfig(steps=3), belief=[1, 3]))
    assert [state.believed is not None for state in trace] == [False, True, False, True]
    trace = list(sample_stream(make_model("cross"), None, [0], SamplingConfig(steps=3), belief=[]))
    assert all(state.believed is None for state in trace)
