"""Builds the distribution that settings name."""

from __future__ import annotations

from heptapod.distributions.base import CellDistribution
from heptapod.distributions.categorical import Categorical
from heptapod.distributions.cell_mlp import CellMLP
from heptapod.distributions.config import DistributionConfig
from heptapod.distributions.diffusion import DiffusionDistribution
from heptapod.distributions.flow import FlowDistribution


def build_distribution(
    config: DistributionConfig, width: int, vocabulary_size: int = 0, channels: int = 0
) -> CellDistribution:
    """A distribution for tokens of one kind.

    Args:
        config: kind, and size of the MLP.
        width: D, width of the features.
        vocabulary_size: V of codes; 0 for vectors.
        channels: C of vectors; 0 for codes.

    Raises:
        ValueError: if kind and tokens do not go together.
    """
    if (config.kind == "categorical") != (vocabulary_size > 0):
        tokens = f"{vocabulary_size:,} codes" if vocabulary_size else f"vectors of {channels} numbers"
        fitting = "categorical" if vocabulary_size else "flow or diffusion"
        raise ValueError(
            f"model.distribution.kind: {config.kind} given, but the tokenizer's tokens are {tokens}: use {fitting}, or "
            f"a {'continuous' if vocabulary_size else 'discrete'} tokenizer"
        )
    if config.kind == "categorical":
        return Categorical(width, vocabulary_size)
    assert config.modulation is not None
    outputs = channels * (2 if config.kind == "diffusion" else 1)
    mlp = CellMLP(channels, outputs, width, config.mlp_depth, config.mlp_width, config.modulation)
    kind = DiffusionDistribution if config.kind == "diffusion" else FlowDistribution
    return kind(mlp, channels, config.noise_levels)
