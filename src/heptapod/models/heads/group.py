"""GroupHead: any set of cells, predicted together: the queries of one prefix see the states read and each other.

With all unread cells as targets it is a global head that leaves the states of the read cells as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.models.heads.base import prefix_mask, register_head
from heptapod.models.heads.cross import CrossHead
from heptapod.nn.layers import GroupBlock


@register_head("group")
class GroupHead(CrossHead):
    """Queries (h_t + the target's position) attend to h_0..h_t and to all queries of the same prefix.

    A prediction depends on the cells that are asked for together with it, never on their tokens. It does not depend
    on their order, nor on padding (a target that repeats the first one of its row).
    """

    density = (32, 8)
    separate_targets = False
    sees_targets = True
    block = GroupBlock

    def mask(self, prefix_lengths: Tensor, num_states: int, targets: Tensor) -> Tensor:
        """Rows (B, S, L) of the same prefix are one group: a group may be packed as L = 1."""
        return group_mask(prefix_lengths, num_states, targets)


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
