"""Oracles of the operations with a custom backward pass: their formulas, differentiated by torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.nn.fused import gated_silu, kernel_rms_norm, rms_norm


def _formula(x: Tensor, scale: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale


@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((3, 8), (8,)), ((8,), (8,)), ((2, 3, 2, 4, 8), (2, 1, 8)), ((2, 3, 4, 8), (1, 8)), ((2, 3, 8), (2, 3, 8)),
        ((2, 3, 8), (1, 1, 8)), ((0, 8), (8,)), ((2, 3, 4, 8), (3, 4, 8)),
    ],
)  # fmt: skip
def test_rms_norm_and_its_gradients(shape: tuple[int, ...], scale: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(size, generator=generator, dtype=torch.float64) for size in (shape, scale))
    grad = torch.randn(shape, generator=generator, dtype=torch.float64)
    results = []
    for function in (rms_norm, kernel_rms_norm, _formula):
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = function(*inputs)
        results.append((out.detach(), *torch.autograd.grad(out, inputs, grad)))
    for got, expected in [*zip(results[0], results[2], strict=True), *zip(results[1], results[2], strict=True)]:
        assert got.shape == expected.shape
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_gated_silu_and_its_gradient() -> None:
    x = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    gate, up = x.chunk(2, -1)
    torch.testing.assert_close(gated_silu(x), F.silu(gate) * up, rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(gated_silu, x)


def test_bfloat16_is_computed_in_float32_and_rounded_once() -> None:
    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.rand(96, generator=torch.Generator().manual_seed(1))
    out = rms_norm(x, weight)
    assert out.dtype == torch.bfloat16
    expected = _formula(x.double(), weight.double())
    assert (out.double() - expected).abs().max() <= 2**-8 * expected.abs().max(), "half a unit in the last place"
    inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
    grads = torch.autograd.grad(rms_norm(*inputs).float().square().sum(), inputs)
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32]


def test_only_inputs_are_saved_for_the_backward_pass() -> None:
    saved: list[int] = []
    x = torch.randn(4, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        gated_silu(x)
        rms_norm(x, torch.ones(16, requires_grad=True))
    assert sorted(saved) == [4, 16, 64, 64], "one value per vector, the scale, and the input of each"
