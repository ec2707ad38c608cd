"""How well a tokenizer reconstructs: pixels, structure, perception, codes, and distances of features."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from heptapod.data import ImageSet
from heptapod.evaluation.distances import FeatureStatistics, frechet_distance, kernel_distance
from heptapod.evaluation.features import FeatureExtractor
from heptapod.evaluation.image_metrics import SSIM_WINDOW, psnr, ssim
from heptapod.evaluation.perceptual import LPIPS
from heptapod.tokenizers.base import Tokenizer, to_float
from heptapod.tokenizers.codebook import codebook_usage
from heptapod.tokenizers.encode import decode_pixels, encode_pixels
from heptapod.utils.images import image_grid
from heptapod.utils.logging import Progress

FLOAT_BITS = 16
"""Bits per channel of a continuous token, as stored by default."""
SHOWN = 8


@dataclass
class ReconstructionReport:
    """The results of :func:`evaluate_reconstruction`."""

    figures: dict[str, Any]
    """JSON-safe: each metric's mean, spread and extremes, rate, codebook and feature distances."""
    picture: Image.Image
    """Originals next to reconstructions: images evenly spaced over the set, then the worst by PSNR."""
    psnr: Tensor = field(repr=False)
    """(M,) dB of every image."""


def rate(tokenizer: Tokenizer) -> dict[str, float | int]:
    """Bits per pixel of a tokenizer: of its codes, or of its stored channels."""
    pixels = tokenizer.factor**2
    if tokenizer.is_discrete:
        bits = math.log2(tokenizer.vocabulary_size) / pixels
        return {"vocabulary_size": tokenizer.vocabulary_size, "bits_per_pixel": bits}
    numbers = tokenizer.channels / pixels
    return {
        "channels": tokenizer.channels,
        "numbers_per_pixel": numbers,
        "bits_per_number": FLOAT_BITS,
        "bits_per_pixel": FLOAT_BITS * numbers,
    }


