"""A 4×4 Ising model whose 65,536 states are enumerated: the exact truth a model can be held against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SIDE = 4
N = SIDE * SIDE
COUPLING = 0.4
FIELD = 0.3
CLASSES = 2


class Ising:
    """p(x | c) ∝ exp(0.4 Σ_<ij> s_i s_j + Σ_i f_c,i s_i) with s = 2x - 1 and free borders."""

    def __init__(self, seed: int = 0) -> None:
        field = torch.from_numpy(np.random.default_rng(seed).normal(0, FIELD, (CLASSES, N)))
        numbers = torch.arange(2**N)
        self.states = (numbers.unsqueeze(1) >> torch.arange(N)) & 1  # (65536, 16)
        spins = (2 * self.states - 1).double().view(-1, SIDE, SIDE)
        bonds = (spins[:, 1:] * spins[:, :-1]).sum((1, 2)) + (spins[:, :, 1:] * spins[:, :, :-1]).sum((1, 2))
        energy = COUPLING * bonds.unsqueeze(0) + field @ spins.flatten(1).T
        self.log_p = energy - energy.logsumexp(1, keepdim=True)  # (classes, 65536)
        self.p = self.log_p.exp()

    def entropy(self) -> float:
        """Mean over the classes, in nats per state."""
        return float(-(self.p * self.log_p).sum(1).mean())

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (count,), state numbers (count,) and states (count, 16)."""
        labels = torch.randint(CLASSES, (count,), generator=generator)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        cumulative = self.p.cumsum(1)
        numbers = torch.empty_like(labels)
        for c in range(CLASSES):
            chosen = labels == c
            numbers[chosen] = torch.searchsorted(cumulative[c], uniform[chosen] * cumulative[c, -1], right=True)
        return labels, numbers, self.states[numbers]

    def marginals(self, label: int, state: Tensor, read: Tensor) -> Tensor:
        """Exact p(x_n = 1 | the values of the cells ``read``, c) of every cell, (16,)."""
        agrees = (self.states[:, read] == state[read]).all(1)
        weights = self.p[label] * agrees
        return (weights @ self.states.double()) / weights.sum()
