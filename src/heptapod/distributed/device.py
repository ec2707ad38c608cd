"""The device that a setting names."""

from __future__ import annotations

import torch

from heptapod.distributed import process_group


def resolve_device(name: str) -> torch.device:
    """The device a setting names; of several processes on GPUs each has its own.

    Raises:
        ValueError: if there is no such device, or several processes are to share it.
    """
    if process_group.is_distributed() and ":" in name:
        raise ValueError(
            f"device: {name} given, but each of several processes takes a GPU of its own; give auto, cuda or cpu"
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"device: {name} given, but there is no such device here; use auto or cpu") from None
    return device
