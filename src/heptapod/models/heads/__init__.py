"""2D prediction heads: (hidden states, prefix lengths, target cells) -> one feature per target cell."""

import torch

from heptapod.configs.models import HEADS, ModelConfig
from heptapod.models.heads.base import Head, ReadStates, register_head
from heptapod.models.heads.cross import CrossHead
from heptapod.models.heads.global_ import GlobalHead
from heptapod.models.heads.group import GroupHead
from heptapod.models.heads.local import LocalHead
from heptapod.models.heads.next_token import NextTokenHead

__all__ = [
    "CrossHead",
    "GlobalHead",
    "GroupHead",
    "Head",
    "LocalHead",
    "NextTokenHead",
    "ReadStates",
    "build_head",
    "head_class",
    "head_without_weights",
    "register_head",
]


def head_class(kind: str) -> type[Head]:
    """The registered head of a kind.

    Raises:
        ValueError: if there is none.
    """
    found: type[Head] = HEADS.get(kind)
    return found


def head_without_weights(config: ModelConfig) -> Head:
    """The head of a model configuration on the meta device: its properties and shapes, no memory."""
    with torch.device("meta"):
        return build_head(config)


def build_head(config: ModelConfig) -> Head:
    """The head of a model configuration."""
    return head_class(config.head.kind).from_config(config)