@torch.inference_mode()
def reconstruct(tokenizer: Tokenizer, images: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """Images (M, 3, h, w) uint8 through the tokenizer and back.

    Returns:
        Reconstructions (M, 3, h, w) uint8 and tokens (M, N) or (M, N, C), on the CPU.
    """
    grid = tokenizer.grid(images.shape[2], images.shape[3])
    decoded, tokens = [], []
    with Progress(f"reconstructing {len(images):,} images", len(images)) as progress:
        for part in images.split(batch_size):
            tokens.append(encode_pixels(tokenizer, part))
            decoded.append(decode_pixels(tokenizer, tokens[-1], grid))
            progress.advance(len(part))
    return torch.cat(decoded), torch.cat(tokens)


def check_reconstruction_images(images: ImageSet, lpips: LPIPS | None, extractors: Sequence[FeatureExtractor]) -> None:
    """Raises ValueError for images that are too small or too few for a metric."""
    side = min(images.size)
    if side < SSIM_WINDOW:
        raise ValueError(
            f"data: images of {side} pixels are too small for SSIM, which needs {SSIM_WINDOW}; set image_size"
        )
    if lpips is not None and side < lpips.architecture.smallest_side:
        raise ValueError(
            f"data: images of {side} pixels are too small for LPIPS, which needs {lpips.architecture.smallest_side}; "
            "give --no_lpips, or set image_size"
        )
    if extractors and len(images) < 2:
        raise ValueError(f"count: {len(images)} image(s), distances of features need at least 2; give --no_features")


def evaluate_reconstruction(
    tokenizer: Tokenizer,
    images: Tensor,
    lpips: LPIPS | None = None,
    extractors: Sequence[FeatureExtractor] = (),
    batch_size: int = 32,
    seed: int = 0,
) -> ReconstructionReport:
    """Measures a tokenizer on images; all metrics use reconstructions rounded to 8 bits.

    Args:
        tokenizer: in evaluation mode.
        images: (M, 3, h, w) uint8.
        lpips: the perceptual distance; None leaves it out.
        extractors: features for Fréchet and kernel distances between originals and reconstructions.
        batch_size: images at a time; results do not depend on it.
        seed: keys the blocks of the kernel distance.

    Raises:
        ValueError: if the images do not fit the tokenizer.
    """
    reconstructions, tokens = reconstruct(tokenizer, images, batch_size)
    values = _per_image(images, reconstructions, lpips, batch_size, tokenizer.device)
    figures: dict[str, Any] = {
        "images": len(images),
        "image_size": list(images.shape[2:]),
        "tokens_per_image": tokens.shape[1],
        **{name: _summary(each) for name, each in values.items()},
        **rate(tokenizer),
    }
    if tokenizer.is_discrete:
        usage, perplexity = codebook_usage(tokens, tokenizer.vocabulary_size)
        figures |= {"codebook_usage": usage, "codebook_perplexity": perplexity}
        figures["entropy_bits_per_pixel"] = math.log2(perplexity) / tokenizer.factor**2
    for extractor in extractors:
        figures |= _distances(extractor, images, reconstructions, batch_size, seed)
    return ReconstructionReport(figures, side_by_side(images, reconstructions, values["psnr"]), values["psnr"])


@torch.inference_mode()
def _per_image(
    images: Tensor, reconstructions: Tensor, lpips: LPIPS | None, batch_size: int, device: torch.device
) -> dict[str, Tensor]:
    """(M,) values of every metric."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    with Progress(f"comparing {len(images):,} images", len(images)) as progress:
        for some, others in zip(images.split(batch_size), reconstructions.split(batch_size), strict=True):
            x, y = to_float(some).to(device), to_float(others).to(device)
            parts["psnr"].append(psnr(y, x).cpu())
            parts["ssim"].append(ssim(y, x).cpu())
            if lpips is not None:
                parts["lpips"].append(lpips(y, x).cpu())
            progress.advance(len(x))
    return {name: torch.cat(values) for name, values in parts.items()}


def _summary(values: Tensor) -> dict[str, float]:
    spread = float(values.std()) if len(values) > 1 else 0.0
    return {"mean": float(values.mean()), "std": spread, "min": float(values.min()), "max": float(values.max())}


def _distances(
    extractor: FeatureExtractor, images: Tensor, reconstructions: Tensor, batch_size: int, seed: int
) -> dict[str, Any]:
    """Fréchet and kernel distance of originals and reconstructions, under the names the features allow."""
    features = []
    for title, pictures in (("originals", images), ("reconstructions", reconstructions)):
        with Progress(f"features of {len(images):,} {title}", len(images)) as progress:
            parts = []
            for part in pictures.split(batch_size):
                parts.append(extractor.extract(part).cpu())
                progress.advance(len(part))
            features.append(torch.cat(parts))
    statistics = []
    for each in features:
        statistics.append(FeatureStatistics(extractor.num_features))
        statistics[-1].add(each)
    distances: dict[str, Any] = {f"r{extractor.frechet_name}": frechet_distance(*statistics)}
    if len(images) > 1:
        kernel = kernel_distance(features[0], features[1], seed=seed)
        distances[f"r{extractor.kernel_name}"] = {"mean": kernel.mean, "standard_error": kernel.standard_error}
    if len(images) <= extractor.num_features:
        distances[f"r{extractor.frechet_name}_note"] = (
            f"unreliable: {len(images)} images for {extractor.num_features} features; use thousands, or the kernel "
            "distance"
        )
    return distances


def side_by_side(images: Tensor, reconstructions: Tensor, quality: Tensor) -> Image.Image:
    """Rows of originals over their reconstructions: images spread over the set, and the worst by ``quality`` (M,)."""
    count = min(SHOWN, len(images))
    spread = torch.arange(count) * len(images) // count
    worst = quality.argsort()[:count]
    rows = torch.cat([x[chosen] for chosen in (spread, worst) for x in (images, reconstructions)])
    names = ["original", "reconstruction", "worst", "reconstruction"]
    return image_grid(rows, count, names, min_size=128)
