"""The model: a causal backbone, a 2D prediction head and the distribution of one cell."""

from heptapod.models.config import HeadConfig, ModelConfig
from heptapod.models.heptapod import HeptapodModel, ReadCache

__all__ = ["HeadConfig", "HeptapodModel", "ModelConfig", "ReadCache"]
