"""The proof that next-2D prediction learns what it says: likelihood and marginals against enumeration."""

from __future__ import annotations

import pytest
import torch

from tests.invariants.ising import Ising
from tests.invariants.oracle import KINDS, Training, measure, train

TRAINING = Training()


@pytest.mark.parametrize("kind", KINDS)
def test_learns_the_exact_distribution(kind: str) -> None:
    truth = Ising()
    found = measure(train(kind, truth, TRAINING), truth)
    print(f"{kind}: excess {found.excess:.4f}, {found}")
    assert found.nll - found.entropy > -0.02, "a model cannot be better than the truth"
    assert found.excess <= 0.01
    assert found.marginal_kl <= 0.02
    assert found.posterior_kl <= 0.02
    assert found.agreement >= 0.97
    assert found.mass_error < 0.01
    assert abs(found.mass - 1) <= 3 * found.mass_error


def test_enumeration_agrees_with_itself() -> None:
    truth = Ising()
    assert torch.allclose(truth.p.sum(1), torch.ones(2, dtype=torch.float64))
    labels, _, states = truth.sample(20_000, torch.Generator().manual_seed(3))
    for c in range(2):
        exact = truth.marginals(c, states[0], torch.tensor([], dtype=torch.long))
        assert torch.allclose(states[labels == c].double().mean(0), exact[:, 1], atol=0.03)
