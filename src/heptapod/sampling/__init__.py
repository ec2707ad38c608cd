"""Sampling: one loop for every token order, schedule and filter; known cells are a prefix of the sequence."""

from heptapod.configs.sampling import TRAINED_FOR, SamplingConfig
from heptapod.sampling.plan import Known, SamplingPlan, plan_sampling
from heptapod.sampling.sampler import SamplingStep, run_plan, run_to_end, sample_stream, sample_tokens
from heptapod.sampling.schedule import cells_per_step

__all__ = [
    "TRAINED_FOR",
    "Known",
    "SamplingConfig",
    "SamplingPlan",
    "SamplingStep",
    "cells_per_step",
    "plan_sampling",
    "run_plan",
    "run_to_end",
    "sample_stream",
    "sample_tokens",
]
