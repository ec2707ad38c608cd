"""2D prediction heads: (hidden states, prefix lengths, target cells) -> one feature per target cell."""

from heptapod.models.config import ModelConfig
from heptapod.models.heads.base import Head, ReadStates
from heptapod.models.heads.cross import CrossHead
from heptapod.models.heads.global_ import GlobalHead
from heptapod.models.heads.local import LocalHead
from heptapod.models.heads.next_token import NextTokenHead

__all__ = ["CrossHead", "GlobalHead", "Head", "LocalHead", "NextTokenHead", "ReadStates", "build_head"]

DEFAULT_WINDOW = 5
"""Window of a local head where none is set."""


def build_head(config: ModelConfig) -> Head:
    """The head that a model configuration names."""
    head = config.head
    common = (config.width, head.depth, config.num_heads, config.rotary_base)
    match head.kind:
        case "global":
            return GlobalHead(*common)
        case "local":
            return LocalHead(*common, window=head.window or DEFAULT_WINDOW)
        case "cross":
            return CrossHead(*common)
        case "next_token":
            return NextTokenHead(*common)
