"""The precision of a model in use: what ``auto`` is on a device."""

from __future__ import annotations

import logging
import time
from typing import cast

import torch
from torch import nn

from heptapod.configs.sampling import Precision
from heptapod.distributed import process_group
from heptapod.distributed.device import has_bfloat16, has_float16_on_cpu
from heptapod.models import HeptapodModel

logger = logging.getLogger(__name__)

NARROW = 256
"""Models below this width stay in float32 on a CPU: their products are too small to gain."""
ROWS = 128
"""Tokens of the measured product: sixteen cells of eight images."""
GAIN = 1.2
"""How many times faster a product in bfloat16 must be to be preferred on a CPU."""


def inference_dtype(precision: Precision | torch.dtype, model: HeptapodModel) -> torch.dtype:
    """The dtype of a model in use.

    ``auto`` is bfloat16 on a CUDA GPU that has it, and on a CPU if the largest product of the model's blocks is
    measured to be at least 1.2 times faster in it, which takes a few hundredths of a second. Elsewhere it is float32.
    Rank 0 decides for all ranks, which must all ask.

    Args:
        precision: auto, float32, bfloat16, float16, or a dtype.
        model: the model in float32, on its device.

    Raises:
        ValueError: for any other precision.
    """
    if isinstance(precision, torch.dtype):
        return precision
    if precision == "auto":
        is_faster = process_group.broadcast_result(lambda: _prefers_bfloat16(model))
        return torch.bfloat16 if is_faster else torch.float32
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision not in named:
        raise ValueError(f"precision: {precision!r} given, must be auto, {', '.join(named)}")
    has = {"float32": True, "bfloat16": has_bfloat16(model.device), "float16": has_float16_on_cpu()}
    if model.device.type == "cpu" and not has[precision]:
        logger.warning(f"precision: {precision}, but this CPU has no instructions for it; float32 is many times faster")
    return named[precision]


def dtype_name(dtype: torch.dtype) -> Precision:
    """The name of a dtype as a setting: float32, bfloat16, float16."""
    return cast("Precision", str(dtype).removeprefix("torch."))


@torch.inference_mode()
def _prefers_bfloat16(model: HeptapodModel) -> bool:
    device = model.device
    if device.type not in ("cpu", "cuda") or not has_bfloat16(device):
        return False
    if device.type == "cuda":
        return True
    if model.config.width < NARROW:
        return False
    weight = max(model.backbone.blocks[0].parameters(), key=torch.numel)
    x = torch.ones(ROWS, weight.shape[1])
    seconds = {dtype: _seconds(x.to(dtype), weight.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.float32] > GAIN * seconds[torch.bfloat16]


def _seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
    """Of one product, the fastest of five after two."""
    measured = []
    for _ in range(7):
        started = time.perf_counter()
        nn.functional.linear(x, weight)
        measured.append(time.perf_counter() - started)
    return min(measured[2:])
