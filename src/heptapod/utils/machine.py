"""What this machine holds."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GIB = 2**30
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int | None:
    """Main memory that this process may use: the machine's, or that of its container; None if it is not known."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    limits = (Path(file) for file in CGROUP_LIMITS)
    texts = [file.read_text(encoding="ascii").strip() for file in limits if file.is_file()]
    return min([whole, *(int(text) for text in texts if text.isdecimal())])


def check_fits(needed: int, given: str) -> None:
    """Checks, before anything is allocated, that main memory holds a number of bytes.

    Args:
        needed: bytes, at least.
        given: the settings and their values.

    Raises:
        ValueError: naming what is needed and what there is.
    """
    available = memory_bytes()
    if available is not None and needed > available:
        raise ValueError(
            f"{given} given, which needs at least {needed / GIB:,.1f} GiB of memory; this machine has "
            f"{available / GIB:,.1f} GiB"
        )


def compiles_by_default(device: torch.device) -> bool:
    """Whether torch.compile suits a device: a GPU that Triton supports, with what Triton compiles its launcher with."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    import torch

    has_compiler = any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))
    has_headers = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    is_supported = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (7, 0)
    return has_compiler and has_headers and is_supported


def check_compiler(setting: str, device_type: str) -> None:
    """Checks that there is what torch.compile needs on a device.

    Raises:
        ValueError: naming the setting, if there is no C++ compiler, which a CPU needs.
    """
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device_type != "cuda" and shutil.which(compiler) is None:
        raise ValueError(f"{setting}: a CPU needs a C++ compiler, and {compiler} is not there (name yours in CXX)")
