"""Logits in float32 from features in any precision, and their cross-entropy without all logits at once.

Shape legend: M features, D width, V codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from heptapod.nn.layers import Linear

LOGITS_AT_ONCE = 2**24
"""With more logits than these (64 MiB), the cross-entropy computes them in chunks of rows, and again in its backward
pass, in place of keeping them."""
WEIGHTS_AT_ONCE = 2**20
"""The most half-precision weights that a CPU converts to float32 at once: 4 MiB, which stay in its cache."""


def float32_product(features: Tensor, linear: Linear) -> Tensor:
    """Logits (..., V) in float32 of features (..., D): half precision rounds factors and gradients, no logits."""
    dtype = _low_precision(features, linear)
    if dtype is None:
        exact: Tensor = linear(features)
        return exact.float()
    with torch.autocast(features.device.type, enabled=False):
        product: Callable[..., Tensor] = _Float32Product.apply
        flat = product(features.flatten(0, -2), linear.weight, linear.bias, dtype)
        return flat.view(*features.shape[:-1], -1)


def float32_nats(features: Tensor, linear: Linear, targets: Tensor) -> Tensor:
    """The cross-entropy of the logits of :func:`float32_product`, in nats.

    Args:
        features: (M, D).
        linear: maps a feature to V logits.
        targets: (M,) int64 codes.

    Returns:
        (M,) float32.
    """
    if len(targets) * linear.out_features <= LOGITS_AT_ONCE:
        return F.cross_entropy(float32_product(features, linear), targets, reduction="none")
    dtype = _low_precision(features, linear) or features.dtype
    with torch.autocast(features.device.type, enabled=False):
        chunked: Callable[..., Tensor] = _ChunkedCrossEntropy.apply
        return chunked(features, linear.weight, linear.bias, targets, dtype)


def _low_precision(features: Tensor, linear: Linear) -> torch.dtype | None:
    """The dtype of the factors of the product, under autocast or of half-precision weights; None for full precision."""
    device, weight = features.device.type, linear.weight
    is_autocast = torch.is_autocast_enabled(device)
    if features.dtype == weight.dtype and features.dtype.itemsize >= 4 and not is_autocast:
        return None
    return torch.get_autocast_dtype(device) if is_autocast else weight.dtype


def _factors(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The operands of :func:`_product`: x in half precision on a GPU only, because a CPU cannot add up in float32."""
    wide = torch.promote_types(dtype, torch.float32)
    if x.device.type == "cuda":
        return x.to(dtype), weight.to(dtype), bias.to(wide)
    return x.to(wide), weight, bias.to(wide)


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The product x Wᵀ + b, (M, V), in float32 or float64, of operands that :func:`_factors` gives."""
    if x.dtype.itemsize < 4:
        return torch.mm(x, weight.T, out_dtype=torch.float32) + bias
    if x.dtype == weight.dtype:
        return F.linear(x, weight, bias)
    product = x.new_empty(len(x), len(weight))
    size = max(1, WEIGHTS_AT_ONCE // weight.shape[1])
    for start in range(0, len(weight), size):
        part = slice(start, start + size)
        torch.mm(x, weight[part].to(x.dtype).T, out=product[:, part])
    return product.add_(bias)


class _Float32Product(torch.autograd.Function):
    """x Wᵀ + b in float32, with gradients computed in a lower precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        """(M, V) float32."""
        factors = _factors(x, weight, bias, dtype)
        ctx.save_for_backward(factors[0].to(dtype), weight.to(dtype))
        ctx.dtypes = x.dtype, weight.dtype, bias.dtype
        return _product(*factors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of x, W and b, as autocast computes them."""
        x, weight = ctx.saved_tensors
        low, (x_dtype, weight_dtype, bias_dtype) = grad.to(x.dtype), ctx.dtypes
        return (low @ weight).to(x_dtype), (low.T @ x).to(weight_dtype), grad.sum(0).to(bias_dtype), None


class _ChunkedCrossEntropy(torch.autograd.Function):
    """-log softmax(x Wᵀ + b) at the targets. Of the logits it keeps only log Σ exp of each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """(M,) float32."""
        log_sum = x.new_empty(len(x), dtype=torch.promote_types(dtype, torch.float32))
        nats = torch.empty_like(log_sum)
        rows, columns, offsets = _factors(x, weight, bias, dtype)
        for part in _chunks(len(x), len(weight)):
            logits = _product(rows[part], columns, offsets)
            log_sum[part] = logits.logsumexp(-1)
            nats[part] = log_sum[part] - logits.gather(1, targets[part].unsqueeze(1)).squeeze(1)
        ctx.save_for_backward(x, weight, bias, targets, log_sum)
        ctx.dtype = dtype
        return nats.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Gradients of x, W and b: softmax minus one-hot, in the precision of the factors for the products."""
        x, weight, bias, targets, log_sum = ctx.saved_tensors
        rows, columns, offsets = _factors(x, weight, bias, ctx.dtype)
        low_x, low_weight = rows.to(ctx.dtype), weight.to(ctx.dtype)
        grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(bias)
        for part in _chunks(len(x), len(weight)):
            grad_logits = _product(rows[part], columns, offsets).sub_(log_sum[part].unsqueeze(1)).exp_()
            grad_logits.scatter_add_(1, targets[part].unsqueeze(1), grad_logits.new_full((len(grad_logits), 1), -1.0))
            grad_logits *= grad[part].unsqueeze(1)
            grad_bias += grad_logits.sum(0)
            factor = grad_logits.to(ctx.dtype)
            grad_x[part] = factor @ low_weight
            grad_weight += factor.T @ low_x[part]
        return grad_x, grad_weight, grad_bias, None, None


def _chunks(rows: int, codes: int) -> Iterator[slice]:
    """Slices of rows with at most ``LOGITS_AT_ONCE`` logits each, or single rows."""
    size = max(1, LOGITS_AT_ONCE // codes)
    return (slice(start, start + size) for start in range(0, rows, size))
