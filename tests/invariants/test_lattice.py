"""The proof for vectors: conditional means, variances and likelihood against a Gaussian field's exact ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from heptapod.distributions import CellSampling, DistributionConfig
from heptapod.evaluation.likelihood import negative_log_likelihood
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.objective import ObjectiveConfig, draw_supervision, draw_token_order, objective_loss
from heptapod.random import KeyedGenerator, Stream
from heptapod.tokenizers import GridSpec
from heptapod.training import TrainConfig
from heptapod.training.optim import EMA, build_optimizer, learning_rate

from .lattice import SIDE, Lattice, N

BATCH = 64
DENSITY = {"cross": ("all", 2), "global": (3, "all")}
STEPS = {"cross": 900, "global": 900}


def train(kind: str, truth: Lattice) -> HeptapodModel:
    cells = DistributionConfig("flow", 2, 64)
    config = ModelConfig(width=64, depth=2, num_heads=2, head=HeadConfig(kind, 2), distribution=cells)  # type: ignore[arg-type]
    model = build_model(config, GridSpec(SIDE, SIDE, channels=1), 2, 0)
    objective = ObjectiveConfig("random", *DENSITY[kind], label_dropout=0.0)  # type: ignore[arg-type]
    settings = TrainConfig(steps=STEPS[kind], batch_size=BATCH, learning_rate=4e-3, ema_decay=0.99)
    optimizer, ema = build_optimizer(model, settings), EMA(model, settings.ema_decay)
    generator = torch.Generator().manual_seed(1)
    for step in range(settings.steps):
        labels, tokens = truth.sample(BATCH, generator)
        keys = [(0, step, i) for i in range(BATCH)]
        supervision = draw_supervision(objective, SIDE, SIDE, keys)
        loss = objective_loss(model, tokens, labels, supervision, KeyedGenerator(Stream.LOSS, keys)).mean()
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        ema.update(model, step)
    return ema.module


class Quadrature(KeyedGenerator):
    """Gives Gauss-Hermite nodes for noise: integrals over the noise become weighted sums."""

    nodes, weights = (torch.from_numpy(values).float() for values in np.polynomial.hermite_e.hermegauss(12))

    def normal(self, num: int) -> Tensor:
        return self.nodes.repeat_interleave(num // len(self.nodes)).expand(len(self), -1)


def moments(model: HeptapodModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, L) of scalar cells with features (B, L, D), by quadrature over the noise of the flow."""
    nodes = len(Quadrature.nodes)
    generator = Quadrature(Stream.SAMPLE, [(0,)] * len(features))
    draws = model.distribution.sample(features.repeat(1, nodes, 1), generator, CellSampling(solver="heun", steps=20))
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
        order = draw_token_order("random", N, KeyedGenerator(Stream.EVALUATION, [(7, t, i) for i in range(per_length)]))
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
    truth = Lattice()
    model = train(kind, truth)
    mean_error, variance_error = errors(model, truth, per_length=24)
    labels, tokens = truth.sample(512, torch.Generator().manual_seed(2))
    excess = float(negative_log_likelihood(model, tokens, labels, "random").mean()) - truth.entropy()
    print(f"{kind}: means {mean_error:.4f}, variances {variance_error:.4f}, excess {excess:.4f} nats per cell")
    assert mean_error <= 0.03
    assert variance_error <= 0.03
    assert abs(excess) <= 0.03


def test_the_field_agrees_with_itself() -> None:
    """The best linear guess of two cells from three others is the exact conditional mean, with its variance."""
    truth = Lattice()
    labels, tokens = truth.sample(50_000, torch.Generator().manual_seed(3))
    read, unread = torch.tensor([0, 5, 10]), torch.tensor([6, 15])
    centred = tokens.squeeze(-1).double() - truth.mean[labels]
    fit = torch.linalg.lstsq(centred[:, read], centred[:, unread]).solution
    values = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    mean, variance = truth.conditional(1, values, read, unread)
    assert torch.allclose((centred[:, unread] - centred[:, read] @ fit).var(0), variance, rtol=0.03)
    assert torch.allclose(truth.mean[1, unread] + (values - truth.mean[1, read]) @ fit, mean, atol=0.05)
