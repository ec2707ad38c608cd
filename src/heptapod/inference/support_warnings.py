"""Warnings about requests that a model was not trained for, one line each."""

from __future__ import annotations

from collections.abc import Sequence

from heptapod.inference.bundle import ModelBundle
from heptapod.sampling import TRAINED_FOR, Known, SamplingConfig


def size_warning(bundle: ModelBundle) -> str | None:
    """A warning if the size is not the trained one."""
    grid, trained = bundle.model.grid, bundle.model.trained_grid
    if (grid.height, grid.width) == (trained.height, trained.width):
        return None
    (height, width), (trained_height, trained_width) = bundle.image_size, bundle.trained_image_size
    return (
        f"size: {height}×{width} pixels ({grid.height}×{grid.width} cells), but the model was trained on "
        f"{trained_height}×{trained_width} ({trained.height}×{trained.width} cells) only"
    )


def support_warnings(
    bundle: ModelBundle, labels: Sequence[int], config: SamplingConfig, known: Known | None = None
) -> list[str]:
    """Warnings about labels, token order and known cells; for the size see :func:`size_warning`.

    Args:
        bundle: the model.
        labels: class indices, -1 for no label.
        config: with its token order filled in.
        known: cells to keep.
    """
    messages = []
    if config.token_order not in TRAINED_FOR[bundle.token_order]:
        messages.append(
            f"token_order: sampling in {config.token_order} order, but the model was trained on "
            f"{bundle.token_order} order only"
        )
    if known is not None and bundle.token_order == "raster":
        is_prefix = not bool((~known.mask[:-1] & known.mask[1:]).any())
        if not is_prefix or (known.order is not None and bool((known.order.diff() < 0).any())):
            messages.append("known: these cells are not the first in raster order, the only order trained")
    if bundle.label_dropout == 0 and bundle.class_names and -1 in labels:
        messages.append("labels: none given, but the model was never trained without a label")
    return messages
