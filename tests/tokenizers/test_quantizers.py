"""VQ and FSQ against vector-quantize-pytorch: the same inputs and codebook, the same codes and losses."""

from __future__ import annotations

import math

import pytest
import torch

from heptapod.tokenizers.codebook import Codebook
from heptapod.tokenizers.fsq import FiniteScalarQuantizer

LEVELS = [[8, 5, 5, 5], [8, 6, 5], [7, 5, 5, 5, 5], [3, 4], [4]]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_vq_agrees_with_the_library() -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    oracle = library.VectorQuantize(
        dim=8, codebook_size=64, decay=0.9, commitment_weight=0.25, kmeans_init=False, threshold_ema_dead_code=0, eps=0
    )
    ours = Codebook(64, 8, decay=0.9, dead_below=0.0)
    vectors = torch.randn(64, 8, generator=generator())
    counts = torch.full((64,), 3.0)
    ours.vectors.copy_(vectors)
    ours.counts.copy_(counts)
    ours.initialized.fill_(True)
    oracle._codebook.embed.data.copy_(vectors.unsqueeze(0))
    oracle._codebook.cluster_size.data.copy_(counts.unsqueeze(0))
    oracle._codebook.embed_avg.data.copy_((vectors * counts.unsqueeze(1)).unsqueeze(0))
    oracle.train()
    for step in range(5):
        x = torch.randn(2, 500, 8, generator=torch.Generator().manual_seed(step))
        quantized, codes, loss = oracle(x.clone())
        own_codes = ours.nearest(x.flatten(0, 1))
        assert torch.equal(own_codes, codes.flatten())
        own = ours.vectors[own_codes]
        assert torch.allclose(own, quantized.flatten(0, 1), atol=1e-5)
        assert abs(float(0.25 * (x.flatten(0, 1) - own).square().mean() - loss.detach())) < 1e-5
        ours.update(ours.statistics(x.flatten(0, 1), own_codes), 0, step)
        assert torch.allclose(ours.vectors, oracle._codebook.embed[0], atol=1e-5), "the moving averages too"


@pytest.mark.parametrize("levels", LEVELS)
def test_fsq_agrees_with_the_library(levels: list[int]) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    oracle = library.FSQ(levels)
    ours = FiniteScalarQuantizer(levels)
    x = (3 * torch.randn(4, 200, len(levels), generator=generator())).requires_grad_()
    expected, codes = oracle(x)
    quantized = ours(x)
    assert torch.allclose(quantized, expected, atol=1e-5)
    assert torch.equal(ours.codes(quantized), codes.long())
    (gradient,) = torch.autograd.grad(quantized.square().sum(), x)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), x)
    assert torch.allclose(gradient, expected_gradient, atol=1e-5)


@pytest.mark.parametrize("levels", LEVELS)
def test_fsq_codes_and_values_are_one_to_one(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    codes = torch.arange(math.prod(levels))
    values = quantizer.values(codes)
    assert torch.equal(quantizer.codes(values), codes)
    assert values.abs().max() <= 1
    assert len(values.unique(dim=0)) == len(codes)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_fsq_code_can_be_reached(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    line = torch.linspace(-6, 6, 400)
    for channel, count in enumerate(levels):
        x = torch.zeros(400, len(levels))
        x[:, channel] = line
        assert len(quantizer(x)[:, channel].unique()) == count
