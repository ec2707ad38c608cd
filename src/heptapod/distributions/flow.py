"""Rectified flow of one cell (arXiv 2209.03003), with a likelihood by the change of variables (1806.07366, 1810.01367).

Shape legend: B images, M cells of an image, R noise levels, C channels.
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
from heptapod.utils.random import KeyedGenerator, to_device

EXACT_CHANNELS = 32
"""Up to this number of channels the trace of the Jacobian is exact; above, it is estimated."""
PROBES = 16
"""Random sign vectors per cell of the estimate (Hutchinson)."""
LIKELIHOOD_STEPS = 25
"""Steps of the classical Runge-Kutta method along which a likelihood is integrated."""
CELLS_AT_ONCE = 2048


@register_distribution("flow")
class FlowDistribution(ContinuousDistribution):
    """A velocity field that carries noise to tokens along nearly straight lines.

    x_t = (1 − t) x + t ε for levels t in [0, 1]; the network predicts the velocity ε − x, and the loss is its squared
    error. Levels are logit-normal (2403.03206): most of them in the middle, where the velocity is hardest to know.
    """

    has_likelihood = True
    solvers = {"multistep": 12, "euler": 25, "heun": 25}

    def _losses(self, x: Tensor, noise: Tensor, quantiles: Tensor, condition: list[Tensor]) -> Tensor:
        """See :meth:`ContinuousDistribution._losses`."""
        level = torch.special.ndtri(quantiles.clamp(1e-6, 1 - 1e-6)).sigmoid().float()  # (B, 1, R)
        level = to_device(level, x.device)
        noisy = torch.lerp(x, noise, level.unsqueeze(-1))
        velocity = self.mlp(noisy, self.mlp.of_levels(level), condition)
        losses: Tensor = (velocity - (noise - x)).square().mean(-1)
        return losses

    def _num_noises(self, sampling: CellSampling) -> int:
        """See :meth:`ContinuousDistribution._num_noises`."""
        return 1

    def _levels(self, sampling: CellSampling) -> list[float]:
        """See :meth:`ContinuousDistribution._levels`; euler, heun: evenly from noise to token, both included."""
        if sampling.cell_solver == "multistep":
            return [1 / (1 + 1 / math.tan(angle)) for angle in multistep_angles(sampling.cell_steps or 1)]
        return [float(level) for level in np.linspace(1, 0, (sampling.cell_steps or 0) + 1)]

    def _draw(self, noise: Tensor, condition: list[Tensor], schedule: list[Tensor], sampling: CellSampling) -> Tensor:
        """See :meth:`ContinuousDistribution._draw`; temperature scales the initial noise."""
        x = noise[0] * sampling.temperature
        if sampling.cell_solver == "multistep":
            return self._draw_multistep(x, condition, schedule)
        num_steps = len(schedule[0]) - 1
        step = -1 / num_steps
        for i in range(num_steps):
            velocity = self.mlp(x, [part[i] for part in schedule], condition)
            end = x + step * velocity
            if sampling.cell_solver == "heun":
                end_velocity = self.mlp(end, [part[i + 1] for part in schedule], condition)
                end = x + step / 2 * (velocity + end_velocity)
            x = end
        return x

    def _draw_multistep(self, noise: Tensor, condition: list[Tensor], schedule: list[Tensor]) -> Tensor:
        angles = multistep_angles(len(schedule[0]))

        def denoise(x: Tensor, i: int) -> Tensor:
            noise_share, signal = math.sin(angles[i]), math.cos(angles[i])
            x = x / (noise_share + signal)  # (1 − t) token + t noise
            velocity: Tensor = self.mlp(x, [part[i] for part in schedule], condition)
            return x - noise_share / (noise_share + signal) * velocity

        return sample_multistep(noise, angles, denoise)

    @torch.no_grad()
    def log_prob(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """By the instantaneous change of variables, see :meth:`CellDistribution.log_prob`.

        log p(x) = log N(x_1; 0, 1) + ∫₀¹ div v(x_t, t) dt along dx/dt = v. The divergence is exact for up to 32
        channels; above, it is estimated with 16 random sign vectors per cell, the same along its way. The density is
        that of the token as given, that is, of the normalized latent; :attr:`ContinuousTokenizer.log_scale` leads to
        the latent itself.
        """
        self._check(targets)
        x, z = targets.reshape(-1, self.channels).float(), features.reshape(-1, features.shape[-1]).float()
        directions = self._directions(x, generator)
        chunks = (x.split(CELLS_AT_ONCE), z.split(CELLS_AT_ONCE), directions.split(CELLS_AT_ONCE, 1))
        with torch.autocast(x.device.type, enabled=False):
            parts = [self._log_prob(x, self.mlp.of_features(z), u) for x, z, u in zip(*chunks, strict=True)]
        return torch.cat(parts).view(targets.shape[:-1])

    def _directions(self, x: Tensor, generator: KeyedGenerator | None) -> Tensor:
        """(U, M, C): the axes for every cell, or random signs divided by √U."""
        if self.channels <= EXACT_CHANNELS:
            return torch.eye(self.channels, dtype=x.dtype, device=x.device).unsqueeze(1).expand(-1, len(x), -1)
        if generator is None:
            raise ValueError(f"generator: None given, but the likelihood of {self.channels} channels is an estimate")
        numbers = generator.uniform(len(x) // len(generator) * PROBES * self.channels)
        signs = (numbers < 0.5).to(x).view(len(x), PROBES, self.channels) * 2 - 1
        return signs.transpose(0, 1) / math.sqrt(PROBES)

    def _log_prob(self, x: Tensor, condition: list[Tensor], directions: Tensor) -> Tensor:
        """(M,) for x (M, C): classical Runge-Kutta from the token to the noise."""
        h, total = 1 / LIKELIHOOD_STEPS, x.new_zeros(len(x))
        parts = self.mlp.of_levels(torch.linspace(0, 1, 2 * LIKELIHOOD_STEPS + 1, device=x.device, dtype=torch.float32))
        for i in range(LIKELIHOOD_STEPS):
            begin, middle, end = ([part[2 * i + k] for part in parts] for k in range(3))
            v1, d1 = self._velocity_and_divergence(x, begin, condition, directions)
            v2, d2 = self._velocity_and_divergence(x + h / 2 * v1, middle, condition, directions)
            v3, d3 = self._velocity_and_divergence(x + h / 2 * v2, middle, condition, directions)
            v4, d4 = self._velocity_and_divergence(x + h * v3, end, condition, directions)
            x = x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
            total += h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        normal = -(x.square().sum(-1) + self.channels * math.log(2 * math.pi)) / 2
        return normal + total

    def _velocity_and_divergence(
        self, x: Tensor, levels: list[Tensor], condition: list[Tensor], directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Velocity (M, C) and Σ_i u_iᵀ (∂v/∂x) u_i (M,) over directions u (U, M, C)."""

        def velocity(at: Tensor) -> Tensor:
            out: Tensor = self.mlp(at, levels, condition)
            return out

        def along(direction: Tensor) -> tuple[Tensor, Tensor]:
            value, moved = torch.func.jvp(velocity, (x,), (direction,))  # type: ignore[misc]
            return value, (moved * direction).sum(-1)

        value, divergence = torch.func.vmap(along)(directions)
        return value[0], divergence.sum(0)
