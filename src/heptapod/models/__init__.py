"""The model: a causal backbone, a 2D prediction head and the distribution of one cell."""

from heptapod.configs.models import HEADS, HeadConfig, ModelConfig
from heptapod.models.heads import Head, ReadStates, head_class, register_head
from heptapod.models.heptapod import HeptapodModel, ReadCache

__all__ = [
    "HEADS",
    "Head",
    "HeadConfig",
    "HeptapodModel",
    "ModelConfig",
    "ReadCache",
    "ReadStates",
    "head_class",
    "register_head",
]
