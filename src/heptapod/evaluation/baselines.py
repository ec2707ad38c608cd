"""Reconstruction baselines on raw patches, for comparison with a trained tokenizer of the same rate.

Both encode each factor×factor patch separately: k-means as one of V codes, like a discrete tokenizer, and principal
component analysis as C channels, like a continuous one (with unlimited precision).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heptapod.data import ImageSet
from heptapod.evaluation.image_metrics import psnr
from heptapod.tokenizers.base import Tokenizer, to_float
from heptapod.utils.random import Stream, numpy_generator

logger = logging.getLogger(__name__)

KMEANS_PATCHES = 300_000
"""Patches that k-means is fitted on; see :func:`kmeans_baseline`."""
INITIAL_PATCHES_PER_CODE = 50
"""Patches per code that k-means++ draws the first centroids from."""
LLOYD_ITERATIONS = 50
PATCHES_AT_A_TIME = 16_384


def kmeans_baseline(
    train: Tensor, test: Tensor, factor: int, codes: int, seed: int = 0, num_patches: int = KMEANS_PATCHES
) -> Tensor:
    """PSNR of images whose every patch is replaced by the nearest of ``codes`` centroids.

    Full k-means (k-means++ and Lloyd's iterations, scikit-learn) on random training patches. MiniBatchKMeans takes a
    third of the time and is 0.1 to 0.2 dB worse, which would make the baseline too easy.

    With factor 4 and 1,024 codes on 64×64 photos 100,000, 300,000 and 1,000,000 patches give 21.33, 21.44 and 21.50,
    another seed changes it by 0.002 (dB, mean of 5,000 images).

    Args:
        train: (M, 3, h, w) uint8, images it is fitted on.
        test: (B, 3, h, w) uint8.
        factor: pixels per patch side.
        codes: V, centroids.
        seed: keys the patches and the first centroids.
        num_patches: training patches used, all of them if there are fewer.

    Returns:
        (B,) float32, PSNR in dB.

    Raises:
        ValueError: if a side is not divisible by the factor, there are fewer patches than codes, or scikit-learn is not
            installed.
    """
    patches = _sample_patches(train, factor, seed, num_patches)
    if not 1 <= codes <= len(patches):
        raise ValueError(f"codes: {codes} given, must lie between 1 and the number of training patches, {len(patches)}")
    centroids = _fit_kmeans(patches, codes, seed)  # (V, D)
    half_squares = centroids.square().sum(1) / 2

    def nearest(x: Tensor) -> Tensor:
        return centroids[(half_squares - x @ centroids.T).argmin(1)]

    return _reconstruction_psnr(test, factor, nearest)


def pca_baseline(
    train: Tensor, test: Tensor, factor: int, components: int, seed: int = 0, num_patches: int = KMEANS_PATCHES
) -> Tensor:
    """PSNR of images whose every patch is projected to its first principal components.

    Args:
        train: (M, 3, h, w) uint8, images it is fitted on.
        test: (B, 3, h, w) uint8.
        factor: pixels per patch side.
        components: C, channels per patch.
        seed: keys the patches.
        num_patches: training patches used, all of them if there are fewer.

    Returns:
        (B,) float32, PSNR in dB.

    Raises:
        ValueError: if a side is not divisible by the factor, or there are more components than values in a patch.
    """
    patches = _sample_patches(train, factor, seed, num_patches).double()
    if not 1 <= components <= patches.shape[1]:
        raise ValueError(f"components: {components} given, must lie between 1 and {patches.shape[1]}")
    mean = patches.mean(0)
    centered = patches - mean
    _, vectors = torch.linalg.eigh(centered.T @ centered)  # ascending
    basis, center = vectors[:, -components:].float(), mean.float()  # (D, C), (D,)
    return _reconstruction_psnr(test, factor, lambda x: (x - center) @ basis @ basis.T + center)


def to_patches(images: Tensor, factor: int) -> Tensor:
    """Images (B, 3, h, w) to patches (B, N, 3·factor²), N = h·w / factor², cells in raster order."""
    batch, channels, height, width = images.shape
    cells = images.reshape(batch, channels, height // factor, factor, width // factor, factor)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * factor * factor)


def from_patches(patches: Tensor, height: int, width: int, factor: int) -> Tensor:
    """Patches (B, N, 3·factor²) to images (B, 3, height, width)."""
    cells = patches.reshape(len(patches), height // factor, width // factor, -1, factor, factor)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, height, width)


def _sample_patches(images: Tensor, factor: int, seed: int, num_patches: int) -> Tensor:
    """Random different patches of uint8 images: (P, 3·factor²) float32 in [-1, 1]."""
    _check_images(images, factor)
    cells = images.shape[2] * images.shape[3] // factor**2
    total = len(images) * cells
    rows = np.arange(total)
    if num_patches < total:
        generator = numpy_generator(Stream.EVALUATION, seed)
        rows = np.sort(generator.choice(total, num_patches, replace=False, shuffle=False))
    parts = []
    step = 1024  # images at a time
    for start in range(0, len(images), step):
        low, high = np.searchsorted(rows, [start * cells, (start + step) * cells])
        selected = torch.from_numpy(rows[low:high] - start * cells)
        parts.append(to_float(to_patches(images[start : start + step], factor).flatten(0, 1)[selected]))
    return torch.cat(parts)


def _fit_kmeans(patches: Tensor, codes: int, seed: int) -> Tensor:
    """Centroids (V, D) float32 of patches (P, D)."""
    try:
        from sklearn.cluster import KMeans, kmeans_plusplus
    except ImportError:
        raise ValueError("the k-means baseline needs scikit-learn: pip install 'heptapod[evaluation]'") from None
    generator = numpy_generator(Stream.EVALUATION, seed, 1)
    random_state = int(generator.integers(2**31))
    first = generator.permutation(len(patches))[: INITIAL_PATCHES_PER_CODE * codes]
    x = patches.numpy()
    initial, _ = kmeans_plusplus(x[first], codes, random_state=random_state)
    model = KMeans(codes, init=initial, n_init=1, max_iter=LLOYD_ITERATIONS, random_state=random_state)
    return torch.from_numpy(np.asarray(model.fit(x).cluster_centers_, dtype=np.float32))


def _reconstruction_psnr(images: Tensor, factor: int, reconstruct: Callable[[Tensor], Tensor]) -> Tensor:
    """PSNR (B,) of uint8 images after a function of their patches, (P, D) -> (P, D) in [-1, 1]."""
    _check_images(images, factor)
    height, width = images.shape[2:]
    values = []
    for part in images.split(max(1, PATCHES_AT_A_TIME * factor**2 // (height * width))):
        pixels = to_float(part)
        patches = to_patches(pixels, factor)
        flat = torch.cat([reconstruct(some) for some in patches.flatten(0, 1).split(PATCHES_AT_A_TIME)])
        values.append(psnr(from_patches(flat.view_as(patches), height, width, factor).clamp(-1, 1), pixels))
    return torch.cat(values)


def _check_images(images: Tensor, factor: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images (B, 3, h, w) uint8 expected, {tuple(images.shape)} {images.dtype} given")
    if factor < 1 or images.shape[2] % factor or images.shape[3] % factor:
        raise ValueError(f"images of {images.shape[2]}×{images.shape[3]} pixels have no patches of factor {factor}")


def check_baseline(tokenizer: Tokenizer, train: ImageSet) -> None:
    """Raises ValueError if there is no baseline of the tokenizer's rate, or too few images to fit it."""
    patches = len(train) * (train.size[0] // tokenizer.factor) * (train.size[1] // tokenizer.factor)
    if tokenizer.is_discrete and patches < tokenizer.vocabulary_size:
        raise ValueError(
            f"baseline_data: {patches:,} patches, too few for {tokenizer.vocabulary_size:,} centroids; give more images"
        )
    values = 3 * tokenizer.factor**2
    if tokenizer.channels > values:
        raise ValueError(
            f"baseline_data: the tokenizer has {tokenizer.channels} channels, a patch only {values} values; there is "
            "no such baseline, leave it out"
        )


def measure_baseline(tokenizer: Tokenizer, train: Tensor, test: Tensor, reached: Tensor, seed: int) -> dict[str, Any]:
    """The baseline of the tokenizer's rate, and the improvement of the tokenizer over it."""
    logger.info("fitting the baseline on raw patches (a minute or two)")
    if tokenizer.is_discrete:
        name = f"k-means, {tokenizer.vocabulary_size:,} centroids"
        values = kmeans_baseline(train, test, tokenizer.factor, tokenizer.vocabulary_size, seed)
    else:
        name = f"PCA, {tokenizer.channels} components"
        values = pca_baseline(train, test, tokenizer.factor, tokenizer.channels, seed)
    return {
        "kind": f"{name} of raw {tokenizer.factor}×{tokenizer.factor} patches",
        "train_images": len(train),
        "psnr": float(values.mean()),
        "tokenizer_above_it": float(reached.mean() - values.mean()),
    }
