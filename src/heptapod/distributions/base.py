"""The interface of every cell distribution.

Shape legend: B batch, L cells, D width of a feature, C channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, TypeVar

from torch import Tensor, nn

from heptapod.configs.distributions import DISTRIBUTIONS, CellSampling, DistributionConfig
from heptapod.utils.random import KeyedGenerator
from heptapod.utils.registry import further_settings

S = TypeVar("S", bound=CellSampling)


class CellDistribution(nn.Module, ABC):
    """p(x_n | feature): the loss, the samples and the likelihood of one cell."""

    is_discrete: bool = False
    """Whether tokens are discrete (codes) rather than continuous."""
    has_mlp: bool = False
    """Whether the MLP settings of :class:`DistributionConfig` apply."""
    loss_is_likelihood: bool = False
    """Whether the loss is −log p in nats."""
    has_likelihood: bool = True
    """Whether :meth:`log_prob` gives one."""
    uncertainty_name: str
    """The quantity that :meth:`belief` measures, with its unit, as pictures name it."""

    @classmethod
    def from_config(cls, config: DistributionConfig, width: int, size: int) -> Self:
        """Builds the distribution; further settings of its config class are keyword arguments.

        Args:
            config: its settings.
            width: D, width of the features.
            size: V of discrete tokens, or C of continuous ones.
        """
        return cls(width, size, **further_settings(config, DistributionConfig))

    @abstractmethod
    def loss(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """The training loss of every cell.

        Args:
            features: (B, ..., D) features of the head.
            targets: (B, ...) int64 codes, or (B, ..., C) continuous tokens.
            generator: randomness of the loss, one stream per image; None for a loss without any.

        Returns:
            (B, ...) float32, nats where the loss is a likelihood.
        """

    @abstractmethod
    def sample(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> Tensor:
        """Samples one token per feature.

        Args:
            features: (B, L, D).
            generator: image b uses the b-th stream of random numbers.
            sampling: the sampling config of a cell; solver and steps may be unset.
            schedule: the result of :meth:`schedule` for the same ``sampling``; computed if None.

        Returns:
            (B, L) int64, -1 where the prediction is not finite; or (B, L, C) float32.
        """

    def schedule(self, sampling: CellSampling) -> list[Tensor]:
        """The part of sampling that does not depend on the cells, computed once per image."""
        return []

    @abstractmethod
    def log_prob(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """Log p(target | feature) in nats, float32, (B, ...); arguments as for :meth:`loss`.

        Raises:
            ValueError: if the distribution has no likelihood, or if it estimates the likelihood and generator is None.
        """

    @abstractmethod
    def belief(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The prediction for each feature (B, L, D): most likely code or mean, and uncertainty (entropy or spread)."""

    def uncertainty(
        self, features: Tensor, generator: KeyedGenerator, sampling: CellSampling, schedule: list[Tensor] | None = None
    ) -> Tensor:
        """The uncertainty (B, L) of each cell, estimated cheaply: the order ``confidence`` sorts by it."""
        return self.belief(features, generator, sampling, schedule)[1]

    @abstractmethod
    def plan(self, sampling: S) -> S:
        """The same config with solver and solver steps filled in.

        Raises:
            ValueError: naming a setting that this distribution does not support.
        """


D = TypeVar("D", bound=CellDistribution)


def register_distribution(kind: str, config: type[DistributionConfig] | None = None) -> Callable[[type[D]], type[D]]:
    """Class decorator: makes a cell distribution available as ``model.distribution.kind``.

    Args:
        kind: its name in recipes and saved models.
        config: a subclass of :class:`DistributionConfig` with ``kind: str = <kind>`` and further settings.

    Raises:
        ValueError: if another distribution is registered under that name.
    """

    def register(distribution: type[D]) -> type[D]:
        DISTRIBUTIONS.register(kind, distribution, config)
        return distribution

    return register
