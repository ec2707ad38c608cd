"""RMS normalization and SwiGLU's gate, each with a custom backward pass.

Autograd saves every intermediate tensor of these and, on a CPU, makes slow passes over them: reductions over leading
dimensions, halves joined again. Written out, the backward pass saves the input only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(x: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Root-mean-square normalization (1910.07467) over the last dimension, times a scale.

    Args:
        x: (..., D), any dtype.
        scale: (..., D), which broadcasts against x.
        eps: added to the mean square.

    Returns:
        (..., D) in the dtype of x; computed in float32, or in float64 where x is.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return kernel_rms_norm(x, scale, eps)
    normalize: Callable[..., Tensor] = _RMSNorm.apply
    return normalize(x, scale, eps)


def kernel_rms_norm(x: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """:func:`rms_norm` by torch's own operator, which has a kernel on a GPU and is fused by the compiler."""
    if scale.dim() > 1 and len(scale) == 1:
        return kernel_rms_norm(x, scale[0], eps)
    if scale.dim() > 1:
        dim = -scale.dim()
        parts = zip(x.unbind(dim), scale, strict=True)
        return torch.stack([kernel_rms_norm(part, part_scale, eps) for part, part_scale in parts], dim)
    # One dtype keeps half precision on the kernel.
    return F.rms_norm(x, (x.shape[-1],), scale.to(x.dtype), eps)


def gated_silu(gate_up: Tensor) -> Tensor:
    """SiLU of the first half of the last dimension times the second half: (..., 2·W) -> (..., W)."""
    if torch.compiler.is_compiling():  # which fuses it
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
    gated: Callable[[Tensor], Tensor] = _GatedSiLU.apply
    return gated(gate_up)


class _RMSNorm(torch.autograd.Function):
    """y = s · x / r with r = √(mean x² + ε)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """(..., D)."""
        wide = _wide(x)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        rstd = (norm.square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, scale, rstd)
        out: Tensor = (wide * rstd).mul_(_wide(scale)).to(x.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """With n = x / r: ∂x = (s·g − n · mean(s·g·n)) / r and ∂s = Σ g·n."""
        x, scale, rstd = ctx.saved_tensors
        grad, normed, wide_scale = _wide(grad), _wide(x) * rstd, _wide(scale)
        product = grad * normed
        grad_scale = _sum_to(product, scale.shape).to(scale.dtype)
        projection = (product * wide_scale).mean(-1, keepdim=True)
        grad_x = (grad * wide_scale).addcmul_(normed, projection, value=-1).mul_(rstd)
        return grad_x.to(x.dtype), grad_scale, None


class _GatedSiLU(torch.autograd.Function):
    """y = silu(a) · b for halves a and b of one tensor."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """(..., W)."""
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        out: Tensor = F.silu(gate).mul_(up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Both halves of the gradient (..., 2·W), written into one tensor."""
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, dim=-1)
        torch.mul(grad, F.silu(gate), out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return out


def _wide(x: Tensor) -> Tensor:
    """In float32, or float64 as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """The sum of x over the dimensions in which a broadcast tensor of that shape has size 1 or is absent.

    Leading ones are summed as one and before the others: a CPU sums a strided dimension many times slower.
    """
    lead = x.dim() - len(shape)
    while shape[lead - x.dim()] == 1 and lead < x.dim() - 1:
        lead += 1
    if lead:
        x = x.flatten(0, lead - 1).sum(0)
    return x.sum_to_size(shape[-x.dim() :]).view(shape)
