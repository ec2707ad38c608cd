"""NextTokenHead: a causal Transformer that predicts only the next cell σ(t+1). The in-repo baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heptapod.models.heads.base import Head, ReadStates, register_head
from heptapod.nn.kv_cache import KVCache
from heptapod.nn.layers import RMSNorm, SelfBlock, causal_self_attention_mask


@register_head("next_token")
class NextTokenHead(Head):
    """Causal self-attention over u_0..u_t with u_i = h_i + the position of cell σ(i+1), so any order works."""

    predicts_grid = False
    density = ("all", 1)

    def __init__(self, width: int, depth: int, num_heads: int, rotary_base: float) -> None:
        super().__init__(width, depth, num_heads, rotary_base)
        self.blocks = nn.ModuleList(SelfBlock(width, num_heads) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(
        self, states: ReadStates, prefix_lengths: Tensor, targets: Tensor, cache: KVCache | None = None
    ) -> Tensor:
        """See :meth:`Head.forward`; L must be 1, and a cached step must ask for the cell that is read next."""
        B, S, L = targets.shape
        if L != 1:
            raise ValueError(f"targets_per_prefix: {L} given, but NextTokenHead predicts the next cell only (1)")
        start = 0
        if cache is not None:
            start = cache.length = min(cache.length, states.num_read)
        # The next cell after state i is that of token i + 1; after the last state it is the target's.
        next_cells = torch.cat([states.cells[:, 1:], targets[:, -1:, 0]], dim=1)
        next_cells = next_cells.scatter(1, prefix_lengths.expand(B, S), targets[..., 0])[:, start:]

        x = states.hidden[:, start:] + self.position(next_cells, states)
        rotary = self.rotary(next_cells, states)
        causal = start == 0
        mask = None if causal else causal_self_attention_mask(x.shape[1], start, x.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, mask, causal, cache and cache.layer(layer))
        if cache is not None:
            cache.advance(x.shape[1])
            return self.norm(x[:, -1:]).unsqueeze(2)  # type: ignore[no-any-return]
        index = prefix_lengths.expand(B, S).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        out: Tensor = self.norm(x.gather(1, index)).unsqueeze(2)
        return out
