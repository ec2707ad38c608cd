"""The token grid: its shape, what a token is, and tokens on cells.

Shape legend: B batch, N cells, k cells of a part, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.configs.grid import MAX_CELLS, MAX_CHANNELS, MAX_CODES
from heptapod.utils.messages import shown


@dataclass(frozen=True)
class GridSpec:
    """A token grid: its shape and what a token is."""

    height: int
    """Rows."""
    width: int
    """Columns."""
    vocabulary_size: int = 0
    """V: tokens are codes in 0..V-1; 0 for continuous tokens."""
    channels: int = 0
    """C: tokens are continuous, with C channels; 0 for codes."""

    def __post_init__(self) -> None:
        for name, least, most in (
            *(("height", 1, MAX_CELLS), ("width", 1, MAX_CELLS)),
            *(("vocabulary_size", 0, MAX_CODES), ("channels", 0, MAX_CHANNELS)),
        ):
            if not least <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name}: {shown(value)} given, must be at least {least} and at most {most:,}")
        if (self.vocabulary_size > 0) == (self.channels > 0):
            raise ValueError(
                f"vocabulary_size: {self.vocabulary_size} and channels: {self.channels} given, one of them must be "
                "above 0"
            )

    @property
    def num_cells(self) -> int:
        """N = H·W."""
        return self.height * self.width

    @property
    def is_discrete(self) -> bool:
        """Whether tokens are codes."""
        return self.vocabulary_size > 0

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of the tokens of one image: (N,) or (N, C)."""
        return (self.num_cells,) if self.is_discrete else (self.num_cells, self.channels)

    def empty_tokens(self, batch: int) -> Tensor:
        """Zeros (B, N) int64 or (B, N, C) float32 on the CPU."""
        return torch.zeros(batch, *self.token_shape, dtype=torch.int64 if self.is_discrete else torch.float32)


def tokens_at(tokens: Tensor, cells: Tensor) -> Tensor:
    """Tokens (B, N) or (B, N, C) on cells (B, k): (B, k) or (B, k, C)."""
    if tokens.ndim == 2:
        return tokens.gather(1, cells)
    return tokens.gather(1, cells.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def with_tokens_at(tokens: Tensor, cells: Tensor, values: Tensor) -> Tensor:
    """A copy of tokens (B, N) or (B, N, C) with values (B, k) or (B, k, C) on cells (B, k)."""
    index = cells if tokens.ndim == 2 else cells.unsqueeze(-1).expand_as(values)
    return tokens.scatter(1, index, values)
