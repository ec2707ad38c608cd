"""Choices and defaults of evaluation."""

from __future__ import annotations

from typing import Literal

Metric = Literal["frechet", "kernel", "score", "precision_recall", "density_coverage"]
LabelPolicy = Literal["balanced", "random", "reference", "none"]
SUFFIX = ".safetensors"
FEATURES_KEPT = 10_000
"""Features kept by default for the metrics that need more than moments."""
