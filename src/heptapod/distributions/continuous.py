"""The base of the distributions over continuous tokens.

Shape legend: B images, M cells of an image, R noise levels, C channels, D width of a feature.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from heptapod.configs.distributions import CellSampling, DistributionConfig, Solver
from heptapod.distributions.base import CellDistribution, S
from heptapod.distributions.cell_mlp import CellMLP
from heptapod.utils.random import KeyedGenerator, to_device
from heptapod.utils.registry import further_settings

BELIEF_DRAWS = 16
"""Samples per cell for the mean and the spread of its distribution."""
CONFIDENCE_DRAWS = 4
"""Samples per cell for the order ``confidence``."""


class Preset(NamedTuple):
    """A solver and its number of steps."""

    solver: Solver
    steps: int


class ContinuousDistribution(CellDistribution):
    """A distribution over continuous tokens: a per-cell MLP turns noise into a token.

    All cells of a step are sampled together, in float32 also under autocast. In training the products of the MLP follow
    autocast; noise, targets and losses are float32.

    Args:
        mlp: the network.
        channels: C of a token.
        noise_levels: R, noise levels at which every cell is trained in a step; those of an image are shared by its
            cells, one from each of R equally likely ranges.
    """

    has_mlp = True
    outputs_per_channel: int = 1
    """Outputs of the MLP for each channel of a token."""
    has_likelihood = False
    uncertainty_name = "spread (standard deviation)"
    presets: Mapping[Literal["default", "fast"], Preset] = {
        "default": Preset("multistep", 12),
        "fast": Preset("multistep", 8),
    }
    solvers: Mapping[Solver, int]
    """The solvers and their default numbers of steps."""
    max_steps: int | None = None

    def __init__(self, mlp: CellMLP, channels: int, noise_levels: int) -> None:
        super().__init__()
        self.mlp = mlp
        self.channels = channels
        self.noise_levels = noise_levels

    @classmethod
    def from_config(cls, config: DistributionConfig, width: int, size: int) -> Self:
        """See :meth:`CellDistribution.from_config`."""
        assert config.modulation is not None
        outputs = size * cls.outputs_per_channel
        mlp = CellMLP(size, outputs, width, config.mlp_depth, config.mlp_width, config.modulation)
        return cls(mlp, size, config.noise_levels, **further_settings(config, DistributionConfig))

    def loss(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """Mean over noise levels and channels, see :meth:`CellDistribution.loss`."""
        if generator is None:
            raise ValueError("generator: None given, but the loss of a continuous distribution draws noise")
        self._check(targets)
        B, R, C = len(targets), self.noise_levels, self.channels
        M = targets[0, ..., 0].numel()
        x = targets.reshape(B, M, 1, C).float()
        noise = to_device(generator.normal(M * R * C).view(B, M, R, C), x.device)
        quantiles = ((torch.arange(R) + generator.uniform(R).double()) / R).view(B, 1, R)
        condition = self.mlp.of_features(features.reshape(B, M, 1, -1))
        return self._losses(x, noise, quantiles, condition).mean(-1).view(targets.shape[:-1])

    @abstractmethod
    def _losses(self, x: Tensor, noise: Tensor, quantiles: Tensor, condition: list[Tensor]) -> Tensor:
        """Losses (B, M, R) of x (B, M, 1, C) with noise (B, M, R, C) at levels of quantiles (B, 1, R) in [0, 1).

        The quantiles are float64 on the CPU, so that results are exact and need no float64 on a device.
        """

    def sample(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> Tensor:
        """Samples (B, L, C) float32, see :meth:`CellDistribution.sample`."""
        sampling = self.plan(sampling)
        B, L, _ = features.shape
        with torch.autocast(features.device.type, enabled=False):
            # All noise at once, so that the loop over the steps never waits for the host.
            noise = generator.normal(L * self._num_noises(sampling) * self.channels).view(B, L, -1, self.channels)
            noise = to_device(noise.permute(2, 0, 1, 3).flatten(1, 2).contiguous(), features.device)  # (·, B·L, C)
            condition = self.mlp.of_features(features.float().flatten(0, 1))
            schedule = self.schedule(sampling) if schedule is None else schedule
            return self._draw(noise, condition, schedule, sampling).view(B, L, self.channels)

    def schedule(self, sampling: CellSampling) -> list[Tensor]:
        """The modulation by the noise levels of the solver."""
        device = self.mlp.output.weight.device
        with torch.autocast(device.type, enabled=False):
            return self.mlp.of_levels(
                to_device(torch.tensor(self._levels(self.plan(sampling)), dtype=torch.float32), device)
            )

    @abstractmethod
    def _levels(self, sampling: CellSampling) -> list[float]:
        """Noise levels between 0 and 1 in the order of the solver."""

    @abstractmethod
    def _num_noises(self, sampling: CellSampling) -> int:
        """Number of noise tensors needed to sample one token."""

    @abstractmethod
    def _draw(self, noise: Tensor, condition: list[Tensor], schedule: list[Tensor], sampling: CellSampling) -> Tensor:
        """Tokens (B·L, C) from noise (``_num_noises``, B·L, C) and the parts of features and of levels."""

    def log_prob(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """None, see :meth:`CellDistribution.log_prob`."""
        raise ValueError(f"{type(self).__name__} has no likelihood; flow and categorical distributions have")

    def belief(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean (B, L, C) and spread (B, L) of a few samples; the spread is the root mean square over the channels."""
        return self._moments(BELIEF_DRAWS, features, generator, sampling, schedule)

    def uncertainty(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> Tensor:
        """The spread of fewer samples than in :meth:`belief`, at temperature 1."""
        sampling = dataclasses.replace(sampling, temperature=1)
        return self._moments(CONFIDENCE_DRAWS, features, generator, sampling, schedule)[1]

    def _moments(
        self,
        count: int,
        features: Tensor,
        generator: KeyedGenerator,
        sampling: CellSampling,
        schedule: list[Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        values = [self.sample(features, generator, sampling, schedule) for _ in range(count)]
        variance, mean = torch.var_mean(torch.stack(values), dim=0)
        return mean, variance.mean(-1).sqrt()

    def plan(self, sampling: S) -> S:
        """See :meth:`CellDistribution.plan`."""
        for name in ("top_k", "top_p"):
            if getattr(sampling, name) is not None:
                raise ValueError(
                    f"{name}: {getattr(sampling, name)} given, but this model samples continuous tokens, not codes"
                )
        preset = self.presets[sampling.preset]
        solver = sampling.cell_solver or preset.solver
        if solver not in self.solvers:
            *others, last = self.solvers
            allowed = f"{', '.join(others)} or {last}" if others else last
            raise ValueError(f"cell_solver: {solver} given, but a {type(self).__name__} is drawn by {allowed}")
        steps = sampling.cell_steps or (preset.steps if solver == preset.solver else self.solvers[solver])
        if self.max_steps is not None and steps > self.max_steps:
            raise ValueError(f"cell_steps: {steps} given, must be at most {self.max_steps}")
        return dataclasses.replace(sampling, cell_solver=solver, cell_steps=steps)

    def _check(self, targets: Tensor) -> None:
        if not targets.is_floating_point() or targets.shape[-1] != self.channels:
            raise ValueError(
                f"tokens: {tuple(targets.shape)} of {targets.dtype} given, but this distribution is over "
                f"continuous tokens of {self.channels} channels"
            )
