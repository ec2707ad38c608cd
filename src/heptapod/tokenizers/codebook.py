"""A vector-quantization codebook that follows its data by exponential moving averages (1711.00937, appendix A.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heptapod.distributed import process_group
from heptapod.utils.random import Stream, numpy_generator, to_device


@dataclass
class CodebookStatistics:
    """Codebook statistics of a batch; those of several micro-batches add up."""

    counts: Tensor
    """(V,): vectors assigned to each code."""
    sums: Tensor
    """(V, C): their sums."""
    vectors: Tensor
    """(M, C): the vectors, from which unused codes restart."""

    def __add__(self, other: CodebookStatistics) -> CodebookStatistics:
        vectors = torch.cat([self.vectors, other.vectors])
        return CodebookStatistics(self.counts + other.counts, self.sums + other.sums, vectors)

    def across_ranks(self) -> CodebookStatistics:
        """The statistics of all processes together, the same to the bit in each of them."""
        gathered = zip(
            process_group.all_gather(self.counts),
            process_group.all_gather(self.sums),
            process_group.all_gather(self.vectors),
            strict=True,
        )
        first, *others = (CodebookStatistics(*tensors) for tensors in gathered)
        return sum(others, first)


class Codebook(nn.Module):
    """V vectors of C channels, each the running mean of the vectors assigned to it.

    Args:
        size: number of codes V.
        width: C, channels per code.
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
        """Codes (M,) int64 of the nearest vectors to x (M, C); see :func:`nearest`."""
        return nearest(x, self.vectors)

    @torch.no_grad()
    def statistics(self, x: Tensor, codes: Tensor) -> CodebookStatistics:
        """Counts and sums of vectors (M, C) by their codes (M,)."""
        x = x.detach().to(self.vectors.dtype)
        counts = torch.zeros_like(self.counts).index_add_(0, codes, torch.ones_like(x[:, 0]))
        sums = torch.zeros_like(self.vectors).index_add_(0, codes, x)
        return CodebookStatistics(counts, sums, x)

    @torch.no_grad()
    def update(self, statistics: CodebookStatistics, seed: int, step: int) -> Tensor:
        """Moves the codes towards the means of their vectors; unused codes restart at vectors of the batch.

        The first update starts all codes at vectors of its batch.

        Args:
            statistics: of all vectors of the step.
            seed: with ``step``, keys the choice of restart vectors.
            step: training step.

        Returns:
            Number of codes restarted, a tensor (reading it would wait for the device).
        """
        fair_share = statistics.counts.sum() / len(self.counts)
        sums = torch.lerp(self.vectors * self.counts.unsqueeze(-1), statistics.sums, 1 - self.decay)
        counts = torch.lerp(self.counts, statistics.counts, 1 - self.decay)
        dead = counts < self.dead_below * fair_share
        restart = dead | ~self.initialized
        candidates = self._candidates(statistics.vectors, seed, step)
        means = sums / counts.clamp(min=1e-6).unsqueeze(-1)
        self.vectors.copy_(torch.where(restart.unsqueeze(-1), candidates, means))
        self.counts.copy_(torch.where(restart, fair_share, counts))
        num_restarted = (dead & self.initialized).sum()
        self.initialized.fill_(True)
        return num_restarted

    def _candidates(self, vectors: Tensor, seed: int, step: int) -> Tensor:
        """A vector of the batch for every code, all different where there are enough."""
        size = len(self.counts)
        index = numpy_generator(Stream.CODEBOOK, seed, step).choice(len(vectors), size, replace=size > len(vectors))
        return vectors[to_device(torch.from_numpy(index), vectors.device)]

    def perplexity(self) -> Tensor:
        """exp(entropy) of the codes' running frequencies: how many are used evenly, up to V."""
        return perplexity_of(self.counts)


def nearest(x: Tensor, vectors: Tensor) -> Tensor:
    """Codes (M,) int64 of those of ``vectors`` (V, C) that are nearest to x (M, C), at least in float32.

    Distances are computed for as many x at a time as take 64 MiB.
    """
    rows = max(1, 2**24 // len(vectors))
    vectors = vectors if vectors.dtype == torch.float64 else vectors.float()
    with torch.autocast(x.device.type, enabled=False):
        square = vectors.square().sum(-1)
        parts = [(square - 2 * part.to(vectors.dtype) @ vectors.T).argmin(-1) for part in x.split(rows)]
    return torch.cat(parts)


def nearest_or_none(x: Tensor, vectors: Tensor) -> Tensor:
    """The same, with -1 for an x that is not finite, of which none is nearest."""
    return torch.where(x.isfinite().all(-1), nearest(x, vectors), -1)


def perplexity_of(counts: Tensor) -> Tensor:
    """exp(entropy) of frequencies, given as counts (V,): how many codes are used evenly, up to V."""
    frequencies = counts / counts.sum().clamp(min=1e-12)
    return torch.exp(-(frequencies * frequencies.clamp(min=1e-12).log()).sum())


@torch.no_grad()
def codebook_usage(codes: Tensor, size: int) -> tuple[float, float]:
    """Fraction of the codes that occur, and the perplexity exp(entropy) of their frequencies."""
    counts = torch.bincount(codes.flatten(), minlength=size).double()
    return float((counts > 0).double().mean()), float(perplexity_of(counts))
