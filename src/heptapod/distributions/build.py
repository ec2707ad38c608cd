"""Builds the distribution that a configuration names."""

from __future__ import annotations

from heptapod.configs.distributions import DISTRIBUTIONS, DistributionConfig
from heptapod.distributions.base import CellDistribution


def build_distribution(
    config: DistributionConfig, width: int, vocabulary_size: int = 0, channels: int = 0
) -> CellDistribution:
    """A distribution for discrete or continuous tokens.

    Args:
        config: kind, and size of the MLP.
        width: D, width of the features.
        vocabulary_size: V of discrete tokens; 0 for continuous ones.
        channels: C of continuous tokens; 0 for discrete ones.

    Raises:
        ValueError: if the distribution is for the other kind of tokens.
    """
    cls = distribution_class(config.kind)
    if cls.is_discrete != (vocabulary_size > 0):
        tokens = f"{vocabulary_size:,} codes" if vocabulary_size else f"continuous with {channels} channels"
        fitting = "categorical" if vocabulary_size else "flow or diffusion"
        raise ValueError(
            f"model.distribution.kind: {config.kind} given, but the tokenizer's tokens are {tokens}: use {fitting}, or "
            f"a {'continuous' if vocabulary_size else 'discrete'} tokenizer"
        )
    return cls.from_config(config, width, vocabulary_size or channels)


def distribution_class(kind: str) -> type[CellDistribution]:
    """The registered distribution of a kind.

    Raises:
        ValueError: if there is none.
    """
    found: type[CellDistribution] = DISTRIBUTIONS.get(kind)
    return found
