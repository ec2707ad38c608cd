"""What belongs to a trained model: the token model, its tokenizer and what is known about both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from heptapod.grid import TokenOrder
from heptapod.models import HeptapodModel
from heptapod.sampling import SamplingConfig
from heptapod.tokenizers import Tokenizer
from heptapod.tokenizers.base import to_uint8

DEFAULT_BATCH = 64
"""Images at a time where no batch size is given."""


class ModelBundle:
    """A trained model, its tokenizer and what is known about both.

    Args:
        model: the token model.
        tokenizer: turns its tokens into pixels.
        class_names: names of the classes.
        token_order: the order(s) the model was trained on.
        sampling: defaults of :meth:`generate`.
        metadata: anything worth knowing about the weights (the step, held-out figures).
        label_dropout: how often it was trained without the label; None if that is not known.
    """

    def __init__(
        self,
        model: HeptapodModel,
        tokenizer: Tokenizer,
        class_names: Sequence[str] = (),
        token_order: TokenOrder = "raster",
        sampling: SamplingConfig | None = None,
        metadata: dict[str, str] | None = None,
        label_dropout: float | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer.eval()
        self.class_names = list(class_names)
        self.token_order = token_order
        self.sampling = sampling or SamplingConfig()
        self.metadata = metadata or {}
        self.label_dropout = label_dropout

    @torch.no_grad()
    def decode(self, tokens: Tensor, batch_size: int | None = None) -> Tensor:
        """Tokens (M, N) or (M, N, C) to pixels (M, 3, h, w) uint8 on the CPU; ``batch_size`` as in :meth:`generate`."""
        parts = [
            self.tokenizer.decode(tokens[rows].to(self.tokenizer.device), self.model.grid)[:kept]
            for rows, kept in padded_batches(len(tokens), batch_size)
        ]
        return to_uint8(torch.cat(parts)).cpu()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its images in pixels."""
        grid, factor = self.model.grid, self.tokenizer.factor
        return grid.height * factor, grid.width * factor


def padded_batches(total: int, batch_size: int | None) -> Iterator[tuple[list[int], int]]:
    """Row numbers of each batch and how many of them count: a fixed size is filled up with the last row."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, must be at least 1")
    size = batch_size or min(total, DEFAULT_BATCH)
    for start in range(0, total, size):
        kept = min(size, total - start)
        filled = size if batch_size else kept
        yield [min(i, total - 1) for i in range(start, start + filled)], kept
