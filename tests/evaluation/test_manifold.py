from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from heptapod.evaluation.manifold import manifold_metrics


def features(num: int, length: int = 5, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(num, length, generator=torch.Generator().manual_seed(seed)) * scale


def by_definition(real: Tensor, generated: Tensor, k: int, wide: int) -> tuple[float, float, float, float]:
    """Ball by ball, from the papers: precision and recall with closed balls, density and coverage with open ones."""

    def distance(a: Tensor, b: Tensor) -> float:
        return float((a.double() - b.double()).square().sum())

    def radius(points: Tensor, i: int, neighbors: int) -> float:
        return sorted(distance(points[i], points[j]) for j in range(len(points)) if j != i)[neighbors - 1]

    def share(points: Tensor, balls: Tensor) -> float:
        radii = [radius(balls, i, k) for i in range(len(balls))]
        within = [any(distance(p, b) <= r for b, r in zip(balls, radii, strict=True)) for p in points]
        return sum(within) / len(points)

    radii = [radius(real, i, wide) for i in range(len(real))]
    table = [[distance(x, y) < r for y in generated] for x, r in zip(real, radii, strict=True)]
    density = sum(map(sum, table)) / (wide * len(generated))
    return share(generated, real), share(real, generated), density, sum(map(any, table)) / len(real)


@pytest.mark.parametrize(("k", "wide"), [(3, 5), (1, 1), (6, 2)])
def test_equals_its_definition(k: int, wide: int) -> None:
    real, generated = features(31), features(23, seed=1, scale=0.8) + 0.5
    found = dataclasses.astuple(manifold_metrics(real, generated, k, wide, block_size=7))
    assert found == pytest.approx(by_definition(real, generated, k, wide), rel=1e-12)
    assert 0 < found[0] < 1  # the case is not a trivial one
    assert 0 < found[1] < 1


@pytest.mark.parametrize("block_size", [1, 2, 13, 64, 1000])
def test_does_not_depend_on_the_block_size(block_size: int) -> None:
    """Not even where everything ties: features on a coarse lattice, many of them copies."""
    real, generated = (features(64, 4, seed).round() + 1000.1 for seed in (0, 1))
    generated[:10] = real[:10]
    whole = manifold_metrics(real, generated)
    assert manifold_metrics(real, generated, block_size=block_size) == whole
    assert dataclasses.astuple(whole) == pytest.approx(by_definition(real, generated, 3, 5), rel=1e-12)


def test_a_set_and_its_copy() -> None:
    """Each open ball holds its center and k − 1 others, so that the density is 1, not (k + 1)/k."""
    real = features(50, 1280).abs()
    found = manifold_metrics(real, real.flip(0), block_size=11)
    assert dataclasses.astuple(found) == (1, 1, 1, 1)


def test_sets_far_apart_and_a_collapsed_one() -> None:
    real = features(40)
    assert dataclasses.astuple(manifold_metrics(real, features(40, seed=1) + 100)) == (0, 0, 0, 0)
    collapsed = manifold_metrics(real, real[:1].expand(40, -1))
    assert collapsed.precision == 1
    assert collapsed.recall == 1 / 40
    assert collapsed.coverage < 0.5


def test_scale_does_not_matter() -> None:
    real, generated = features(40), features(30, seed=1)
    expected = manifold_metrics(real, generated)
    for scale in (2.0**-90, 2.0**60):
        assert manifold_metrics(real * scale, generated * scale) == expected
    zeros = manifold_metrics(torch.zeros(6, 3), torch.zeros(6, 3))
    assert dataclasses.astuple(zeros) == (1, 1, 0, 0)  # open balls of radius 0 hold nothing


def test_equals_torch_fidelity() -> None:
    """Runs where torch-fidelity is installed."""
    try:
        from torch_fidelity.metric_prc import prc_features_to_metric
    except (ImportError, RuntimeError):
        pytest.skip("needs torch-fidelity")
    real, generated = features(300, 16), features(200, 16, seed=1, scale=0.9)
    settings = {"prc_neighborhood": 3, "prc_batch_size": 64, "save_cpu_ram": True, "verbose": False}
    theirs = prc_features_to_metric(generated, real, **settings)
    ours = manifold_metrics(real, generated)
    assert (ours.precision, ours.recall) == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-3)


def test_errors() -> None:
    with pytest.raises(ValueError, match="of one length expected"):
        manifold_metrics(features(9), features(9, 4))
    with pytest.raises(ValueError, match="not finite"):
        manifold_metrics(features(9), torch.full((9, 5), float("nan")))
    with pytest.raises(ValueError, match="precision_neighbors: 3 given, .* 3$"):
        manifold_metrics(features(9), features(3))
    with pytest.raises(ValueError, match="density_neighbors: 5 given, .* 5$"):
        manifold_metrics(features(5), features(9))
    with pytest.raises(ValueError, match="density_neighbors: 0 given"):
        manifold_metrics(features(9), features(9), density_neighbors=0)
    with pytest.raises(ValueError, match="block_size: 0 given"):
        manifold_metrics(features(9), features(9), block_size=0)
