"""GPUs by name: peak of dense matrix products, and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

GIB = 2**30


@dataclass(frozen=True)
class GPU:
    """A GPU, with the figures of its datasheet."""

    name: str
    bfloat16_tflops: float
    """Peak of dense bfloat16 matrix products accumulated in float32, in 10¹² FLOPs per second."""
    float32_tflops: float
    """Peak in float32 (without TF32, which torch does not use by default)."""
    memory_gib: float
    """Memory; a vendor's GB is a GiB to a few percent."""

    def peak(self, precision: Literal["auto", "float32", "bfloat16"]) -> float:
        """FLOPs per second at a training precision; auto is bfloat16."""
        return 1e12 * (self.float32_tflops if precision == "float32" else self.bfloat16_tflops)


# Datasheets, without the factor 2 of "sparsity":
#   A100   NVIDIA A100 Tensor Core GPU datasheet (SXM): BF16 312, FP32 19.5; 40 or 80 GB
#   H100   NVIDIA H100 Tensor Core GPU datasheet (SXM): BF16 1,979 with sparsity, FP32 67; 80 GB
#   H200   NVIDIA H200 Tensor Core GPU datasheet (SXM): as H100; 141 GB
#   B200   NVIDIA HGX B200 (8 GPUs): BF16 36,000 with sparsity, FP32 600, memory 1,440 GB (DGX B200 datasheet)
#   L40S   NVIDIA L40S datasheet: BF16 362.05, FP32 91.6; 48 GB
#   4090   NVIDIA Ada GPU architecture whitepaper, appendix A: BF16 with FP32 accumulate 165.2, FP32 82.6; 24 GB
#   MI300X AMD Instinct MI300X datasheet: bfloat16 1,307.4, FP32 matrix 163.4; 192 GB
GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("a100-40", 312, 19.5, 40),
        GPU("a100-80", 312, 19.5, 80),
        GPU("h100", 989.5, 67, 80),
        GPU("h200", 989.5, 67, 141),
        GPU("b200", 2250, 75, 180),
        GPU("l40s", 362.05, 91.6, 48),
        GPU("rtx4090", 165.2, 82.6, 24),
        GPU("mi300x", 1307.4, 163.4, 192),
    )
}
DEFAULT_GPU = "h100"


def find_gpu(name: str | None = None, tflops: float | None = None, memory_gib: float | None = None) -> GPU:
    """A GPU of the table, or a custom one.

    Args:
        name: a name in the table; None is h100, or "custom" if both other arguments are given.
        tflops: peak at the training precision, replaces that of the table.
        memory_gib: memory, replaces that of the table.

    Raises:
        ValueError: for an unknown name, or values that are not above 0.
    """
    for setting, number in (("gpu_tflops", tflops), ("gpu_memory_gib", memory_gib)):
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise ValueError(f"{setting}: {number} given, must be above 0")
    if name is None and tflops is not None and memory_gib is not None:
        return GPU("custom", tflops, tflops, memory_gib)
    found = GPUS.get((name or DEFAULT_GPU).lower())
    if found is None:
        raise ValueError(
            f"gpu: {name} given, must be one of {', '.join(GPUS)}; or describe a custom GPU with --gpu_tflops and "
            "--gpu_memory_gib"
        )
    return GPU(
        found.name,
        tflops or found.bfloat16_tflops,
        tflops or found.float32_tflops,
        memory_gib or found.memory_gib,
    )


def gpu_of_device(device_name: str) -> GPU | None:
    """The GPU of the table with this name in torch, such as "NVIDIA H100 80GB HBM3"; None if the table lacks it.

    The slower PCIe and NVL variants are not in the table.
    """
    words = device_name.lower().replace("-", " ").split()
    if "pcie" in words or "nvl" in words:
        return None
    for name, gpu in GPUS.items():
        model = name.removeprefix("rtx").partition("-")[0]
        size = name.partition("-")[2]
        if model in words and (not size or any(word.startswith(f"{size}gb") for word in words)):
            return gpu
    return None
