"""Limits of a token grid, and the orders in which it is read."""

from __future__ import annotations

from typing import Literal

TokenOrder = Literal["raster", "random", "mixed"]
"""The order in which a model reads the cells of the grid; mixed draws raster or random for each image."""
MAX_CELLS = 1 << 16
"""The most cells that a grid may have."""
MAX_CODES = 1 << 24
"""The most codes that a vocabulary may have."""
MAX_CHANNELS = 1 << 14
"""The most channels that a token may have."""
