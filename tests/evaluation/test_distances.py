from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heptapod.evaluation.distances import (
    FeatureStatistics,
    KernelDistance,
    _squared_mmd,
    frechet_distance,
    kernel_distance,
)


def features(num: int, length: int = 6, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Correlated features, float32."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(length, length, generator=torch.Generator().manual_seed(99))
    return torch.randn(num, length, generator=generator) @ mix * scale + shift


def statistics(x: Tensor, batch_size: int = 1000) -> FeatureStatistics:
    result = FeatureStatistics(x.shape[1])
    for part in x.split(batch_size):
        result.add(part)
    return result


def with_moments(mean: Tensor, covariance: Tensor, count: int = 10) -> FeatureStatistics:
    result = FeatureStatistics(len(mean))
    result._merge(count, mean.double(), covariance.double() * (count - 1))
    return result


@pytest.mark.parametrize("batch_size", [1, 7, 64, 300])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_statistics_do_not_depend_on_batches(batch_size: int, shift: float) -> None:
    x = features(300, shift=shift)
    stats = statistics(x, batch_size)
    assert stats.count == 300
    assert torch.allclose(stats.mean, x.double().mean(0), rtol=1e-10, atol=1e-10)
    assert torch.allclose(stats.covariance, torch.from_numpy(np.cov(x.double().numpy().T)), rtol=1e-10, atol=1e-10)


def test_statistics_of_parts_add_up() -> None:
    x = features(100)
    total = statistics(x[:30]) + statistics(x[30:31]) + FeatureStatistics(6) + statistics(x[31:])
    whole = statistics(x)
    assert total.count == 100
    assert torch.allclose(total.mean, whole.mean, rtol=1e-12, atol=1e-12)
    assert torch.allclose(total.covariance, whole.covariance, rtol=1e-12, atol=1e-12)


def test_adding_leaves_the_parts_alone() -> None:
    a, b = statistics(features(20)), statistics(features(30, seed=1))
    before = a.covariance.clone()
    total = a + b
    total.add(features(5))
    assert (a.count, b.count, total.count) == (20, 30, 55)
    assert torch.equal(a.covariance, before)


def test_frechet_distance_of_gaussians_with_commuting_covariances() -> None:
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    first, second = torch.tensor([1.0, 4, 9, 0.25, 0]).double(), torch.tensor([4.0, 1, 9, 0, 0]).double()
    means = torch.zeros(5).double(), torch.tensor([1.0, 2, 0, 0, 2]).double()
    a = with_moments(means[0], rotation @ first.diag() @ rotation.T)
    b = with_moments(means[1], rotation @ second.diag() @ rotation.T)
    expected = 9 + float((first.sqrt() - second.sqrt()).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_a_scaled_and_shifted_set() -> None:
    x = features(500)
    a, b = statistics(x), statistics(x.double() * 3 + 0.5)
    expected = float((2 * a.mean + 0.5).square().sum() + 4 * a.covariance.trace())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("num", "length"), [(400, 6), (5, 40), (2, 40)])
def test_frechet_distance_of_a_set_to_itself_is_zero(num: int, length: int) -> None:
    x = features(num, length, shift=3)
    size = float(statistics(x).covariance.trace())
    assert frechet_distance(statistics(x), statistics(x.flip(0), 3)) < 1e-10 * size


def test_frechet_distance_without_any_variance() -> None:
    a, b = statistics(torch.ones(4, 3)), statistics(torch.zeros(4, 3))
    assert frechet_distance(a, b) == pytest.approx(3)
    assert frechet_distance(a, statistics(features(50, 3))) > 0


class Pixels(nn.Module):
    """The first six pixels as features."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :6].float()


def images(num: int, seed: int, brighter: int = 0) -> Tensor:
    values = torch.randint(0, 200, (num, 3, 2, 2), generator=torch.Generator().manual_seed(seed))
    return (values + brighter).to(torch.uint8)


def test_frechet_distance_equals_torchmetrics() -> None:
    module = pytest.importorskip("torchmetrics.image.fid")
    metric = module.FrechetInceptionDistance(feature=Pixels()).set_dtype(torch.float64)
    first, second = images(300, 0), images(200, 1, brighter=20)
    metric.update(first, real=True)
    metric.update(second, real=False)
    ours = frechet_distance(statistics(Pixels()(first)), statistics(Pixels()(second)))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)


def test_kernel_distance_equals_torchmetrics() -> None:
    module = pytest.importorskip("torchmetrics.image.kid")
    metric = module.KernelInceptionDistance(feature=Pixels(), subsets=2, subset_size=150).set_dtype(torch.float64)
    first, second = images(150, 0), images(150, 1, brighter=20)
    metric.update(first, real=True)
    metric.update(second, real=False)
    ours = kernel_distance(Pixels()(first), Pixels()(second), subsets=2, subset_size=150)
    # torchmetrics computes in float32, in a random order of its own
    assert ours.mean == pytest.approx(float(metric.compute()[0]), rel=1e-4)
    assert ours.standard_error is None


def test_kernel_distance_equals_its_definition() -> None:
    x, y = features(5).double(), features(5, seed=1, shift=0.5).double()

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 6 + 1) ** 3)

    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = sum(kernel(z[i], z[j]) for z in (x, y) for i, j in pairs if i != j) / 20
    between = sum(kernel(x[i], y[j]) for i, j in pairs) / 25
    assert kernel_distance(x, y, subset_size=5).mean == pytest.approx(within - 2 * between, rel=1e-10)


def test_kernel_distance_is_unbiased_and_knows_its_error() -> None:
    """Many pairs of small sets: the mean is the true value, 0 or not, and the errors are as large as announced."""
    shift = 1.0
    rng = torch.Generator().manual_seed(0)
    same: list[KernelDistance] = []
    other: list[KernelDistance] = []
    for _ in range(200):
        x, y, z = torch.randn(3, 120, 2, generator=rng)
        z[:, 0] += shift
        same.append(kernel_distance(x, y, subsets=30))
        other.append(kernel_distance(x, z, subsets=30))
    # k(a, b) = 1 + 3t + 3t² + t³ with t = a·b/2; moments of t for N(μ, 1) and N(ν, 1), first coordinate only shifted:
    # E t = μν/2, E t² = ((1 + μ²)(1 + ν²) + 1)/4, E t³ = ((μ³ + 3μ)(ν³ + 3ν) + 3μν)/8
    for distances, s, highest in ((same, 0.0, 2.2), (other, shift, 1.3)):
        first, second, third = s**2 / 2, s**4 / 4, (s**3 + 3 * s) ** 2 / 8 + 3 * s**2 / 8
        truth = 3 * first + 3 * second + third
        means = np.array([d.mean for d in distances])
        assert abs(means.mean() - truth) < 3.5 * means.std() / np.sqrt(len(means))
        announced = np.sqrt(np.mean([d.standard_error**2 for d in distances if d.standard_error is not None]))
        assert 0.8 < announced / means.std() < highest


def test_kernel_distance_is_keyed_by_its_seed() -> None:
    x, y = features(60), features(40, seed=1)
    assert kernel_distance(x, y, seed=1) == kernel_distance(x, y, seed=1)
    assert kernel_distance(x, y, seed=1) != kernel_distance(x, y, seed=2)


def test_kernel_distance_of_blocks_is_their_mean() -> None:
    x, y = features(30), features(30, seed=1, shift=1)
    whole = _squared_mmd(x.double(), y.double())
    parts = kernel_distance(x, y, subsets=2000, subset_size=10)
    assert parts.standard_error is not None
    assert abs(parts.mean - whole) < parts.standard_error


def test_errors() -> None:
    with pytest.raises(ValueError, match="different length: 6 and 5"):
        kernel_distance(features(9), features(9, 5))
    with pytest.raises(ValueError, match="different length: 6 and 5"):
        frechet_distance(statistics(features(9)), statistics(features(9, 5)))
    with pytest.raises(ValueError, match="different length: 6 and 5"):
        statistics(features(9)) + statistics(features(9, 5))
    with pytest.raises(ValueError, match="subset_size: 10 given, must lie between 2 and .*9"):
        kernel_distance(features(9), features(20), subset_size=10)
    with pytest.raises(ValueError, match="must lie between 2 and .*1"):
        kernel_distance(features(1), features(20))
    with pytest.raises(ValueError, match="subsets: 1 given"):
        kernel_distance(features(9), features(9), subsets=1)
    with pytest.raises(ValueError, match="not finite"):
        statistics(torch.full((2, 6), float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance(torch.full((2, 6), float("inf")), features(9))
    with pytest.raises(ValueError, match=r"\(B, 6\) expected, \(3, 7\) given"):
        FeatureStatistics(6).add(torch.zeros(3, 7))
    with pytest.raises(ValueError, match="at least 2 feature vectors, 1 given"):
        frechet_distance(statistics(features(1)), statistics(features(9)))
