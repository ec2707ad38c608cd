"""Conditional Gaussian mixtures with known parameters: what a continuous distribution is held against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

CONDITIONS = 4
COMPONENTS = 3
FEATURES = 16


class Mixture:
    """p(x | c) = Σ_k w_ck N(x; μ_ck, σ_ck² 1) in R^channels, for each of four conditions c, which a feature names."""

    def __init__(self, channels: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.channels = channels
        self.weights = torch.from_numpy(rng.dirichlet(np.full(COMPONENTS, 4.0), CONDITIONS)).float()
        self.means = torch.from_numpy(rng.normal(0, 0.9, (CONDITIONS, COMPONENTS, channels))).float()
        self.stds = torch.from_numpy(rng.uniform(0.25, 0.6, (CONDITIONS, COMPONENTS))).float()
        self.features = torch.from_numpy(rng.normal(size=(CONDITIONS, FEATURES))).float()

    def sample(self, conditions: Tensor, generator: torch.Generator) -> Tensor:
        """(..., channels) for conditions (...)."""
        flat = conditions.flatten()
        component = torch.multinomial(self.weights[flat], 1, generator=generator).squeeze(1)
        noise = torch.randn(len(flat), self.channels, generator=generator)
        x = self.means[flat, component] + self.stds[flat, component].unsqueeze(-1) * noise
        return x.view(*conditions.shape, self.channels)

    def log_prob(self, conditions: Tensor, x: Tensor) -> Tensor:
        """(M,) in nats for conditions (M,) and x (M, channels)."""
        std = self.stds[conditions]
        distance = (x.unsqueeze(1) - self.means[conditions]).square().sum(-1) / std.square()
        normal = -(distance + self.channels * math.log(2 * math.pi)) / 2 - self.channels * std.log()
        return (self.weights[conditions].log() + normal).logsumexp(-1)


def energy_distances(sets: Sequence[Tensor]) -> Tensor:
    """2 E|x − y| − E|x − x'| − E|y − y'| (K, K) of sets (M, C); a point and itself are a pair (as for scipy)."""
    apart = torch.zeros(len(sets), len(sets), dtype=torch.float64)
    for i, j in itertools.combinations_with_replacement(range(len(sets)), 2):
        distance = torch.cdist(sets[i], sets[j], compute_mode="donot_use_mm_for_euclid_dist")
        apart[i, j] = apart[j, i] = distance.double().mean()
    own = apart.diag()
    return 2 * apart - own - own.unsqueeze(1)
