"""A patch discriminator (PatchGAN, 1611.07004) and its hinge losses (1705.02894)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PatchDiscriminator(nn.Module):
    """Judges every patch of an image separately: real (above 0) or reconstructed (below).

    Group norm, where the original has batch norm, so that an image's verdict depends on that image only, on however
    many processes it is judged.

    Args:
        width: channels of the first layer; they double up to eight times.
        layers: halvings of the resolution; each doubles the patch.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        widths = [width * min(2**layer, 8) for layer in range(layers + 1)]
        blocks: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for number, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            stride = 2 if number < layers else 1
            blocks += [
                nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(8, outputs),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*blocks, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) -> verdicts (B, patches) float32."""
        verdicts: Tensor = self.layers(images)
        return verdicts.flatten(1).float()


def discriminator_loss(real: Tensor, reconstructed: Tensor) -> Tensor:
    """Hinge loss (B,) of verdicts (B, patches) on real and reconstructed images."""
    return (F.relu(1 - real).mean(1) + F.relu(1 + reconstructed).mean(1)) / 2


def generator_loss(reconstructed: Tensor) -> Tensor:
    """Loss (B,) of the tokenizer, which wants its reconstructions judged real."""
    return -reconstructed.mean(1)
