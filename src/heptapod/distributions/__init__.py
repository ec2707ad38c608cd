"""Distributions of one cell given the head's feature. A distribution never knows the grid."""

from heptapod.distributions.base import CellDistribution, Filter
from heptapod.distributions.categorical import Categorical

__all__ = ["Categorical", "CellDistribution", "Filter"]
