"""What is asked of a model that it was not trained for, each in a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heptapod.sampling import TRAINED_FOR, Known, SamplingConfig

if TYPE_CHECKING:
    from heptapod.pipeline import Heptapod


def size_caution(heptapod: Heptapod) -> str | None:
    """What to know of a size that is not the trained one."""
    grid, trained, factor = heptapod.model.grid, heptapod.model.trained_grid, heptapod.tokenizer.factor
    if (grid.height, grid.width) == (trained.height, trained.width):
        return None
    height, width = heptapod.image_size
    return (
        f"size: {height}×{width} pixels ({grid.height}×{grid.width} cells), but the model was trained on "
        f"{trained.height * factor}×{trained.width * factor} ({trained.height}×{trained.width} cells) only"
    )


def cautions(
    heptapod: Heptapod, labels: Sequence[int], config: SamplingConfig, known: Known | None = None
) -> list[str]:
    """What to know of labels, an order and known cells; of the size see :func:`size_caution`.

    Args:
        heptapod: the model.
        labels: class indices, -1 for no label.
        config: with its token order filled in.
        known: cells to keep.
    """
    found = []
    if config.token_order not in TRAINED_FOR[heptapod.token_order]:
        found.append(
            f"token_order: sampling in {config.token_order} order, but the model was trained on "
            f"{heptapod.token_order} order only"
        )
    if known is not None and heptapod.token_order == "raster":
        is_prefix = not bool((~known.mask[:-1] & known.mask[1:]).any())
        if not is_prefix or (known.order is not None and bool((known.order.diff() < 0).any())):
            found.append("known: these cells are not the first in raster order, the only order trained")
    if heptapod.label_dropout == 0 and heptapod.class_names and -1 in labels:
        found.append("labels: none given, but the model was never trained without a label")
    return found
