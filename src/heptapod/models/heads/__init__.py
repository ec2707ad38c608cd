"""2D prediction heads: (hidden states, prefix lengths, target cells) -> one feature per target cell."""

from heptapod.models.heads.base import Head, ReadStates, build_head
from heptapod.models.heads.cross import CrossHead
from heptapod.models.heads.global_ import GlobalHead
from heptapod.models.heads.local import LocalHead
from heptapod.models.heads.next_token import NextTokenHead

__all__ = ["CrossHead", "GlobalHead", "Head", "LocalHead", "NextTokenHead", "ReadStates", "build_head"]
