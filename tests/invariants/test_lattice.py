"""The proof for vectors: conditional means, variances and likelihood against a Gaussian field's exact ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from heptapod.configs.objective import ObjectiveConfig
from heptapod.distributions import CellSampling, DistributionConfig
from heptapod.grid import GridSpec
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.training.config import TrainConfig
from heptapod.utils.random import KeyedGenerator, Stream
from tests.invariants.fit import fit
from tests.invariants.lattice import CLASSES, SIDE, Lattice, N

DENSITY = {"cross": ("all", 3), "global": (4, "all")}
STEPS = {"cross": 8000, "global": 24000}


class Antithetic(KeyedGenerator):
    """Gives neighboring noise levels of a scalar cell opposite noise, whose effects on the mean cancel in part."""

    def normal(self, num: int) -> Tensor:
        half = super().normal(num // 2)
        return torch.stack([half, -half], -1).flatten(1)


def train(kind: str, truth: Lattice) -> HeptapodModel:
    # A small network: its error falls with the root of the steps, and rises with its parameters.
    cells = DistributionConfig("flow", 2, 32, noise_levels=4)
    config = ModelConfig(width=32, depth=1, num_heads=4, head=HeadConfig(kind, 2), distribution=cells)
    model = build_model(config, GridSpec(SIDE, SIDE, channels=1), 2, 0)
    objective = ObjectiveConfig("raster", *DENSITY[kind], label_dropout=0.0)  # type: ignore[arg-type]
    settings = TrainConfig(
        steps=STEPS[kind],
        batch_size=64,
        learning_rate=6e-3,
        weight_decay=0.0,  # it would pull the estimate away from the truth
        beta2=0.99,
        ema_decay=0.998,
    )
    batches = truth.balanced(settings.batch_size, 4096, torch.Generator().manual_seed(1))
    return fit(model, objective, settings, lambda _: next(batches), Antithetic)


class Quadrature(KeyedGenerator):
    """Gives Gauss-Hermite nodes for noise: integrals over the noise become weighted sums."""

    nodes, weights = (torch.from_numpy(values).float() for values in np.polynomial.hermite_e.hermegauss(12))

    def normal(self, num: int) -> Tensor:
        return self.nodes.repeat_interleave(num // len(self.nodes)).expand(len(self), -1)


def moments(model: HeptapodModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, L) of scalar cells with features (B, L, D), by quadrature over the noise of the flow."""
    nodes = len(Quadrature.nodes)
    generator = Quadrature(Stream.SAMPLE, [(0,)] * len(features))
    draws = model.distribution.sample(
        features.repeat(1, nodes, 1), generator, CellSampling(cell_solver="heun", cell_steps=20)
    )
    draws = draws.unflatten(1, (nodes, -1)).squeeze(-1)
    weights = (Quadrature.weights / Quadrature.weights.sum()).view(1, -1, 1)
    mean = (weights * draws).sum(1)
    return mean, (weights * draws.square()).sum(1) - mean.square()


@torch.no_grad()
def errors(model: HeptapodModel, truth: Lattice, per_length: int) -> tuple[float, float]:
    """Root mean square error of the means in standard deviations of the field, mean relative error of variances."""
    mean_errors, variance_errors = [], []
    for t in range(N):
        labels, tokens = truth.sample(per_length, torch.Generator().manual_seed(100 + t))
        order = torch.arange(N).expand(per_length, -1)
        read, unread = order[:, :t], order[:, t:]
        states = model.read(tokens.gather(1, read.unsqueeze(-1)), read, labels)
        mean, variance = moments(model, model.predict(states, unread))
        for row in range(per_length):
            values = tokens[row, read[row], 0]
            exact_mean, exact_variance = truth.conditional(int(labels[row]), values, read[row], unread[row])
            mean_errors.append(mean[row] - exact_mean)
            variance_errors.append(variance[row] / exact_variance - 1)
    return float(torch.cat(mean_errors).square().mean().sqrt()), float(torch.cat(variance_errors).abs().mean())


@pytest.mark.parametrize("kind", ["cross", "global"])
def test_learns_the_exact_conditionals(kind: str) -> None:
    """Of every unread cell after every prefix in raster order."""
    truth = Lattice()
    model = train(kind, truth)
    mean_error, variance_error = errors(model, truth, per_length=24)
    labels, tokens = truth.sample(256, torch.Generator().manual_seed(2))
    found = negative_log_likelihood(model, tokens, labels, "raster").double()
    excess = float((found + truth.log_prob(labels, tokens) / N).mean())
    print(f"{kind}: means {mean_error:.4f}, variances {variance_error:.4f}, excess {excess:.4f} nats per cell")
    assert mean_error <= 0.03
    assert variance_error <= 0.03
    assert abs(excess) <= 0.01


def test_the_field_agrees_with_itself() -> None:
    """The best linear guess of two cells from three others is the exact conditional mean, with its variance."""
    truth = Lattice()
    labels, tokens = truth.sample(50_000, torch.Generator().manual_seed(3))
    read, unread = torch.tensor([0, 5, 10]), torch.tensor([6, 15])
    centered = tokens.squeeze(-1).double() - truth.mean[labels]
    fit = torch.linalg.lstsq(centered[:, read], centered[:, unread]).solution
    values = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    mean, variance = truth.conditional(1, values, read, unread)
    assert torch.allclose((centered[:, unread] - centered[:, read] @ fit).var(0), variance, rtol=0.03)
    labels, tokens = next(truth.balanced(1000, 1000, torch.Generator().manual_seed(4)))
    for c in range(CLASSES):
        own = tokens[labels == c].squeeze(-1).double()
        assert torch.allclose(own.mean(0), truth.mean[c], atol=1e-5)
        assert torch.allclose(own.T.cov(correction=0), truth.covariance, atol=1e-5)
    assert torch.allclose(truth.mean[1, unread] + (values - truth.mean[1, read]) @ fit, mean, atol=0.05)
