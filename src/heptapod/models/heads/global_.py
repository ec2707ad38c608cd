"""GlobalHead: a bidirectional Transformer over the whole grid, once per prefix. The paper's best head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heptapod.models.heads.base import Head, ReadStates
from heptapod.models.kv_cache import KVCache
from heptapod.models.layers import RMSNorm, SelfBlock


class GlobalHead(Head):
    """Read cells carry their hidden state, unread cells a mask query with h_t; all cells see each other."""

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float) -> None:
        super().__init__(width, depth, num_heads, rotary_base)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(SelfBlock(width, num_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """See :meth:`Head.forward`; nothing is cached, since every read cell sees the unread ones."""
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
        for block in self.blocks:
            x = block(x, rotary)
        x = x.unflatten(0, (B, S)).gather(2, targets.unsqueeze(-1).expand(-1, -1, -1, D))
        out: Tensor = self.norm(x)
        return out

    def new_cache(self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype) -> KVCache | None:
        """None: nothing is kept between steps."""
        return None
