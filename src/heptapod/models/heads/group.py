"""GroupHead: any set of cells, predicted together: the queries of one prefix see the states read and each other.

With all unread cells as targets it is a global head that leaves the states of the read cells as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heptapod.models.heads.base import Head, ReadStates, prefix_mask, register_head
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import GroupBlock, RMSNorm


@register_head("group")
class GroupHead(Head):
    """Queries (h_t + the target's position) attend to h_0..h_t and to all queries of the same prefix.

    A prediction depends on the cells that are asked for together with it, never on their tokens. It does not depend
    on their order, nor on padding (a target that repeats the first one of its row).
    """

    density = (32, 8)
    sees_targets = True

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float) -> None:
        super().__init__(width, depth, num_heads, rotary_base)
        self.blocks = nn.ModuleList(GroupBlock(width, num_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """See :meth:`Head.forward`. Rows (B, S, L) of the same prefix are one group: a group may be packed as L = 1."""
        _, S, L = targets.shape
        cells = targets.flatten(1)  # (B, S·L)
        query = states.at(prefix_lengths).unsqueeze(2).expand(-1, -1, L, -1).flatten(1, 2)  # (B, S·L, D)
        x = query + self.position(cells, states)
        memory, memory_rotary = self.memory(states, cache)
        mask = None if cache is not None else group_mask(prefix_lengths, states.hidden.shape[1], targets)
        rotary = self.rotary(cells, states)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, memory, memory_rotary, mask, cache and cache.layer(layer))
        if cache is not None:
            cache.advance(memory.shape[1])  # what lies behind, of the queries, is overwritten by the next step
        out: Tensor = self.norm(x).unflatten(1, (S, L))
        return out


def group_mask(prefix_lengths: Tensor, num_states: int, targets: Tensor) -> Tensor:
    """(B, 1, S·L, num_states + S·L): a query of prefix t sees h_0..h_t and the queries of prefix t without padding."""
    B, _, L = targets.shape
    memory = prefix_mask(prefix_lengths, num_states, L).expand(B, -1, -1, -1)
    prefixes = prefix_lengths.repeat_interleave(L, dim=1)
    same = prefixes.unsqueeze(2) == prefixes.unsqueeze(1)  # (B or 1, S·L, S·L)
    counts = targets != targets[..., :1]
    counts[..., 0] = True
    own = (same & counts.flatten(1).unsqueeze(1)).unsqueeze(1)
    return torch.cat([memory, own], dim=-1)
