"""Losses of a reconstruction: pixels, LPIPS, an adversary. Nothing semantic beyond LPIPS."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from heptapod.distributed import process_group


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
