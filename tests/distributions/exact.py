"""Networks that know the truth: the exact noise or velocity of a mixture of normals, in place of the trained MLP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heptapod.distributions import CellSampling, DistributionConfig, build_distribution
from heptapod.distributions.continuous import ContinuousDistribution
from heptapod.distributions.diffusion import NUM_LEVELS, SIGNAL
from heptapod.utils.random import KeyedGenerator, Stream

FEATURES = 4


@dataclass
class Normals:
    """Σ_k w_k N(μ_k, Σ_k) in R^C: weights (K,), means (K, C), covariances (K, C, C)."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @classmethod
    def one(
        cls, stds: Sequence[float], mean: Sequence[float] | None = None, correlations: Tensor | None = None
    ) -> Normals:
        """A single normal; uncorrelated and around 0 if unset."""
        scale = torch.tensor(stds).diag()
        correlations = torch.eye(len(stds)) if correlations is None else correlations
        means = torch.zeros(1, len(stds)) if mean is None else torch.tensor([mean])
        return cls(torch.ones(1), means, (scale @ correlations @ scale).unsqueeze(0))

    def expectations(self, x: Tensor, signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Expected token and noise (M, C), given x = signal · token + noise · ε."""
        identity = torch.eye(x.shape[1])
        total = signal**2 * self.covariances + noise**2 * identity
        apart = x.unsqueeze(1) - signal * self.means  # (M, K, C)
        pull = torch.einsum("kij,mkj->mki", torch.linalg.inv(total), apart)
        share = (self.weights.log() - torch.linalg.slogdet(total).logabsdet / 2 - (pull * apart).sum(-1) / 2).softmax(1)
        tokens = self.means + signal * torch.einsum("kij,mkj->mki", self.covariances, pull)
        return (share.unsqueeze(-1) * tokens).sum(1), (share.unsqueeze(-1) * noise * pull).sum(1)


class ExactMLP(nn.Module):
    """Answers as the MLP of a distribution does."""

    def __init__(self, kind: str, truth: Normals) -> None:
        super().__init__()
        self.kind, self.truth = kind, truth
        self.output = nn.Linear(1, 1)  # says on which device it is

    def of_features(self, features: Tensor) -> list[Tensor]:
        return [features]

    def of_levels(self, levels: Tensor) -> list[Tensor]:
        return [levels]

    def forward(self, x: Tensor, levels: list[Tensor], features: list[Tensor]) -> Tensor:
        if self.kind == "flow":
            token, noise = self.truth.expectations(x, 1 - levels[0], levels[0])
            return noise - token
        share = SIGNAL[(levels[0] * NUM_LEVELS).round().long()].float()
        _, noise = self.truth.expectations(x, share.sqrt(), (1 - share).sqrt())
        return torch.cat([noise, torch.full_like(noise, -1)], -1)


def exact_distribution(kind: str, truth: Normals) -> ContinuousDistribution:
    """The distribution as it is built where nothing but its kind is set, with an exact network instead of its MLP."""
    distribution = build_distribution(
        DistributionConfig(kind, mlp_depth=1, mlp_width=8), FEATURES, channels=truth.means.shape[1]
    )
    assert isinstance(distribution, ContinuousDistribution)
    distribution.mlp = ExactMLP(kind, truth)  # type: ignore[assignment]
    return distribution


def draws(distribution: ContinuousDistribution, sampling: CellSampling, count: int = 20_000) -> Tensor:
    """Tokens (count, C)."""
    with torch.no_grad():
        return distribution.sample(torch.zeros(1, count, FEATURES), KeyedGenerator(Stream.SAMPLE, [(1,)]), sampling)[0]


class GivenNoise(KeyedGenerator):
    """Hands out given numbers (M,) for one image."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__(Stream.SAMPLE, [(0,)])
        self.numbers = numbers

    def normal(self, num: int) -> Tensor:
        return self.numbers.view(1, num)


def mean_and_covariance(distribution: ContinuousDistribution, sampling: CellSampling) -> tuple[Tensor, Tensor]:
    """(C,) and (C, C) of the tokens that are drawn from one normal, without random error.

    The token is linear in all noise of a cell: one cell for each number, which is 1 there and 0 elsewhere, and one
    without any.
    """
    sampling = distribution.plan(sampling)
    numbers = distribution._num_noises(sampling) * distribution.channels
    noise = torch.cat([torch.zeros(1, numbers), torch.eye(numbers)])
    with torch.no_grad():
        tokens = distribution.sample(torch.zeros(1, len(noise), FEATURES), GivenNoise(noise), sampling)[0].double()
    mean, slopes = tokens[0], tokens[1:] - tokens[0]
    return mean, slopes.T @ slopes
