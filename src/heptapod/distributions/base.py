"""The interface of a cell distribution."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from heptapod.random import KeyedGenerator


@dataclass(frozen=True)
class Filter:
    """How a cell is drawn from its distribution."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely value."""
    top_k: int | None = None
    """Keep the k most likely codes only."""
    top_p: float | None = None
    """Keep the smallest set of most likely codes that holds this probability."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature) or self.temperature < 0:
            raise ValueError(f"temperature: {self.temperature} given, must be a number of at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k: {self.top_k} given, must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} given, must be above 0 and at most 1")


class CellDistribution(nn.Module, ABC):
    """p(x_n | feature): how one cell is learned, drawn and judged."""

    @abstractmethod
    def loss(self, features: Tensor, targets: Tensor, generator: KeyedGenerator | None = None) -> Tensor:
        """The training loss of every cell.

        Args:
            features: (B, ..., D) features of the head.
            targets: (B, ...) int64 codes, or (B, ..., C) vectors.
            generator: randomness of the loss, one stream per image; None for a loss without any.

        Returns:
            (B, ...) float32, nats where the loss is a likelihood.
        """

    @abstractmethod
    def sample(self, features: Tensor, generator: KeyedGenerator, how: Filter) -> Tensor:
        """Draws one value per feature (B, L, D), image b with the b-th stream: (B, L) or (B, L, C)."""

    @abstractmethod
    def log_prob(self, features: Tensor, targets: Tensor) -> Tensor:
        """Log p(target | feature) in nats, float32, (B, ...).

        Raises:
            NotImplementedError: if the distribution has no likelihood.
        """

    @abstractmethod
    def belief(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely value and the uncertainty (entropy in nats, or spread) for each feature (B, L, D)."""
