"""Sampling: one loop over order × schedule × filter; known cells are just a prefix."""

from heptapod.sampling.order import TRAINED_FOR
from heptapod.sampling.sampler import Known, SamplingStep, check_plan, sample_stream, sample_tokens
from heptapod.sampling.schedule import SamplingConfig, cells_per_step

__all__ = [
    "TRAINED_FOR",
    "Known",
    "SamplingConfig",
    "SamplingStep",
    "cells_per_step",
    "check_plan",
    "sample_stream",
    "sample_tokens",
]
