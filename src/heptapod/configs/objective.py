"""Settings of the objective."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from heptapod.configs.grid import MAX_CELLS, TokenOrder
from heptapod.utils.config import settings


@settings
class ObjectiveConfig:
    """Token order and supervision density."""

    token_order: TokenOrder = "raster"
    """Order in which tokens are read: raster, a random permutation per image, or one of the two per image."""
    prefixes_per_image: Annotated[int, Field(ge=1, le=MAX_CELLS)] | Literal["all"] = "all"
    """S: random prefixes supervised per image and step, or all of them."""
    targets_per_prefix: Annotated[int, Field(ge=1, le=MAX_CELLS)] | Literal["all"] = 3
    """L: cells predicted per prefix, the next one and L-1 random other unread ones, or all unread."""
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Probability of training an image without its label."""
