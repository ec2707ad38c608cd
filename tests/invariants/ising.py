"""A 4×4 Ising model whose 65,536 states are enumerated."""

from __future__ import annotations

import numpy as np
import torch

from tests.invariants.enumerated import Enumerated, all_states

SIDE = 4
N = SIDE * SIDE
COUPLING = 0.4
FIELD = 0.3
CLASSES = 2


class Ising(Enumerated):
    """p(x | c) ∝ exp(0.4 Σ_<ij> s_i s_j + Σ_i f_c,i s_i) with s = 2x - 1 and free borders."""

    def __init__(self, seed: int = 0) -> None:
        field = torch.from_numpy(np.random.default_rng(seed).normal(0, FIELD, (CLASSES, N)))
        states = all_states(N, 2)
        spins = (2 * states - 1).double().view(-1, SIDE, SIDE)
        bonds = (spins[:, 1:] * spins[:, :-1]).sum((1, 2)) + (spins[:, :, 1:] * spins[:, :, :-1]).sum((1, 2))
        super().__init__(SIDE, 2, states, COUPLING * bonds.unsqueeze(0) + field @ spins.flatten(1).T)
