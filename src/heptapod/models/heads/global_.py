"""GlobalHead: a bidirectional Transformer over the whole grid, once per prefix. The paper's best head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heptapod.models.heads.base import Head, ReadStates, register_head
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import RMSNorm, SelfBlock


@register_head("global")
class GlobalHead(Head):
    """Read cells carry their hidden state, unread cells a mask query with h_t; all cells see each other.

    Exact sampling runs it over the whole grid once per step, its last block for the sampled cells only. With a cache it
    is approximate: a cell is processed once after it was read, and later steps take its keys and values as they were
    then, though it would now see other unread cells. Each step then costs the unread cells only.
    """

    cache_is_exact = False
    density = (1, "all")

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float) -> None:
        super().__init__(width, depth, num_heads, rotary_base)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(SelfBlock(width, num_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """See :meth:`Head.forward`."""
        if cache is not None:
            return self._approximate(states, targets.squeeze(1), cache).unsqueeze(1)
        B, S, _ = targets.shape
        N = states.grid_height * states.grid_width
        D = states.hidden.shape[-1]
        prefixes = prefix_lengths.expand(B, S).unsqueeze(-1)  # (B, S, 1)

        rank = states.rank().unsqueeze(1)  # (B, 1, N)
        is_read = rank <= prefixes  # (B, S, N)

        source = torch.where(is_read, rank, prefixes).flatten(1)  # h_i of a read cell, h_t of an unread one
        x = states.hidden.gather(1, source.unsqueeze(-1).expand(-1, -1, D)).unflatten(1, (S, N))
        x = x + self.mask_token * (~is_read).unsqueeze(-1)
        cells = torch.arange(N, device=targets.device).unsqueeze(0)
        x = (x + self.position(cells, states).unsqueeze(1)).flatten(0, 1)  # (B·S, N, D)

        rotary = self.rotary(cells, states)
        for block in self.blocks[:-1]:
            x = block(x, rotary)
        wanted = targets.flatten(0, 1)  # (B·S, L)
        x = self.blocks[-1](x, rotary, only=(wanted, self.rotary(wanted, states)))
        out: Tensor = self.norm(x).unflatten(0, (B, S))
        return out

    def _approximate(self, states: ReadStates, targets: Tensor, cache: KVCache) -> Tensor:
        """Features (B, L, D) of targets (B, L); the cells read since the last step enter the cache."""
        B, N, t = len(targets), states.grid_height * states.grid_width, states.num_read
        fresh = states.cells[:, 1 + cache.length :]  # (B, new) read, but not yet cached
        new = fresh.shape[1]
        is_read = torch.zeros(B, N, dtype=torch.bool, device=targets.device).scatter(1, states.cells[:, 1:], True)
        unread = is_read.to(torch.uint8).argsort(dim=1, stable=True)[:, : N - t]  # in raster order
        cells = torch.cat([fresh, unread], dim=1)
        hidden = states.hidden[:, 1 + cache.length :]
        x = torch.cat([hidden, (states.hidden[:, t:] + self.mask_token).expand(-1, N - t, -1)], dim=1)
        x = x + self.position(cells, states)

        rotary = self.rotary(cells, states)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, cache=cache.layer(layer))
        cache.advance(new)  # what lies behind, of unread cells, is overwritten by the next step
        slot = (unread.unsqueeze(1) == targets.unsqueeze(2)).to(torch.uint8).argmax(2) + new
        out: Tensor = self.norm(x.gather(1, slot.unsqueeze(-1).expand(-1, -1, x.shape[-1])))
        return out
