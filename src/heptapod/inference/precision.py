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
from heptapod.nn.layers import Block

logger = logging.getLogger(__name__)

NARROW = 256
"""Models below this width stay in float32 on a CPU: their products are too small to gain."""
ROWS = 128
"""Tokens of the measured product: sixteen cells of eight images."""
GAIN = 1.2
"""How many times faster a product in bfloat16 must be to be preferred on a CPU."""


def inference_dtype(precision: Precision | torch.dtype, model: HeptapodModel, device: torch.device) -> torch.dtype:
    """The dtype of a model in use.

    ``auto`` is bfloat16 on a CUDA GPU that has it, and on a CPU if the largest product of the model's blocks is
    measured to be at least 1.2 times faster in it, which takes a few hundredths of a second. Elsewhere it is float32.
    Rank 0 decides for all ranks, which must all ask.

    Args:
        precision: auto, float32, bfloat16, float16, or a dtype.
        model: the model in float32.
        device: where it will be used.

    Raises:
        ValueError: for any other precision.
    """
    if isinstance(precision, torch.dtype):
        return precision
    if precision == "auto":
        is_faster = process_group.broadcast_result(lambda: _prefers_bfloat16(model, device))
        return torch.bfloat16 if is_faster else torch.float32
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if precision not in named:
        raise ValueError(f"precision: {precision!r} given, must be auto, {', '.join(named)}")
    lacking = not (has_float16_on_cpu() if precision == "float16" else has_bfloat16(device))
    if precision != "float32" and device.type == "cpu" and lacking:
        logger.warning(f"precision: {precision}, but this CPU has no instructions for it; float32 is many times faster")
    return named[precision]


def dtype_name(dtype: torch.dtype) -> Precision:
    """The name of a dtype as a setting: float32, bfloat16, float16."""
    return cast("Precision", str(dtype).removeprefix("torch."))


def _prefers_bfloat16(model: HeptapodModel, device: torch.device) -> bool:
    if device.type not in ("cpu", "cuda") or not has_bfloat16(device):
        return False
    return device.type == "cuda" or _gains(model)


@torch.inference_mode()
def _gains(model: HeptapodModel) -> bool:
    """Whether the largest product of a model's blocks is faster in bfloat16 on this CPU."""
    if model.config.width < NARROW:
        return False
    weights = [part.weight for block in model.backbone.blocks for part in _linears(block)]
    weight = max(weights, key=lambda tensor: tensor.numel()).detach()
    x = torch.ones(ROWS, weight.shape[1])
    seconds = {dtype: _seconds(x.to(dtype), weight.to("cpu", dtype)) for dtype in (torch.float32, torch.bfloat16)}
    return seconds[torch.float32] > GAIN * seconds[torch.bfloat16]


def _linears(block: nn.Module) -> list[nn.Linear]:
    assert isinstance(block, Block)
    return [part for part in block.modules() if isinstance(part, nn.Linear)]


def _seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
    """Of one product, the fastest of five after two."""
    measured = []
    for _ in range(7):
        started = time.perf_counter()
        nn.functional.linear(x, weight)
        measured.append(time.perf_counter() - started)
    return min(measured[2:])
