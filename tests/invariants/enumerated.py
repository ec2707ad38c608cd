"""Distributions over small grids whose states are enumerated: the exact truth a model can be held against."""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.grid import GridSpec


class Enumerated:
    """p(x | c) of every state x of a square grid, for every class c.

    Args:
        side: cells per side; N = side².
        num_values: values V of a cell.
        states: (V^N, N) int64, see :func:`all_states`.
        energy: (classes, V^N) float64, the logarithm of p up to a constant of the class.
    """

    def __init__(self, side: int, num_values: int, states: Tensor, energy: Tensor) -> None:
        self.grid = GridSpec(side, side, num_values)
        self.classes = len(energy)
        self.states = states
        self.log_p = energy - energy.logsumexp(1, keepdim=True)  # (classes, V^N)
        self.p = self.log_p.exp()
        self.one_hot = torch.nn.functional.one_hot(states, num_values).double()  # (V^N, N, V)

    def entropy(self) -> float:
        """Mean over the classes, in nats per state."""
        return float(-(self.p * self.log_p).sum(1).mean())

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (count,), state numbers (count,) and states (count, N)."""
        labels = torch.randint(self.classes, (count,), generator=generator)
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        cumulative = self.p.cumsum(1)
        numbers = torch.empty_like(labels)
        for c in range(self.classes):
            chosen = labels == c
            numbers[chosen] = torch.searchsorted(cumulative[c], uniform[chosen] * cumulative[c, -1], right=True)
        return labels, numbers, self.states[numbers]

    def marginals(self, label: int, state: Tensor, read: Tensor) -> Tensor:
        """Exact p(x_n = v | the values of the cells ``read``, c) of every cell and value, (N, V)."""
        agrees = (self.states[:, read] == state[read]).all(1)
        weights = self.p[label][agrees]
        return torch.einsum("s,snv->nv", weights, self.one_hot[agrees]) / weights.sum()

    def pair_marginals(self, label: int) -> Tensor:
        """Exact p(x_n = v, x_m = w | c), (N, V, N, V)."""
        return torch.einsum("s,snv,smw->nvmw", self.p[label], self.one_hot, self.one_hot)


def all_states(num_cells: int, num_values: int) -> Tensor:
    """Every state of a grid, (V^N, N) int64; the first cell changes fastest."""
    numbers = torch.arange(num_values**num_cells)
    return numbers.unsqueeze(1) // num_values ** torch.arange(num_cells) % num_values
