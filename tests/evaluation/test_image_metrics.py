from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heptapod.evaluation.image_metrics import psnr, ssim


def images(num: int = 3, size: int = 24, seed: int = 0) -> Tensor:
    coarse = torch.rand(num, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (size, size), mode="bilinear")


def noise(like: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [2.0, 0.5, 0.01])
def test_psnr_of_a_constant_offset(offset: float) -> None:
    x = torch.full((2, 3, 8, 8), -1.0)
    assert psnr(x, x + offset).tolist() == pytest.approx([20 * math.log10(2 / offset)] * 2, abs=1e-4)


def test_psnr_is_per_image_and_capped() -> None:
    x = images()
    y = x.clone()
    y[1] += 0.1 * noise(y[1])
    y[2] += 1e-7
    values = psnr(x, y)
    assert values.dtype == torch.float32
    assert values[0] == 100
    assert values[1] == pytest.approx(10 * math.log10(4 / float((x[1] - y[1]).double().square().mean())), rel=1e-5)
    assert values[2] == 100


def reference_ssim(x: Tensor, y: Tensor) -> Tensor:
    """The formula of Wang et al. on pixels in [0, 1], window by window, in float64."""
    x, y = (x.double() + 1) / 2, (y.double() + 1) / 2
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    weights = (torch.outer(line, line) / line.sum() ** 2).flatten()

    def windows(z: Tensor) -> Tensor:
        return z.unfold(2, 11, 1).unfold(3, 11, 1).flatten(4)

    def mean(z: Tensor) -> Tensor:
        return (z * weights).sum(-1)

    wx, wy = windows(x), windows(y)
    mx, my = mean(wx), mean(wy)
    vx, vy = mean((wx - mx[..., None]).square()), mean((wy - my[..., None]).square())
    vxy = mean((wx - mx[..., None]) * (wy - my[..., None]))
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean((1, 2, 3))


def test_ssim_equals_its_formula() -> None:
    x = images()
    y = (x + torch.tensor([0.02, 0.1, 0.3]).view(3, 1, 1, 1) * noise(x)).clamp(-1, 1)
    values = ssim(x, y)
    assert values.shape == (3,)
    assert values.dtype == torch.float32
    assert torch.allclose(values.double(), reference_ssim(x, y), atol=2e-5)
    assert (values.diff() < 0).all()
    assert torch.allclose(ssim(x, x), torch.ones(3), atol=1e-6)
    assert torch.allclose(ssim(x[1:2], y[1:2]), values[1:2], atol=1e-6)


def test_ssim_of_the_smallest_image() -> None:
    x = images(size=11)
    y = x + 0.1 * noise(x)
    assert torch.allclose(ssim(x, y).double(), reference_ssim(x, y), atol=2e-5)
    with pytest.raises(ValueError, match="at least 11×11 pixels, 10×24 given"):
        ssim(torch.zeros(1, 3, 10, 24), torch.zeros(1, 3, 10, 24))


def test_shapes_must_agree() -> None:
    for metric in (psnr, ssim):
        with pytest.raises(ValueError, match="of one shape"):
            metric(torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ValueError, match=r"pip install 'heptapod\[evaluation\]'"):
        ssim(images(), images())
