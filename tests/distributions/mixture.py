"""Conditional Gaussian mixtures with known parameters: what a continuous distribution is held against."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import hyp1f1
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

    def energy_distance(self, condition: int, drawn: Tensor) -> float:
        """2 E|x − y| − E|x − x'| − E|y − y'| between the distribution of ``drawn`` (M, channels), x, and p(y | c).

        What involves the truth is in closed form, and only different draws are a pair: the estimate is unbiased.
        """
        x, mean, std = drawn.double(), self.means[condition].double(), self.stds[condition].double()
        to_truth = mean_distance(x.unsqueeze(1) - mean, std) @ self.weights[condition].double()
        return float(2 * to_truth.mean() - torch.pdist(drawn).double().mean()) - self.own_distance(condition)

    def own_distance(self, condition: int) -> float:
        """E|y − y'| of two independent draws."""
        mean, std = self.means[condition].double(), self.stds[condition].double()
        weights = self.weights[condition].double()
        apart = mean_distance(mean.unsqueeze(1) - mean, (std.unsqueeze(1).square() + std.square()).sqrt())
        return float(weights @ apart @ weights)


def mean_distance(shift: Tensor, std: Tensor) -> Tensor:
    """E|shift + std z| for z ~ N(0, 1) in R^C and float64 shifts (..., C): the mean of a noncentral chi variable."""
    C = shift.shape[-1]
    kummer = torch.from_numpy(hyp1f1(-0.5, C / 2, (-(shift.square().sum(-1)) / (2 * std.square())).numpy()))
    return std * math.sqrt(2) * math.exp(math.lgamma((C + 1) / 2) - math.lgamma(C / 2)) * kummer
