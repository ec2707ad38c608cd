"""The device of a setting."""

from __future__ import annotations

import torch

from heptapod.distributed import process_group


def resolve_device(name: str) -> torch.device:
    """The device of a setting such as auto, cpu or cuda; with several ranks, each has its own GPU.

    Raises:
        ValueError: if there is no such device, or several ranks would share it.
    """
    if process_group.is_distributed() and ":" in name:
        raise ValueError(f"device: {name} given, but every process has its own GPU; use auto, cuda or cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device: {name} given, but there is no such device; use auto or cpu") from None
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16. A processor without them is many times slower in it."""
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if device.type == "cuda" and torch.cuda.is_available():
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return True


def has_float16_on_cpu() -> bool:
    """Whether this processor has instructions for float16."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
