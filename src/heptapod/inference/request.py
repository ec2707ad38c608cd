"""A request for images: checked once, planned once, sampled batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from heptapod.inference.bundle import padded_batches
from heptapod.models import HeptapodModel
from heptapod.sampling import SamplingPlan, SamplingStep, run_plan, run_to_end
from heptapod.utils.logging import Progress


@dataclass(frozen=True)
class GenerationRequest:
    """A checked request for images; :meth:`heptapod.Heptapod.request` makes it."""

    labels: list[int]
    """Class index of each image, -1 without a label."""
    plan: SamplingPlan
    """Sampling config, seeds, known cells and steps of all images."""
    batch_size: int | None
    """Images at a time, as in :meth:`heptapod.Heptapod.generate`."""
    support_warnings: list[str]
    """Everything requested that the model was not trained for, one line each."""

    def __len__(self) -> int:
        return len(self.labels)

    def warn(self) -> None:
        """Issues the support warnings."""
        for message in self.support_warnings:
            warnings.warn(message, stacklevel=3)

    def batches(self) -> list[tuple[list[int], int]]:
        """The images of each batch by index, and how many of them count, see :func:`padded_batches`."""
        return list(padded_batches(len(self), self.batch_size))

    def sample_batch(self, model: HeptapodModel, rows: list[int], count: int) -> Tensor:
        """Token grids (count, N) int64 or (count, N, C) float32 of one of :meth:`batches`."""
        labels = torch.tensor([self.labels[row] for row in rows])
        return run_to_end(model, labels, self.plan.batch(rows))[:count]

    def sample(self, model: HeptapodModel, progress: bool = False) -> Tensor:
        """Token grids (M, N) int64 or (M, N, C) float32 of all images."""
        parts = []
        with Progress(f"sampling {len(self):,} images", len(self), shown=progress) as bar:
            for rows, count in self.batches():
                parts.append(self.sample_batch(model, rows, count))
                bar.advance(count)
        return torch.cat(parts)

    def stream(self, model: HeptapodModel) -> Iterator[SamplingStep]:
        """The sampling steps of all images together, in one batch."""
        return run_plan(model, torch.tensor(self.labels), self.plan)
