"""A Gaussian Markov random field on a 4×4 grid: every conditional distribution is known in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

SIDE = 4
N = SIDE * SIDE
STIFFNESS = 1.0
CLASSES = 2


class Lattice:
    """x | c ~ N(m_c, Q⁻¹) with Q = 1 + the grid's Laplacian, scaled to a mean variance of 1; m_c is drawn alike."""

    def __init__(self, seed: int = 0) -> None:
        precision = STIFFNESS * torch.eye(N, dtype=torch.float64)
        for cell in range(N):
            for other, near in ((cell + 1, cell % SIDE < SIDE - 1), (cell + SIDE, cell < N - SIDE)):
                if near:
                    precision[cell, cell] += 1
                    precision[other, other] += 1
                    precision[cell, other] -= 1
                    precision[other, cell] -= 1
        covariance = precision.inverse()
        self.covariance = covariance / covariance.diagonal().mean()
        self._root = torch.linalg.cholesky(self.covariance)
        self.mean = torch.from_numpy(np.random.default_rng(seed).normal(size=(CLASSES, N))) @ self._root.T

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Labels (count,) and tokens (count, 16, 1) float32."""
        labels = torch.randint(CLASSES, (count,), generator=generator)
        noise = torch.randn(count, N, dtype=torch.float64, generator=generator)
        return labels, (self.mean[labels] + noise @ self._root.T).float().unsqueeze(-1)

    def balanced(self, batch: int, pool: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless batches of labels and tokens as of :meth:`sample`, with less noise in what is learned from them.

        They come from pools of independent fields, half of each class, whose noise is then shifted and turned so that
        the mean and the covariance of each half are the true ones.
        """
        labels = torch.arange(pool) % CLASSES
        while True:
            noise = torch.randn(pool, N, dtype=torch.float64, generator=generator)
            for c in range(CLASSES):
                own = noise[labels == c] - noise[labels == c].mean(0)
                root = torch.linalg.cholesky(own.T @ own / len(own))
                noise[labels == c] = torch.linalg.solve_triangular(root, own.T, upper=False).T
            tokens = (self.mean[labels] + noise @ self._root.T).float().unsqueeze(-1)
            for rows in torch.randperm(pool, generator=generator).split(batch):
                yield labels[rows], tokens[rows]

    def conditional(self, label: int, values: Tensor, read: Tensor, unread: Tensor) -> tuple[Tensor, Tensor]:
        """Exact mean and variance of each unread cell after the values (t,) of the cells read (t,)."""
        mean, covariance = self.mean[label], self.covariance
        if len(read) == 0:
            return mean[unread], covariance.diagonal()[unread]
        gain = torch.linalg.solve(covariance[read][:, read], covariance[read][:, unread]).T
        variance = covariance.diagonal()[unread] - (gain * covariance[unread][:, read]).sum(1)
        return mean[unread] + gain @ (values.double() - mean[read]), variance

    def log_prob(self, labels: Tensor, tokens: Tensor) -> Tensor:
        """(M,) float64 nats of tokens (M, 16, 1)."""
        normal = torch.distributions.MultivariateNormal(self.mean[labels], scale_tril=self._root)
        return normal.log_prob(tokens.squeeze(-1).double())
