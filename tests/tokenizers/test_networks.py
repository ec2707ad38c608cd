"""The convolutional networks of the tokenizers."""

from __future__ import annotations

import torch
from torch import nn

from heptapod.configs.tokenizers import VQConfig
from heptapod.tokenizers.networks import build_decoder, build_encoder


def test_channels_last_in_memory_computes_the_same() -> None:
    """Values and gradients of the encoder and decoder are those of the plain sequence of their layers."""
    generator = torch.Generator().manual_seed(0)
    config = VQConfig(factor=4, codebook_size=8, code_width=4, width=8)
    images = torch.rand(2, 3, 16, 24, dtype=torch.float64, generator=generator) * 2 - 1
    for network, x in (
        (build_encoder(config, 4).double(), images),
        (build_decoder(config, 4).double(), torch.randn(2, 4, 4, 6, dtype=torch.float64, generator=generator)),
    ):
        results = []
        for layers in (network, nn.Sequential(*network)):
            given = x.clone().requires_grad_()
            out = layers(given)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), [given, *network.parameters()])))
            assert layers is not network or out.is_contiguous()
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_convolutions_see_channels_last() -> None:
    seen: list[bool] = []
    network = build_encoder(VQConfig(factor=4, codebook_size=8, code_width=4, width=8), 4)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    network(torch.zeros(2, 3, 16, 24))
    assert seen
    assert all(seen)
