"""The interface between a tokenizer and the training loop."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from heptapod.tokenizers.base import Tokenizer
from heptapod.tokenizers.codebook import CodebookStatistics
from heptapod.utils.random import KeyedGenerator


@dataclass
class Reconstruction:
    """A training pass of a tokenizer."""

    images: Tensor
    """(B, 3, h, w), about in [-1, 1]."""
    penalty: Tensor
    """(B,): the weighted term that the tokenizer adds to the loss: commitment or KL."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """(B,) values for the log."""
    codes: Tensor | None = None
    """(B, N) int64 of a discrete tokenizer."""
    statistics: CodebookStatistics | None = None
    """Statistics for the update of the codebook, if there is one."""


class TrainableTokenizer(Tokenizer):
    """A tokenizer that is trained here, with a convolutional encoder and decoder."""

    encoder: nn.Sequential
    decoder: nn.Sequential

    @abstractmethod
    def reconstruct(self, images: Tensor, generator: KeyedGenerator) -> Reconstruction:
        """A training pass over images (B, 3, h, w) in [-1, 1]; ``generator`` has a stream for each."""

    def forward(self, images: Tensor, generator: KeyedGenerator) -> Reconstruction:
        """See :meth:`reconstruct`."""
        return self.reconstruct(images, generator)

    @property
    def last_weight(self) -> Tensor:
        """Weight of the decoder's last layer, on which the adaptive adversarial weight is measured."""
        layer = self.decoder[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer.weight


def at_least_float32(x: Tensor) -> Tensor:
    """Undoes the half precision of autocast; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
