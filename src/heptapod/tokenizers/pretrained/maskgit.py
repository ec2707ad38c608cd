"""MaskGIT-VQ (2202.04200): the tokenizer of MaskGIT in PyTorch, as published by open-muse and used by TiTok and RAR.

A VQGAN without attention; convolutions of residual blocks have no bias, and the image is halved by averaging. Images
are in [0, 1]. Module names are those of the published state dict.

Shape legend: B batch, c channels, h and w sides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.configs.tokenizers import TokenizerConfig
from heptapod.tokenizers.base import PUBLISHED_TOKENIZERS, register_tokenizer
from heptapod.tokenizers.pretrained.base import QuantizedTokenizer, read_published
from heptapod.utils.config import settings
from heptapod.utils.files import load_strictly

WIDTHS = (128, 128, 256, 256, 512)
"""Width of every level, from the highest resolution."""
BLOCKS = 2
"""Residual blocks per level, in the decoder too, and in the middle."""
VECTOR_WIDTH = 256
CODEBOOK_SIZE = 1024


@settings
class MaskGITVQConfig(TokenizerConfig):
    """The published MaskGIT-VQ: 1,024 codes, one per 16×16 pixels."""

    kind: Literal["maskgit_vq"] = "maskgit_vq"
    """Kind of tokenizer."""


@register_tokenizer("maskgit_vq", MaskGITVQConfig, PUBLISHED_TOKENIZERS)
class MaskGITVQTokenizer(QuantizedTokenizer):
    """Convolutional encoder, nearest code, convolutional decoder."""

    def __init__(self, config: MaskGITVQConfig) -> None:
        super().__init__()
        self.config = config
        self.factor = 2 ** (len(WIDTHS) - 1)
        self.vocabulary_size = CODEBOOK_SIZE
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.quantize = Quantizer()

    def codebook(self) -> Tensor:
        """See :meth:`QuantizedTokenizer.codebook`."""
        return self.quantize.embedding.weight

    def encode_vectors(self, images: Tensor) -> Tensor:
        """See :meth:`QuantizedTokenizer.encode_vectors`."""
        vectors: Tensor = self.encoder((images + 1) / 2)
        return vectors

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """See :meth:`QuantizedTokenizer.decode_vectors`."""
        images: Tensor = self.decoder(vectors)
        return images * 2 - 1

    def load_published(self, path: Path) -> None:
        """See :meth:`PretrainedTokenizer.load_published`; ``maskgit-vqgan-imagenet-f16-256.bin``."""
        load_strictly(self, read_published(path), path)


class Quantizer(nn.Module):
    """Holds the codebook by its published name."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODEBOOK_SIZE, VECTOR_WIDTH)


class Residual(nn.Module):
    """A residual block; where the width changes, the second branch starts from the end of the first.

    That is an oddity of the published weights: the block's input then reaches the output through the convolutions only.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.nin_shortcut = nn.Conv2d(outputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        change: Tensor = self.conv1(F.silu(self.norm1(x)))
        change = self.conv2(F.silu(self.norm2(change)))
        return change + (x if self.nin_shortcut is None else self.nin_shortcut(change))


class Down(nn.Module):
    """A level of the encoder."""

    def __init__(self, inputs: int, outputs: int, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        self.block = _blocks(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / 2, w / 2); the last level keeps the size."""
        x = self.block(x)
        return x if self.is_last else F.avg_pool2d(x, 2)


class Up(nn.Module):
    """A level of the decoder."""

    def __init__(self, inputs: int, outputs: int, is_last: bool) -> None:
        super().__init__()
        self.block = _blocks(inputs, outputs)
        self.upsample_conv = None if is_last else nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, 2 h, 2 w); the last level keeps the size."""
        x = self.block(x)
        return x if self.upsample_conv is None else self.upsample_conv(F.interpolate(x, scale_factor=2.0))


class Encoder(nn.Module):
    """(B, 3, h, w) -> (B, c, h / 16, w / 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        inputs = (WIDTHS[0], *WIDTHS[:-1])
        last = len(WIDTHS) - 1
        self.down = nn.Sequential(*(Down(inputs[i], WIDTHS[i], i == last) for i in range(len(WIDTHS))))
        self.mid = _blocks(WIDTHS[-1], WIDTHS[-1])
        self.norm_out = _norm(WIDTHS[-1])
        self.conv_out = nn.Conv2d(WIDTHS[-1], VECTOR_WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images in [0, 1] to vectors."""
        x = self.mid(self.down(self.conv_in(x)))
        vectors: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return vectors


class Decoder(nn.Module):
    """(B, c, h / 16, w / 16) -> (B, 3, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(VECTOR_WIDTH, WIDTHS[-1], 3, padding=1)
        self.mid = _blocks(WIDTHS[-1], WIDTHS[-1])
        inputs = (*WIDTHS[1:], WIDTHS[-1])
        # Numbered from the highest resolution, which comes last.
        self.up = nn.ModuleList(Up(inputs[i], WIDTHS[i], i == 0) for i in range(len(WIDTHS)))
        self.norm_out = _norm(WIDTHS[0])
        self.conv_out = nn.Conv2d(WIDTHS[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors to images, about in [0, 1]."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        images: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return images


def _blocks(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(outputs if i else inputs, outputs) for i in range(BLOCKS)))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)
