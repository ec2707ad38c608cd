"""Half precision on a GPU, whose products of bfloat16 are added up and kept in float32."""

from __future__ import annotations

import pytest
import torch

from heptapod.distributions import Categorical
from tests.small import CODES, VECTORS, small_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("half", ["autocast", "weights"])
def test_logits_are_not_rounded(half: str) -> None:
    device = torch.device("cuda")
    distribution = Categorical(64, 500).to(device)
    torch.nn.init.normal_(distribution.logits.weight)
    if half == "weights":
        distribution.to(torch.bfloat16)
    features = torch.randn(2, 3, 64, device=device, requires_grad=True)
    weight = distribution.logits.weight.detach().bfloat16().float()
    expected = torch.nn.functional.linear(features.detach().bfloat16().float(), weight)
    with torch.autocast("cuda", torch.bfloat16, enabled=half == "autocast"):
        logits = distribution.float32_logits(features)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
    logits.square().mean().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_generate(dtype: torch.dtype) -> None:
    for grid in (CODES, VECTORS):
        heptapod = small_model(grid).to("cuda", dtype)
        images = heptapod.generate([0, 1], output="tensor")
        assert heptapod.negative_log_likelihood(images, [0, 1]).isfinite().all()
        torch.nn.init.constant_(heptapod.model.token_embedding.weight, torch.nan)
        with pytest.raises(ValueError, match="not finite: token_embedding"):
            heptapod.generate([0])
