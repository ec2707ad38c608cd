"""Denoising diffusion of one cell (after MAR, arXiv 2406.11838; the schedule and learned variance of 2102.09672).

Shape legend: B images, M cells of an image, R noise levels, T noise levels of the schedule, K steps of sampling.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from heptapod.configs.distributions import CellSampling
from heptapod.distributions.base import register_distribution
from heptapod.distributions.continuous import ContinuousDistribution
from heptapod.distributions.multistep import multistep_angles, sample_multistep
from heptapod.utils.random import to_device

NUM_LEVELS = 1000
MIN_SIGNAL = 1e-4
"""Sampling begins at the highest level whose signal ᾱ is at least this: above, errors of ε would be blown up."""


def cosine_signal(num_levels: int) -> np.ndarray:
    """ᾱ of each level, (num_levels,) float64: the cosine schedule of 2102.09672, offset 0.008, β at most 0.999."""
    time = np.arange(num_levels + 1) / num_levels
    curve = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    return np.cumprod(1 - beta)


SIGNAL = torch.from_numpy(cosine_signal(NUM_LEVELS))
ANGLES = np.arccos(np.sqrt(cosine_signal(NUM_LEVELS)))
"""θ of each level (cos θ = √ᾱ), in numpy: the planner samples with tensors that have no values."""
MAX_LEVEL = int(torch.nonzero(SIGNAL >= MIN_SIGNAL)[-1])


@register_distribution("diffusion")
class DiffusionDistribution(ContinuousDistribution):
    """ε-prediction over a cosine schedule of 1,000 levels, with a learned variance.

    x_t = √ᾱ_t x + √(1−ᾱ_t) ε. The network predicts ε and, per channel, the position of the log-variance of the reverse
    step between its two bounds. The loss is the squared error of ε plus the variational bound of the variance in nats.
    There is no likelihood.

    Args:
        mlp: a network with 2·C outputs.
        channels: C.
        noise_levels: see :class:`ContinuousDistribution`.
    """

    outputs_per_channel = 2  # noise and log-variance
    solvers = {"multistep": 12, "ancestral": 100, "ddim": 12}
    max_steps = MAX_LEVEL + 1

    def _losses(self, x: Tensor, noise: Tensor, quantiles: Tensor, condition: list[Tensor]) -> Tensor:
        """See :meth:`ContinuousDistribution._losses`."""
        level = (quantiles * NUM_LEVELS).long().clamp(max=NUM_LEVELS - 1)  # (B, 1, R)
        before = torch.where(level > 0, SIGNAL[(level - 1).clamp(min=0)], 1.0)
        step = Backwards(SIGNAL[level].unsqueeze(-1), before.unsqueeze(-1), x.device)
        noisy = step.root_signal * x + step.root_noise * noise
        output = self.mlp(noisy, self.mlp.of_levels(to_device(level / NUM_LEVELS, x.device)), condition)
        epsilon, interpolation = output.chunk(2, -1)
        bound = step.bound(x, noisy, epsilon.detach(), interpolation)
        losses: Tensor = ((epsilon - noise).square() + bound).mean(-1)
        return losses

    def _num_noises(self, sampling: CellSampling) -> int:
        """See :meth:`ContinuousDistribution._num_noises`: the first noise, and one for each step but the last."""
        return (sampling.cell_steps or 1) if sampling.cell_solver == "ancestral" else 1

    def _levels(self, sampling: CellSampling) -> list[float]:
        """See :meth:`ContinuousDistribution._levels`."""
        return [level / NUM_LEVELS for level in solver_levels(sampling)]

    def _draw(self, noise: Tensor, condition: list[Tensor], schedule: list[Tensor], sampling: CellSampling) -> Tensor:
        """See :meth:`ContinuousDistribution._draw`; temperature scales all noise."""
        noise = sampling.temperature * noise
        levels = solver_levels(sampling)
        if sampling.cell_solver == "multistep":
            return self._draw_multistep(noise[0], condition, schedule, levels)
        signals = torch.cat([SIGNAL[levels], SIGNAL.new_ones(1)])
        x = noise[0]
        for i in range(len(levels)):
            step = Backwards(signals[i], signals[i + 1], torch.device("cpu"))  # scalars, which work on every device
            epsilon, interpolation = self.mlp(x, [part[i] for part in schedule], condition).chunk(2, -1)
            if sampling.cell_solver == "ddim":
                x = step.deterministic(x, epsilon)
                continue
            x = step.mean(x, epsilon)
            if i + 1 < len(levels):
                x = x + (step.log_variance(interpolation) / 2).exp() * noise[i + 1]
        return x

    def _draw_multistep(
        self, noise: Tensor, condition: list[Tensor], schedule: list[Tensor], levels: list[int]
    ) -> Tensor:
        angles: list[float] = ANGLES[levels].tolist()

        def denoise(x: Tensor, i: int) -> Tensor:
            epsilon: Tensor = self.mlp(x, [part[i] for part in schedule], condition)[..., : self.channels]
            return (x - math.sin(angles[i]) * epsilon) / math.cos(angles[i])

        return sample_multistep(noise, angles, denoise)


class Backwards:
    """The Gaussian step from the level with signal ᾱ to one with more signal ᾱ' (2102.09672), in float32.

    Args:
        signal: ᾱ, float64 on the CPU, of any shape that broadcasts against tokens.
        before: ᾱ', the same; 1 for the last step.
        device: where the step is made.
    """

    def __init__(self, signal: Tensor, before: Tensor, device: torch.device) -> None:
        alpha = signal / before
        beta, noise = 1 - alpha, 1 - signal
        posterior = beta * (1 - before) / noise
        # The last step has no variance, so nothing is learned about it.
        lower = torch.where(before >= 1, beta, posterior)
        numbers = [signal.sqrt(), noise.sqrt(), before.sqrt(), (1 - before).sqrt(), alpha.sqrt(), beta / noise.sqrt()]
        numbers += [before.sqrt() * beta / noise, alpha.sqrt() * (1 - before) / noise, beta.log(), lower.log()]
        there = to_device(torch.stack([*numbers, (before < 1).double()]).float(), device).unbind()
        self.root_signal, self.root_noise, self.root_signal_before, self.root_noise_before = there[:4]
        self.root_alpha, self.noise_share, self.clean_share, self.noisy_share = there[4:8]
        self.upper, self.lower, self.has_variance = there[8:]

    def mean(self, noisy: Tensor, epsilon: Tensor) -> Tensor:
        """Mean of the step, from the predicted noise."""
        return (noisy - self.noise_share * epsilon) / self.root_alpha

    def deterministic(self, noisy: Tensor, epsilon: Tensor) -> Tensor:
        """The step without noise (DDIM, 2010.02502)."""
        clean = (noisy - self.root_noise * epsilon) / self.root_signal
        return self.root_signal_before * clean + self.root_noise_before * epsilon

    def log_variance(self, interpolation: Tensor) -> Tensor:
        """Log-variance where −1 stands for the lower and 1 for the upper bound."""
        share = (interpolation + 1) / 2
        return share * self.upper + (1 - share) * self.lower

    def bound(self, clean: Tensor, noisy: Tensor, epsilon: Tensor, interpolation: Tensor) -> Tensor:
        """KL(true step ‖ predicted step) per channel in nats; 0 for the last step."""
        mean, log_variance = self.mean(noisy, epsilon), self.log_variance(interpolation)
        true_mean = self.clean_share * clean + self.noisy_share * noisy
        distance = (true_mean - mean).square() * (-log_variance).exp()
        kl = (log_variance - self.lower + (self.lower - log_variance).exp() + distance - 1) / 2
        return self.has_variance * kl


def solver_levels(sampling: CellSampling) -> list[int]:
    """Levels visited by the solver, descending."""
    steps = sampling.cell_steps or 1
    if sampling.cell_solver != "multistep":
        return respaced_levels(steps)
    nearest = np.searchsorted(ANGLES, multistep_angles(steps))
    levels: list[int] = np.minimum(nearest, MAX_LEVEL - np.arange(steps)).tolist()
    for i in range(steps - 2, -1, -1):  # of many steps no two share a level
        levels[i] = max(levels[i], levels[i + 1] + 1)
    return levels


def respaced_levels(steps: int) -> list[int]:
    """Levels visited by K steps, evenly spaced from the highest with a signal down to 0."""
    return [round(level) for level in np.linspace(MAX_LEVEL, 0, steps)]
