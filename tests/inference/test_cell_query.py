"""What a cell could become: the very distribution that sampling draws from, for every head."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from heptapod.grid import GridSpec
from heptapod.inference.cell_query import ask_cell, cell_surroundings
from heptapod.models import HeptapodModel
from heptapod.sampling import Known
from tests.conftest import GRID, HEADS, VECTORS
from tests.inference.test_pipeline import bundle

Make = Callable[..., HeptapodModel]
CELLS = [7, 2, 19]
VALUES = torch.tensor([1, 6, 3])


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_are_those_of_the_model(make_model: Make, head: str) -> None:
    heptapod = bundle(make_model(head))
    found = ask_cell(heptapod, 11, "dog", CELLS, VALUES, top=99, temperature=1.0)
    model, cell = heptapod.model, torch.tensor([[11]])
    with torch.no_grad():
        states = model.read(VALUES[None], torch.tensor([CELLS]), torch.tensor([heptapod.class_names.index("dog")]))
        features = model.predict(states, cell)
        expected = torch.stack([model.distribution.log_prob(features, torch.full((1, 1), code)) for code in range(7)])
    assert found.probabilities is not None
    by_code = torch.zeros(7).scatter(0, found.values, found.probabilities)
    assert torch.allclose(by_code, expected.exp().flatten(), atol=1e-6)
    assert found.rest == pytest.approx(0, abs=1e-6)
    assert found.probabilities.tolist() == sorted(found.probabilities.tolist(), reverse=True)
    assert found.uncertainty == pytest.approx(float(-(expected.exp() * expected).sum()), abs=1e-5)


def test_it_is_what_a_step_draws_from(make_model: Make) -> None:
    """Of 600 seeds in one and the same state: the share of every code lies within four standard errors."""
    heptapod = bundle(make_model("cross"))
    found = ask_cell(heptapod, 0, 1, temperature=0.8, top=7)
    assert found.probabilities is not None
    (first, *_) = heptapod.stream([1] * 600, seed=0, temperature=0.8, belief=False)
    assert (first.cells == 0).all()
    shares = torch.bincount(first.values[:, 0], minlength=7) / 600
    for code, chance in zip(found.values.tolist(), found.probabilities.tolist(), strict=True):
        assert abs(float(shares[code]) - chance) <= 4 * (chance * (1 - chance) / 600) ** 0.5 + 1e-3


def test_settings_narrow_it(make_model: Make) -> None:
    heptapod = bundle(make_model("global"))
    assert len(ask_cell(heptapod, 3, 0, top=99, top_k=3).values) == 3
    sure = ask_cell(heptapod, 3, 0, temperature=0)
    assert sure.probabilities is not None
    assert sure.probabilities.tolist() == [1.0]
    few = ask_cell(heptapod, 3, 0, top=2)
    assert few.probabilities is not None
    assert few.rest == pytest.approx(1 - float(few.probabilities.sum()))


def test_images_show_the_candidates_among_what_is_believed(make_model: Make) -> None:
    heptapod = bundle(make_model("cross"))
    found = ask_cell(heptapod, 11, "dog", CELLS, VALUES, top=4)
    assert torch.equal(found.tokens[:, 11], found.values)
    assert (found.tokens[:, CELLS] == VALUES).all()
    others = [cell for cell in range(20) if cell != 11]
    assert (found.tokens[:, others] == found.tokens[:1, others]).all()
    known = Known(
        found.tokens[:1],
        torch.zeros(20, dtype=torch.bool).index_fill(0, torch.tensor(CELLS), True),
        torch.tensor(CELLS),
    )
    step = next(iter(heptapod.stream(["dog"], belief=True, known=known)))
    assert step.believed is not None
    assert torch.equal(step.prefix, torch.tensor([CELLS]))
    assert torch.equal(step.believed[0, others], found.tokens[0, others])


def test_vectors_have_a_mean_and_a_spread(make_model: Make) -> None:
    heptapod = bundle(make_model("cross", VECTORS))
    values = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    found = ask_cell(heptapod, 11, "dog", CELLS, values, top=5, seed=4)
    assert found.values.shape == (6, 3)
    assert found.probabilities is None
    assert found.mean is not None
    assert found.spread is not None
    assert torch.equal(found.values[0], found.mean)
    assert found.uncertainty == pytest.approx(float(found.spread.square().mean().sqrt()))
    again = ask_cell(heptapod, 11, "dog", CELLS, values, top=5, seed=4)
    assert torch.equal(found.values, again.values)
    other = ask_cell(heptapod, 11, "dog", CELLS, values, top=5, seed=5)
    assert not torch.equal(found.values[1:], other.values[1:])
    assert float(ask_cell(heptapod, 11, "dog", CELLS, values, temperature=0).spread.max()) < 1e-6  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("cell", "cells", "values", "message"),
    [
        (20, CELLS, VALUES, "cells: 20 given, must be between 0 and 19"),
        (7, CELLS, VALUES, "cell: 7 given, but it is read already"),
        (0, [1, 1], VALUES[:2], "cells: one is named twice"),
        (0, CELLS, VALUES[:2], "values: .* given for 3 cells"),
        (0, CELLS, None, "values: none given for 3 cells"),
        (0, CELLS, VALUES.float(), "values: .* of torch.float32 given"),
    ],
)
def test_mistakes(make_model: Make, cell: int, cells: list[int], values: torch.Tensor | None, message: str) -> None:
    heptapod = bundle(make_model("cross"))
    with pytest.raises(ValueError, match=message):
        ask_cell(heptapod, cell, 0, cells, values)
    with pytest.raises(ValueError, match="top: 0 given"):
        ask_cell(heptapod, 0, 0, top=0)


def test_surroundings_end_at_the_border(make_model: Make) -> None:
    heptapod = bundle(make_model("cross", GridSpec(4, 5, 7)))
    heptapod.tokenizer.factor = 4
    assert GRID.width == 5
    assert cell_surroundings(heptapod, 0) == (slice(0, 8), slice(0, 8), (0, 0))
    assert cell_surroundings(heptapod, 7) == (slice(0, 12), slice(4, 16), (4, 4))
    assert cell_surroundings(heptapod, 19) == (slice(8, 16), slice(12, 20), (4, 4))
