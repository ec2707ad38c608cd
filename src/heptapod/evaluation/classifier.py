"""An independent judge of generated digits: a small convolutional network trained on real images only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heptapod.data.images import ImageSet
from heptapod.data.loader import batch_at
from heptapod.tokenizers.base import to_float
from heptapod.utils.logging import Progress
from heptapod.utils.random import KeyedGenerator, Stream, seeded_initialization


class Classifier(nn.Module):
    """Three convolutions and a linear layer.

    Args:
        num_classes: number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
        )  # fmt: skip
        self.out = nn.Linear(64 * 9, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, h, w) in [-1, 1] -> logits (B, classes)."""
        logits: Tensor = self.out(self.features(images).flatten(1))
        return logits


def train_classifier(images: ImageSet, num_classes: int, steps: int = 500, seed: int = 0) -> Classifier:
    """Trains the judge on real images, each shifted by up to two pixels.

    Args:
        images: real images with labels.
        num_classes: classes.
        steps: optimizer steps on batches of 64.
        seed: keys initial weights, order and shifts.
    """
    with seeded_initialization(seed, 2):
        model = Classifier(num_classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    with Progress("training the judge on real images", steps * 64) as progress:
        for step in range(steps):
            batch = batch_at(images, step * 64, 64, seed)
            shifts = (KeyedGenerator(Stream.AUGMENT, batch.keys).uniform(2) * 5).int() - 2
            moved = [image.roll((dy, dx), (1, 2)) for image, (dy, dx) in zip(batch.items, shifts.tolist(), strict=True)]
            loss = F.cross_entropy(model(to_float(torch.stack(moved))), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance(64)
    return model.eval()


@torch.inference_mode()
def accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """Share of uint8 images (M, 3, h, w) recognized as their label (M,)."""
    predicted = torch.cat([model(to_float(part)).argmax(1) for part in images.split(256)])
    return float((predicted == labels).double().mean())
