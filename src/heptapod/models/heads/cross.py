"""CrossHead: any set of cells, each by cross-attention to the states read so far; queries do not see each other.

Every prefix can be supervised at once, and sampling computes only the cells that are sampled now.
"""

from __future__ import annotations

from torch import Tensor, nn

from heptapod.configs.models import Density
from heptapod.models.heads.base import Head, ReadStates, prefix_mask, register_head
from heptapod.nn.flex import block_mask
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import CrossBlock, GroupBlock, Mask, RMSNorm


@register_head("cross")
class CrossHead(Head):
    """Queries (h_t + the target's position) attend to h_0..h_t; no attention among queries."""

    density: Density = ("all", 1)
    separate_targets = True
    block: type[CrossBlock | GroupBlock] = CrossBlock
    """The blocks it is made of."""
    flex_attention = False
    """Whether training skips the empty blocks of its mask, see :mod:`heptapod.nn.flex`."""

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float) -> None:
        super().__init__(width, depth, num_heads, rotary_base)
        self.blocks = nn.ModuleList(self.block(width, num_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """See :meth:`Head.forward`."""
        _, S, L = targets.shape
        cells = targets.flatten(1)  # (B, S·L)
        query = states.at(prefix_lengths).unsqueeze(2).expand(-1, -1, L, -1).flatten(1, 2)  # (B, S·L, D)
        x = query + self.position(cells, states)
        memory, memory_rotary = self.memory(states, cache)
        mask: Mask | None = None
        if cache is None:
            mask = self.mask(prefix_lengths, states.hidden.shape[1], targets)
            mask = block_mask(mask) if self.flex_attention else mask
        rotary = self.rotary(cells, states)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, memory, memory_rotary, mask, cache and cache.layer(layer))
        if cache is not None:
            cache.advance(memory.shape[1])  # what a block put behind, of the queries, is overwritten by the next step
        out: Tensor = self.norm(x).unflatten(1, (S, L))
        return out

    def mask(self, prefix_lengths: Tensor, num_states: int, targets: Tensor) -> Tensor:
        """(B or 1, 1, S·L, keys): what the queries of targets (B, S, L) see of the keys of a block."""
        return prefix_mask(prefix_lengths, num_states, targets.shape[2])
