"""TAEF2, a tiny autoencoder for the latents of FLUX.2 (github.com/madebyollin/taesd): 2.7 million weights, MIT.

Images of the networks are in [0, 1]. Module names are those of the published files.

Shape legend: B batch, h and w sides, W width of the networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from heptapod.configs.tokenizers import TokenizerConfig
from heptapod.tokenizers.base import PUBLISHED_TOKENIZERS, register_tokenizer
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.pretrained.base import PretrainedTokenizer
from heptapod.utils.config import settings
from heptapod.utils.files import load_strictly, read_tensors

WIDTH = 64
POOL_WIDTH = 256
LATENT_CHANNELS = 32


@settings
class Taef2Config(TokenizerConfig):
    """The published TAEF2: latents of 32 channels, one per 8×8 pixels."""

    kind: Literal["taef2"] = "taef2"
    """Kind of tokenizer."""
    patch: Annotated[int, Field(ge=1)] = 1
    """Latent positions per side that make one token of 32 · patch² channels (2 halves the grid)."""


@register_tokenizer("taef2", Taef2Config, PUBLISHED_TOKENIZERS)
class Taef2Tokenizer(ContinuousTokenizer, PretrainedTokenizer):
    """Convolutional encoder and decoder without attention; fp16 files become float32 weights."""

    def __init__(self, config: Taef2Config) -> None:
        super().__init__(8, LATENT_CHANNELS, config.patch)
        self.config = config
        self.encoder = build_encoder()
        self.decoder = build_decoder()

    def encode_latent(self, images: Tensor) -> Tensor:
        """See :meth:`ContinuousTokenizer.encode_latent`."""
        latent: Tensor = self.encoder((images + 1) / 2)
        return latent

    def decode_latent(self, latent: Tensor) -> Tensor:
        """See :meth:`ContinuousTokenizer.decode_latent`."""
        images: Tensor = self.decoder(latent)
        return images * 2 - 1

    def load_published(self, path: Path) -> None:
        """See :meth:`PretrainedTokenizer.load_published`; a folder with one file for each network."""
        for name, network in (("encoder", self.encoder), ("decoder", self.decoder)):
            file = path / f"taef2_{name}.safetensors"
            load_strictly(network, read_tensors(file), file)


class Block(nn.Module):
    """Three convolutions with a skip connection; the deepest blocks first add what a wide normalized layer says."""

    def __init__(self, has_pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool: nn.Module | None = None
        if has_pool:
            widen = nn.Conv2d(WIDTH, POOL_WIDTH, 1, bias=False)
            self.pool = nn.Sequential(
                widen, nn.GroupNorm(4, POOL_WIDTH), nn.ReLU(), nn.Conv2d(POOL_WIDTH, WIDTH, 1, bias=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, h, w) -> (B, W, h, w)."""
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class Clamp(nn.Module):
    """Keeps latents within ±3, smoothly."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.tanh(x / 3) * 3


def build_encoder() -> nn.Sequential:
    """(B, 3, h, w) in [0, 1] -> (B, 32, h / 8, w / 8)."""
    return nn.Sequential(
        _conv(3),
        Block(),
        *(_halve(), Block(), Block(), Block()),
        *(_halve(), Block(), Block(), Block()),
        *(_halve(), Block(True), Block(True), Block(True)),
        _conv(WIDTH, LATENT_CHANNELS),
    )


def build_decoder() -> nn.Sequential:
    """(B, 32, h / 8, w / 8) -> (B, 3, h, w), about in [0, 1]."""
    return nn.Sequential(
        *(Clamp(), _conv(LATENT_CHANNELS), nn.ReLU()),
        *(Block(True), Block(True), Block(True), _double(), _plain()),
        *(Block(), Block(), Block(), _double(), _plain()),
        *(Block(), Block(), Block(), _double(), _plain()),
        Block(),
        _conv(WIDTH, 3),
    )


def _conv(inputs: int = WIDTH, outputs: int = WIDTH) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _plain() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)


def _halve() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)


def _double() -> nn.Upsample:
    return nn.Upsample(scale_factor=2)
