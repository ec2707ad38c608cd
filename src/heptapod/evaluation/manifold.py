"""Precision, recall, density and coverage of generated images, by nearest neighbors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_SIZE = 1024
"""Rows of the table of distances that are held at a time: with 10,000 columns 80 MB."""


@dataclass(frozen=True)
class ManifoldMetrics:
    """The results of :func:`manifold_metrics`; 0 to 1, except the density, which may exceed 1."""

    precision: float
    """Share of the generated features within the balls of real ones."""
    recall: float
    """Share of the real features within the balls of generated ones."""
    density: float
    """Mean number of real balls around a generated feature, divided by k; about 1 for sets of one distribution."""
    coverage: float
    """Share of the real balls with a generated feature inside."""


def manifold_metrics(
    real: Tensor,
    generated: Tensor,
    precision_neighbors: int = 3,
    density_neighbors: int = 5,
    block_size: int = BLOCK_SIZE,
) -> ManifoldMetrics:
    """Compares two sets by the balls around each feature that reach to its k-th nearest neighbor in its own set.

    Precision and recall are those of arXiv 1904.06991, with closed balls; density and coverage those of arXiv
    2002.09797, with open ones, as their authors compute them. All of them change with the sizes of the sets: compare
    equal ones.

    The features are first rounded to a grid of 2^-b of their largest magnitude (b is 20 for 1,280 and 2,048 features),
    on which float64 computes distances without any error. So the result does not depend on the block size, the number
    of threads or the device, and ties (copies, for one) are ties.

    Args:
        real: (M, F), finite.
        generated: (M', F), finite.
        precision_neighbors: k of precision and recall.
        density_neighbors: k of density and coverage.
        block_size: rows of the table of distances at a time; the result does not depend on it.

    Raises:
        ValueError: if the features differ in length or are not finite, or a set is no larger than a k.
    """
    _check(real, generated, precision_neighbors, density_neighbors, block_size)
    x, y = _on_grid(real, generated)
    radii, wide = _radii(x, (precision_neighbors, density_neighbors), block_size)
    (generated_radii,) = _radii(y, (precision_neighbors,), block_size)
    num_dense, recalled, covered = 0, [], []
    is_precise = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    for rows, distances in _blocks(x, y, block_size):  # (R, M') squared
        is_precise |= (distances <= radii[rows, None]).any(0)
        recalled.append((distances <= generated_radii).any(1))
        inside = distances < wide[rows, None]
        num_dense += int(inside.sum())
        covered.append(inside.any(1))
    num_precise = int(is_precise.sum())
    return ManifoldMetrics(
        precision=num_precise / len(y),
        recall=int(torch.cat(recalled).sum()) / len(x),
        density=num_dense / (density_neighbors * len(y)),
        coverage=int(torch.cat(covered).sum()) / len(x),
    )


def _on_grid(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as float64 integers so small that squared distances stay below 2^53, and so are exact.

    With |q| ≤ 2^b every sum of F products is at most F·2^2b, and a squared distance four times that.
    """
    bits = (53 - 2 - math.ceil(math.log2(real.shape[1]))) // 2
    largest = max(float(z.abs().max()) for z in (real, generated))
    scale = 2.0 ** (bits - math.frexp(largest)[1]) if largest > 0 else 1.0
    x, y = ((z.detach().double() * scale).round() for z in (real, generated))
    return x, y


def _blocks(x: Tensor, y: Tensor, block_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of some rows of x (M, F) and their squared distances (R, M') to all of y (M', F)."""
    squares = y.square().sum(1)
    for rows in torch.arange(len(x), device=x.device).split(block_size):
        part = x[rows]
        yield rows, torch.addmm(squares + part.square().sum(1, keepdim=True), part, y.T, alpha=-2)


def _radii(x: Tensor, neighbors: tuple[int, ...], block_size: int) -> list[Tensor]:
    """For each k the squared distance (M,) of every feature to its k-th nearest other one."""
    parts = []
    for rows, distances in _blocks(x, x, block_size):
        distances[torch.arange(len(rows), device=x.device), rows] = math.inf
        parts.append(distances.topk(max(neighbors), largest=False).values)
    nearest = torch.cat(parts)
    return [nearest[:, k - 1] for k in neighbors]


def _check(real: Tensor, generated: Tensor, precision: int, density: int, block_size: int) -> None:
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"features (M, F) of one length expected, {tuple(real.shape)} and {tuple(generated.shape)} given"
        )
    if not (real.isfinite().all() and generated.isfinite().all()):
        raise ValueError("the features hold numbers that are not finite")
    if block_size < 1:
        raise ValueError(f"block_size: {block_size} given, must be at least 1")
    for name, k, features in (
        ("precision_neighbors", precision, min(len(real), len(generated))),
        ("density_neighbors", density, len(real)),
    ):
        if not 1 <= k < features:
            raise ValueError(
                f"{name}: {k} given, must be at least 1 and below the number of features it is taken among, {features}"
            )
