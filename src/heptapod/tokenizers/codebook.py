"""A vector-quantisation codebook that follows its data by exponential moving averages (1711.00937, appendix A.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heptapod.random import Stream, numpy_generator


@dataclass
class CodebookStatistics:
    """What a batch tells the codebook; statistics of several micro-batches add up."""

    counts: Tensor
    """(V,) float32: vectors assigned to each code."""
    sums: Tensor
    """(V, C) float32: their sums."""
    vectors: Tensor
    """(M, C) float32: the vectors, from which unused codes restart."""

    def __add__(self, other: CodebookStatistics) -> CodebookStatistics:
        vectors = torch.cat([self.vectors, other.vectors])
        return CodebookStatistics(self.counts + other.counts, self.sums + other.sums, vectors)


class Codebook(nn.Module):
    """V vectors of C numbers, each the running mean of the vectors assigned to it.

    Args:
        size: number of codes V.
        width: C, numbers per code.
        decay: of the moving averages.
        dead_below: a code whose average count per step falls below this fraction of a fair share restarts.
    """

    vectors: Tensor
    counts: Tensor
    initialized: Tensor

    def __init__(self, size: int, width: int, decay: float, dead_below: float) -> None:
        super().__init__()
        self.decay = decay
        self.dead_below = dead_below
        self.register_buffer("vectors", torch.zeros(size, width))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    def nearest(self, x: Tensor) -> Tensor:
        """Codes (M,) int64 of the nearest vectors to x (M, C)."""
        distance = self.vectors.square().sum(-1) - 2 * x @ self.vectors.T
        return distance.argmin(-1)

    @torch.no_grad()
    def statistics(self, x: Tensor, codes: Tensor) -> CodebookStatistics:
        """Counts and sums of vectors (M, C) by their codes (M,)."""
        x = x.detach().float()
        counts = torch.zeros_like(self.counts).index_add_(0, codes, torch.ones_like(x[:, 0]))
        sums = torch.zeros_like(self.vectors).index_add_(0, codes, x)
        return CodebookStatistics(counts, sums, x)

    @torch.no_grad()
    def update(self, statistics: CodebookStatistics, seed: int, step: int) -> int:
        """Moves the codes towards the means of their vectors; unused codes restart at vectors of the batch.

        Args:
            statistics: of all vectors of the step.
            seed: with ``step``, keys the choice of restart vectors.
            step: training step.

        Returns:
            Codes restarted.
        """
        fair_share = statistics.counts.sum() / len(self.counts)
        if not self.initialized:
            self._restart(torch.ones_like(self.counts, dtype=torch.bool), statistics.vectors, seed, step)
            self.counts.fill_(float(fair_share))
            self.initialized.fill_(True)
            return 0
        sums = self.vectors * self.counts.unsqueeze(-1)
        self.counts.lerp_(statistics.counts, 1 - self.decay)
        sums.lerp_(statistics.sums, 1 - self.decay)
        self.vectors.copy_(sums / self.counts.clamp(min=1e-6).unsqueeze(-1))
        dead = self.counts < self.dead_below * fair_share
        num_dead = int(dead.sum())
        if num_dead:
            self._restart(dead, statistics.vectors, seed, step)
            self.counts[dead] = fair_share
        return num_dead

    def _restart(self, which: Tensor, vectors: Tensor, seed: int, step: int) -> None:
        count = int(which.sum())
        rng = numpy_generator(Stream.CODEBOOK, seed, step)
        index = rng.choice(len(vectors), size=count, replace=count > len(vectors))
        self.vectors[which] = vectors[torch.from_numpy(index).to(vectors.device)]
