"""A second exact answer: three values, couplings that differ from bond to bond, and samples of the real sampler."""

from __future__ import annotations

import pytest
import torch

from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeptapodModel
from tests.invariants.oracle import KINDS, Training, measure, pair_error, train
from tests.invariants.potts import CLASSES, VALUES, N, Potts

SAMPLES = 20_000
TRAINING = Training(steps=3000, ema_decay=0.998, prefixes="all")


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> tuple[HeptapodModel, Potts]:
    truth = Potts()
    return train(request.param, truth, TRAINING), truth


def test_learns_the_exact_distribution(trained: tuple[HeptapodModel, Potts]) -> None:
    found = measure(*trained)
    print(f"excess {found.excess:.4f}, {found}")
    assert found.nll - found.entropy > -0.02, "a model cannot be better than the truth"
    assert found.excess <= 0.02
    assert found.marginal_kl <= 0.01
    assert found.posterior_kl <= 0.02
    assert abs(found.mass - 1) <= 3 * found.mass_error


def test_probabilities_of_all_states_sum_to_one(trained: tuple[HeptapodModel, Potts]) -> None:
    model, truth = trained
    for c in range(CLASSES):
        labels = torch.full((len(truth.states),), c)
        nll = negative_log_likelihood(model, truth.states, labels, "raster", batch_size=1024).double() * N
        assert float((-nll).exp().sum()) == pytest.approx(1, abs=1e-4)


def test_samples_have_the_exact_pairs(trained: tuple[HeptapodModel, Potts]) -> None:
    """Samples of the truth itself are 0.007 to 0.011 off."""
    found = pair_error(*trained, SAMPLES)
    print(f"pairs {found:.4f}")
    assert found <= 0.02


def test_enumeration_agrees_with_itself() -> None:
    truth = Potts()
    assert len(truth.states) == len(truth.states.unique(dim=0)) == VALUES**N == 19_683
    assert torch.allclose(truth.p.sum(1), torch.ones(CLASSES, dtype=torch.float64))
    state = truth.states[12_345]
    bonds = sum(float(truth.couplings[k, state[i], state[j]]) for k, (i, j) in enumerate(truth.bonds))
    field = [sum(float(truth.field[c, cell, state[cell]]) for cell in range(N)) for c in range(CLASSES)]
    assert torch.allclose(truth.energy(state.unsqueeze(0))[:, 0], bonds + torch.tensor(field, dtype=torch.float64))
    assert len(truth.bonds) == 12
    assert not torch.allclose(truth.couplings, truth.couplings.mT)
    labels, _, states = truth.sample(20_000, torch.Generator().manual_seed(3))
    for c in range(CLASSES):
        exact = truth.pair_marginals(c)
        drawn = torch.nn.functional.one_hot(states[labels == c], VALUES).double()
        assert torch.allclose(torch.einsum("snv,smw->nvmw", drawn, drawn) / len(drawn), exact, atol=0.03)
        single = truth.marginals(c, states[0], torch.tensor([], dtype=torch.long))
        assert torch.allclose(exact.diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1), single)


def test_marginals_after_reading_are_ratios_of_pairs() -> None:
    truth = Potts()
    pairs = truth.pair_marginals(1)
    for cell in range(N):
        state = truth.states[4321]
        expected = pairs[cell, state[cell]] / pairs[cell, state[cell], cell, state[cell]]
        assert torch.allclose(truth.marginals(1, state, torch.tensor([cell])), expected)
