"""How close two images are, pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

import torch
from torch import Tensor

HIGHEST_PSNR = 100.0
"""dB of equal images, so that a mean stays finite."""
SSIM_WINDOW = 11
"""Pixels per side of the window of SSIM."""


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair of images, 10·log10(2² / mean squared error).

    Args:
        images: (B, 3, h, w) in [-1, 1].
        others: (B, 3, h, w) in [-1, 1].

    Returns:
        (B,) float32 in dB, at most 100.
    """
    _check_pair("PSNR", images, others)
    mean_squared_error = (images.float() - others.float()).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / mean_squared_error)).clamp(max=HIGHEST_PSNR)


def ssim(images: Tensor, others: Tensor) -> Tensor:
    """Structural similarity of each pair of images (Wang et al. 2004), by torchmetrics.

    Gaussian window of 11×11 pixels with σ = 1.5, K1 = 0.01, K2 = 0.03, mean over the windows that lie inside the image
    (as in the original; torchmetrics' own mean includes a mirrored border) and over the colors. SSIM depends on where
    black lies, so pixels are moved to [0, 2], which equals [0, 1] and [0, 255] with their ranges.

    Args:
        images: (B, 3, h, w) in [-1, 1].
        others: (B, 3, h, w) in [-1, 1].

    Returns:
        (B,) float32, 1 for equal images.

    Raises:
        ValueError: if the images are smaller than the window, or torchmetrics is not installed.
    """
    _check_pair("SSIM", images, others)
    if min(images.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs images of at least {SSIM_WINDOW}×{SSIM_WINDOW} pixels, "
            f"{images.shape[2]}×{images.shape[3]} given"
        )
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        raise ValueError("SSIM needs torchmetrics: pip install 'heptapod[evaluation]'") from None
    with torch.autocast(images.device.type, enabled=False):
        _, similarity = structural_similarity_index_measure(
            images.float() + 1,
            others.float() + 1,
            sigma=1.5,
            reduction="none",
            data_range=2.0,
            return_full_image=True,
        )
    border = SSIM_WINDOW // 2  # where torchmetrics mirrors the image to fill the window
    inside: Tensor = similarity[..., border:-border, border:-border]
    return inside.mean((1, 2, 3))


def _check_pair(metric: str, images: Tensor, others: Tensor) -> None:
    if images.shape != others.shape or images.ndim != 4:
        raise ValueError(
            f"{metric} compares two batches of one shape (B, 3, h, w), {tuple(images.shape)} and "
            f"{tuple(others.shape)} given"
        )
