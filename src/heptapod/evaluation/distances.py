"""Distances between two sets of feature vectors: Fréchet (FID) and kernel (KID)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heptapod.utils.random import Stream, numpy_generator


class FeatureStatistics:
    """Count, mean and covariance of features, accumulated batch by batch in float64.

    Statistics of parts add up (``a + b``) to those of the whole, and no result depends on the batches.

    Args:
        num_features: F, features per image.
    """

    def __init__(self, num_features: int) -> None:
        self.count = 0
        self.mean = torch.zeros(num_features, dtype=torch.float64)
        self._scatter = torch.zeros(num_features, num_features, dtype=torch.float64)
        """Σ (x − mean)(x − mean)ᵀ: kept centered, as Σ x·xᵀ loses the covariance of features far from 0."""

    @classmethod
    def from_moments(cls, mean: Tensor, covariance: Tensor, count: int) -> FeatureStatistics:
        """Statistics of which only the moments are known.

        Args:
            mean: (F,), finite.
            covariance: (F, F), unbiased, symmetric and finite.
            count: number of images, at least 2.

        Raises:
            ValueError: if they are not that.
        """
        length = mean.numel()
        if mean.shape != (length,) or covariance.shape != (length, length) or count < 2:
            raise ValueError(
                f"moments of the shapes (F,) and (F, F) of at least 2 vectors expected, {tuple(mean.shape)} and "
                f"{tuple(covariance.shape)} of {count} given"
            )
        mean, covariance = mean.cpu().double(), covariance.cpu().double()
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError("the moments hold numbers that are not finite")
        if not torch.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * float(covariance.abs().max())):
            raise ValueError("the covariance is not symmetric")
        statistics = cls(length)
        statistics._merge(count, mean, covariance * (count - 1))
        return statistics

    @property
    def num_features(self) -> int:
        """F."""
        return len(self.mean)

    @property
    def covariance(self) -> Tensor:
        """(F, F) float64, unbiased.

        Raises:
            ValueError: for fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, {self.count} given")
        return self._scatter / (self.count - 1)

    def add(self, features: Tensor) -> None:
        """Counts a batch in.

        Args:
            features: (B, F), finite.
        """
        if features.ndim != 2 or features.shape[1] != self.num_features:
            raise ValueError(f"features of the shape (B, {self.num_features}) expected, {tuple(features.shape)} given")
        features = features.detach().cpu().double()
        if not features.isfinite().all():
            raise ValueError("the features hold numbers that are not finite")
        if len(features) == 0:
            return
        mean = features.mean(0)
        centered = features - mean
        self._merge(len(features), mean, centered.T @ centered)

    def __add__(self, other: FeatureStatistics) -> FeatureStatistics:
        _check_same_length(self.num_features, other.num_features)
        total = FeatureStatistics(self.num_features)
        for part in (self, other):
            if part.count:
                total._merge(part.count, part.mean, part._scatter)
        return total

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        """Pairwise update (Chan, Golub & LeVeque 1979)."""
        total = self.count + count
        step = mean - self.mean
        self._scatter = self._scatter + scatter + torch.outer(step, step) * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Fréchet distance |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of the Gaussians with two sets' moments.

    With 2048-d Inception features it is FID (arXiv 1706.08500). It is biased upwards for few vectors (compare equal
    counts, and thousands of them), and in other features it is another number.

    With Σ_a = A·Aᵀ and Σ_b = B·Bᵀ the trace of the root is the sum of the singular values of Aᵀ·B, which needs no root
    of a product that may be singular and is never complex.

    Returns:
        The distance, at least 0.
    """
    _check_same_length(a.num_features, b.num_features)
    root_a, root_b = _root(a.covariance), _root(b.covariance)
    trace_of_root = torch.linalg.svdvals(root_a.T @ root_b).sum()
    spread = root_a.square().sum() + root_b.square().sum()
    return max(0.0, float((a.mean - b.mean).square().sum() + spread - 2 * trace_of_root))


def _root(covariance: Tensor) -> Tensor:
    """A (F, R) with A·Aᵀ = Σ, where R is the rank of Σ."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root: Tensor = vectors[:, kept] * values[kept].sqrt()
    return root


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance between two sets and how sure it is."""

    mean: float
    """Unbiased: about 0 for sets of one distribution, below 0 by chance."""
    standard_error: float | None
    """Standard deviation of ``mean`` over resampled sets; None if every block is a whole set."""


def kernel_distance(
    x: Tensor, y: Tensor, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """Squared maximum mean discrepancy with the kernel (x·y/F + 1)³, unbiased, averaged over random blocks.

    With 2048-d Inception features it is KID (arXiv 1801.01401). Unlike the Fréchet distance it has no bias, so it is
    the one to use for few images. Computed in float64 on the device of the features.

    Args:
        x: (M, F) features.
        y: (M', F) features.
        subsets: blocks that are averaged.
        subset_size: vectors of each set per block, drawn without replacement; by default half of the smaller set, at
            most 1,000. The expected value does not depend on it.
        seed: keys the blocks.

    Raises:
        ValueError: if the features differ in length, are not finite, or are fewer than a block.
    """
    if x.ndim != 2 or y.ndim != 2:
        raise ValueError(f"features of the shape (M, F) expected, {tuple(x.shape)} and {tuple(y.shape)} given")
    _check_same_length(x.shape[1], y.shape[1])
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("the features hold numbers that are not finite")
    num = min(len(x), len(y))
    size = max(2, min(1000, num // 2)) if subset_size is None else subset_size
    if not 2 <= size <= num:
        raise ValueError(f"subset_size: {size} given, must lie between 2 and the size of the smaller set, {num}")
    if subsets < 2:
        raise ValueError(f"subsets: {subsets} given, must be at least 2")
    values = np.array([_block_distance(x, y, size, seed, block) for block in range(subsets)])
    return KernelDistance(float(values.mean()), _standard_error(values, size, num))


def _block_distance(x: Tensor, y: Tensor, size: int, seed: int, block: int) -> float:
    generator = numpy_generator(Stream.EVALUATION, seed, block)
    rows_x, rows_y = (torch.from_numpy(generator.permutation(len(z))[:size]).to(z.device) for z in (x, y))
    return _squared_mmd(x[rows_x].double(), y[rows_y].double())


def _standard_error(values: np.ndarray, size: int, num: int) -> float | None:
    """Of the mean over blocks of ``size`` out of ``num`` vectors.

    Blocks share vectors, so their spread over √blocks would be far too small. Between blocks of one set the variance is
    V(size) − V(num), where V is that over fresh sets, and V(num) = V(size)·size/num if the distributions differ, which
    gives V(num). To it comes the error of averaging over some of all blocks. (For equal distributions V falls with the
    square, and the error is overestimated, √3 times for size = num/2.)
    """
    if size == num:
        return None
    variance = float(values.var(ddof=1))
    return float(np.sqrt(variance * size / (num - size) + variance / len(values)))


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    """Unbiased estimate from x (m, F) and y (m, F): pairs of a vector with itself are left out."""
    m = len(x)
    within = sum(((kernel := _kernel(z, z)).sum() - kernel.diagonal().sum()) / (m * (m - 1)) for z in (x, y))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x·y/F + 1)³ of all pairs."""
    kernel: Tensor = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _check_same_length(first: int, second: int) -> None:
    if first != second:
        raise ValueError(f"the two sets have features of different length: {first} and {second}")
