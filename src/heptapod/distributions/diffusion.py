"""Denoising diffusion of one cell (after MAR, arXiv 2406.11838; the schedule and learned variance of 2102.09672).

Shape legend: B images, M cells of an image, R noise levels, T noise levels of the schedule, K steps of sampling.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from heptapod.distributions.base import CellSampling
from heptapod.distributions.cell_mlp import CellMLP
from heptapod.distributions.continuous import ContinuousDistribution, Preset

NUM_LEVELS = 1000
LEAST_SIGNAL = 1e-4
"""Sampling begins at the highest level whose signal ᾱ is at least this: above, errors of ε would be blown up."""


def cosine_signal(num_levels: int) -> np.ndarray:
    """ᾱ of each level, (num_levels,) float64: the cosine schedule of 2102.09672, offset 0.008, β at most 0.999."""
    time = np.arange(num_levels + 1) / num_levels
    curve = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    return np.cumprod(1 - beta)


HIGHEST_LEVEL = int(np.flatnonzero(cosine_signal(NUM_LEVELS) >= LEAST_SIGNAL)[-1])


class DiffusionDistribution(ContinuousDistribution):
    """ε-prediction over a cosine schedule of 1,000 levels, with a learned variance.

    x_t = √ᾱ_t x + √(1−ᾱ_t) ε; the network predicts ε and, per number, where the log-variance of the step backwards lies
    between its two bounds. The loss is the squared error of ε plus the variational bound of the variance in nats. There
    is no likelihood.

    Args:
        mlp: a network with 2·C outputs.
        channels: C.
        noise_levels: see :class:`ContinuousDistribution`.
    """

    presets = {"default": Preset("ancestral", 50), "fast": Preset("ddim", 8)}
    solvers = ("ancestral", "ddim")
    most_steps = HIGHEST_LEVEL + 1
    signal: Tensor

    def __init__(self, mlp: CellMLP, channels: int, noise_levels: int) -> None:
        super().__init__(mlp, channels, noise_levels)
        self.register_buffer("signal", torch.from_numpy(cosine_signal(NUM_LEVELS)), persistent=False)  # ᾱ, float64

    def _losses(self, x: Tensor, noise: Tensor, quantiles: Tensor, condition: list[Tensor]) -> Tensor:
        """See :meth:`ContinuousDistribution._losses`."""
        level = (quantiles * NUM_LEVELS).long().clamp(max=NUM_LEVELS - 1)  # (B, 1, R)
        signal = self.signal[level].unsqueeze(-1)
        before = torch.where(level > 0, self.signal[(level - 1).clamp(min=0)], 1.0).unsqueeze(-1)
        noisy = signal.sqrt().float() * x + (1 - signal).sqrt().float() * noise
        output = self.mlp(noisy, self.mlp.of_levels(level / NUM_LEVELS), condition)
        predicted, interpolation = output.chunk(2, -1)
        step = _Backwards(signal, before)
        bound = step.bound(x, noisy, predicted.detach(), interpolation)
        losses: Tensor = ((predicted - noise).square() + bound).mean(-1)
        return losses

    def _num_noises(self, how: CellSampling) -> int:
        """See :meth:`ContinuousDistribution._num_noises`: the first noise, and one for each step but the last."""
        return (how.steps or 1) if how.solver == "ancestral" else 1

    def _draw(self, noise: Tensor, condition: list[Tensor], how: CellSampling) -> Tensor:
        """See :meth:`ContinuousDistribution._draw`; temperature scales the noise of every step (DDIM: the first)."""
        assert how.steps is not None
        signal = cosine_signal(NUM_LEVELS)
        levels = respaced_levels(how.steps)
        parts = self.mlp.of_levels(torch.tensor(levels, device=noise.device) / NUM_LEVELS)
        x = noise[0] * (how.temperature if how.solver == "ddim" else 1.0)
        for i, level in enumerate(levels):
            now, then = float(signal[level]), float(signal[levels[i + 1]]) if i + 1 < len(levels) else 1.0
            output = self.mlp(x, [part[i] for part in parts], condition)
            epsilon, interpolation = output.chunk(2, -1)
            if how.solver == "ddim":
                clean = (x - math.sqrt(1 - now) * epsilon) / math.sqrt(now)
                x = math.sqrt(then) * clean + math.sqrt(1 - then) * epsilon
                continue
            step = _Backwards(torch.tensor(now, dtype=torch.float64), torch.tensor(then, dtype=torch.float64))
            x = step.mean(x, epsilon)
            if i + 1 < len(levels):
                x = x + how.temperature * (step.log_variance(interpolation) / 2).exp() * noise[i + 1]
        return x


class _Backwards:
    """The Gaussian step from the level with signal ᾱ to that with more signal ᾱ' (2102.09672).

    Args:
        signal: ᾱ, float64, of any shape that broadcasts against tokens.
        before: ᾱ', the same.
    """

    def __init__(self, signal: Tensor, before: Tensor) -> None:
        alpha = signal / before
        beta = 1 - alpha
        self.beta, self.alpha, self.noise = beta, alpha, 1 - signal
        self.clean_share = (before.sqrt() * beta / (1 - signal)).float()
        self.noisy_share = (alpha.sqrt() * (1 - before) / (1 - signal)).float()
        self.is_last = before >= 1
        posterior = beta * (1 - before) / (1 - signal)
        self.upper = beta.log().float()
        # The last step has no variance of its own; as a density it takes the upper bound.
        self.lower = torch.where(self.is_last, beta, posterior).log().float()

    def mean(self, noisy: Tensor, epsilon: Tensor) -> Tensor:
        """Mean of the step, from the predicted noise."""
        mean: Tensor = (noisy - (self.beta / self.noise.sqrt()).float() * epsilon) / self.alpha.sqrt().float()
        return mean

    def log_variance(self, interpolation: Tensor) -> Tensor:
        """Log-variance where −1 stands for the lower and 1 for the upper bound."""
        share = (interpolation + 1) / 2
        return share * self.upper + (1 - share) * self.lower

    def bound(self, clean: Tensor, noisy: Tensor, epsilon: Tensor, interpolation: Tensor) -> Tensor:
        """KL(true step ‖ predicted step) per number in nats; for the last step −log p(clean)."""
        mean, log_variance = self.mean(noisy, epsilon), self.log_variance(interpolation)
        true_mean = self.clean_share * clean + self.noisy_share * noisy
        distance = (true_mean - mean).square() * (-log_variance).exp()
        kl = (log_variance - self.lower + (self.lower - log_variance).exp() + distance - 1) / 2
        likelihood = (math.log(2 * math.pi) + log_variance + (clean - mean).square() * (-log_variance).exp()) / 2
        return torch.where(self.is_last, likelihood, kl)


def respaced_levels(steps: int) -> list[int]:
    """Levels visited by K steps, evenly spaced from the highest with a signal down to 0."""
    return [round(level) for level in np.linspace(HIGHEST_LEVEL, 0, steps)]
