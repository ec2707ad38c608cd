"""What is asked of a model that it was not trained for, each in a line."""

from __future__ import annotations

from collections.abc import Sequence

from heptapod.inference.bundle import ModelBundle
from heptapod.sampling import TRAINED_FOR, Known, SamplingConfig


def size_warning(bundle: ModelBundle) -> str | None:
    """What to know of a size that is not the trained one."""
    grid, trained, factor = bundle.model.grid, bundle.model.trained_grid, bundle.tokenizer.factor
    if (grid.height, grid.width) == (trained.height, trained.width):
        return None
    height, width = bundle.image_size
    return (
        f"size: {height}×{width} pixels ({grid.height}×{grid.width} cells), but the model was trained on "
        f"{trained.height * factor}×{trained.width * factor} ({trained.height}×{trained.width} cells) only"
    )


def support_warnings(
    bundle: ModelBundle, labels: Sequence[int], config: SamplingConfig, known: Known | None = None
) -> list[str]:
    """What to know of labels, an order and known cells; of the size see :func:`size_warning`.

    Args:
        bundle: the model.
        labels: class indices, -1 for no label.
        config: with its token order filled in.
        known: cells to keep.
    """
    found = []
    if config.token_order not in TRAINED_FOR[bundle.token_order]:
        found.append(
            f"token_order: sampling in {config.token_order} order, but the model was trained on "
            f"{bundle.token_order} order only"
        )
    if known is not None and bundle.token_order == "raster":
        is_prefix = not bool((~known.mask[:-1] & known.mask[1:]).any())
        if not is_prefix or (known.order is not None and bool((known.order.diff() < 0).any())):
            found.append("known: these cells are not the first in raster order, the only order trained")
    if bundle.label_dropout == 0 and bundle.class_names and -1 in labels:
        found.append("labels: none given, but the model was never trained without a label")
    return found
