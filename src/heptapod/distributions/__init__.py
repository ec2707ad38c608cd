"""Cell distributions: what a token in one cell may be, given the head's feature for it."""

from heptapod.configs.distributions import DISTRIBUTIONS, CellSampling, DistributionConfig
from heptapod.distributions.base import CellDistribution, register_distribution
from heptapod.distributions.build import build_distribution, distribution_class
from heptapod.distributions.categorical import Categorical
from heptapod.distributions.diffusion import DiffusionDistribution
from heptapod.distributions.flow import FlowDistribution

__all__ = [
    "DISTRIBUTIONS",
    "Categorical",
    "CellDistribution",
    "CellSampling",
    "DiffusionDistribution",
    "DistributionConfig",
    "FlowDistribution",
    "build_distribution",
    "distribution_class",
    "register_distribution",
]
