"""A 3×3 grid of cells with three values, every bond with a coupling of its own; its 19,683 states are enumerated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tests.invariants.enumerated import Enumerated, all_states

SIDE = 3
N = SIDE * SIDE
VALUES = 3
COUPLING = 0.8
FIELD = 0.5
CLASSES = 2


class Potts(Enumerated):
    """p(x | c) ∝ exp(Σ_<ij> J_ij[x_i, x_j] + Σ_i f_c,i[x_i]) with free borders.

    Each of the 12 bonds has its own matrix J_ij of normal numbers, which is not symmetric: a bond knows its direction.
    """

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.bonds = [(i, i + 1) for i in range(N) if i % SIDE < SIDE - 1] + [(i, i + SIDE) for i in range(N - SIDE)]
        self.couplings = torch.from_numpy(generator.normal(0, COUPLING, (len(self.bonds), VALUES, VALUES)))
        self.field = torch.from_numpy(generator.normal(0, FIELD, (CLASSES, N, VALUES)))
        states = all_states(N, VALUES)
        super().__init__(SIDE, VALUES, states, self.energy(states))

    def energy(self, states: Tensor) -> Tensor:
        """The exponents (classes, M) of states (M, N)."""
        energy = self.field[:, torch.arange(N), states].sum(-1)
        for (i, j), coupling in zip(self.bonds, self.couplings, strict=True):
            energy = energy + coupling[states[:, i], states[:, j]]
        return energy
