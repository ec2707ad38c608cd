from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.evaluation.baselines import _sample_patches, from_patches, kmeans_baseline, pca_baseline, to_patches

sklearn_cluster = pytest.importorskip("sklearn.cluster")


def smooth_images(num: int, seed: int, size: int = 16) -> Tensor:
    coarse = torch.rand(num, 3, 5, 5, generator=torch.Generator().manual_seed(seed)) * 255
    return F.interpolate(coarse, (size, size), mode="bilinear").round().to(torch.uint8)


def images_of_patches(kinds: Tensor, choice: Tensor) -> Tensor:
    """Images (B, 3, 8, 8) of 4×4 patches, each one of the given kinds (K, 3, 4, 4)."""
    rows = [torch.cat([kinds[k] for k in row], dim=2) for image in choice for row in image]
    return torch.stack([torch.cat(rows[i : i + 2], dim=1) for i in range(0, len(rows), 2)])


@pytest.fixture
def kinds() -> Tensor:
    return torch.randint(0, 256, (5, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def choices(num: int, seed: int) -> Tensor:
    return torch.randint(0, 5, (num, 2, 2), generator=torch.Generator().manual_seed(seed))


def test_patches_are_raster_cells_and_go_back() -> None:
    images = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12)
    patches = to_patches(images, 4)
    assert patches.shape == (2, 6, 48)
    assert torch.equal(patches[1, 4], images[1, :, 4:8, 4:8].flatten())
    assert torch.equal(from_patches(patches, 8, 12, 4), images)


def test_kmeans_with_a_code_for_every_kind_of_patch_is_exact(kinds: Tensor) -> None:
    train, test = images_of_patches(kinds, choices(50, 1)), images_of_patches(kinds, choices(7, 2))
    assert torch.equal(kmeans_baseline(train, test, 4, 5), torch.full((7,), 100.0))
    assert kmeans_baseline(train, test, 4, 3).min() < 40


def test_kmeans_with_one_code_is_the_mean_patch() -> None:
    train, test = smooth_images(20, 0), smooth_images(4, 1)
    mean = to_patches(train.double(), 4).mean((0, 1))
    error = (to_patches(test.double(), 4) - mean).square().mean((1, 2))
    expected = 10 * torch.log10(255**2 / error)
    assert torch.allclose(kmeans_baseline(train, test, 4, 1).double(), expected, atol=1e-3)


def test_kmeans_is_near_the_best_of_many_starts() -> None:
    train, test = smooth_images(60, 0), smooth_images(40, 1)
    x = to_patches(train, 4).flatten(0, 1).float().numpy()
    best = sklearn_cluster.KMeans(16, n_init=10, random_state=0).fit(x)
    y = to_patches(test, 4).flatten(0, 1).float()
    distances = torch.cdist(y, torch.from_numpy(best.cluster_centers_).float()).min(1).values.square()
    expected = 10 * torch.log10(255**2 / (distances.view(40, -1).mean(1) / 48))
    ours = kmeans_baseline(train, test, 4, 16)
    assert abs(float(ours.mean() - expected.mean())) < 0.2


def test_more_codes_and_components_are_better() -> None:
    train, test = smooth_images(80, 0), smooth_images(10, 1)
    by_codes = torch.stack([kmeans_baseline(train, test, 4, codes).mean() for codes in (2, 16, 128)])
    by_components = torch.stack([pca_baseline(train, test, 4, components).mean() for components in (1, 3, 9, 24)])
    assert (by_codes.diff() > 0.5).all()
    assert (by_components.diff() > 0.5).all()


def test_pca_equals_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    train, test = smooth_images(30, 0), smooth_images(6, 1)
    reference = decomposition.PCA(5, svd_solver="full").fit(to_patches(train, 4).flatten(0, 1).double().numpy())
    y = to_patches(test, 4).double()
    back = reference.inverse_transform(reference.transform(y.flatten(0, 1).numpy()))
    error = (torch.from_numpy(back).view_as(y).clamp(0, 255) - y).square().mean((1, 2))
    assert torch.allclose(pca_baseline(train, test, 4, 5).double(), 10 * torch.log10(255**2 / error), atol=1e-3)


def test_pca_with_all_components_is_exact() -> None:
    assert pca_baseline(smooth_images(30, 0), smooth_images(3, 1), 2, 12).min() > 90


def test_baselines_are_keyed_by_their_seed_and_per_image() -> None:
    train, test = smooth_images(40, 0), smooth_images(6, 1)
    first = kmeans_baseline(train, test, 4, 8, seed=3, num_patches=300)
    assert torch.equal(first, kmeans_baseline(train, test, 4, 8, seed=3, num_patches=300))
    assert not torch.equal(first, kmeans_baseline(train, test, 4, 8, seed=4, num_patches=300))
    assert torch.allclose(first[2:3], kmeans_baseline(train, test[2:3], 4, 8, seed=3, num_patches=300), atol=1e-4)
    assert not torch.equal(pca_baseline(train, test, 4, 3, num_patches=100), pca_baseline(train, test, 4, 3))


def test_sampled_patches_are_different_ones_of_all_images() -> None:
    numbers = torch.arange(1200 * 4)
    images = torch.stack([numbers // 256, numbers % 256, numbers * 0], dim=1).to(torch.uint8)  # (4800, 3)
    images = from_patches(images.view(1200, 4, 3), 2, 2, 1)  # 1200 images of 2×2, a number per cell
    patches = ((_sample_patches(images, 1, 0, 2000) + 1) * 127.5).round().long()
    found = patches[:, 0] * 256 + patches[:, 1]
    assert len(found.unique()) == len(found) == 2000
    assert found.double().mean() == pytest.approx(2400, abs=4 * 4800 / math.sqrt(12 * 2000))
    everything = ((_sample_patches(images, 1, 0, 10**6) + 1) * 127.5).round().long()
    assert torch.equal(everything[:, 0] * 256 + everything[:, 1], numbers)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = smooth_images(3, 0), smooth_images(2, 1)
    with pytest.raises(ValueError, match="images of 16×16 pixels have no patches of factor 5"):
        kmeans_baseline(train, test, 5, 4)
    with pytest.raises(ValueError, match="codes: 49 given, must lie between 1 and .*48"):
        kmeans_baseline(train, test, 4, 49)
    with pytest.raises(ValueError, match="components: 49 given, must lie between 1 and 48"):
        pca_baseline(train, test, 4, 49)
    with pytest.raises(ValueError, match="uint8 expected"):
        pca_baseline(train.float(), test, 4, 4)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ValueError, match=r"pip install 'heptapod\[evaluation\]'"):
        kmeans_baseline(train, test, 4, 4)
