"""Samples of a model for an evaluation: which classes and seeds, how, and image by image as they are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heptapod.distributed.collectives import blocks_of_rank
from heptapod.evaluation.labels import LabelPolicy, policy_labels
from heptapod.evaluation.streams import Batches
from heptapod.inference.bundle import DEFAULT_BATCH
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.pretrained import find_pretrained, model_sha256
from heptapod.sampling import cells_per_step, plan_sampling
from heptapod.tokenizers import tokenizer_hash
from heptapod.utils.config import to_dict
from heptapod.utils.random import image_seeds


def sample_batches(
    heptapod: Heptapod,
    labels: Sequence[int | str] | None,
    count: int,
    seed: int,
    batch_size: int | None,
    shared: bool = False,
    **settings: Any,
) -> Iterator[tuple[range, Tensor]]:
    """Samples images batch by batch; which ones share a batch does not depend on how many processes share the work.

    Args:
        heptapod: the model.
        labels: a class per image; None for no labels.
        count: images.
        seed: image i is drawn with seed + i.
        batch_size: images at a time; if given, batches are filled up to it, so that no image depends on ``count``.
        shared: only the batches of this process (:func:`heptapod.distributed.collectives.blocks_of_rank`).
        **settings: changes to the model's sampling settings.

    Yields:
        Numbers of the images of a batch, and the images (B, 3, h, w) uint8 on the CPU.

    Raises:
        ValueError: for a label, seed or setting out of range.
    """
    size = batch_size or DEFAULT_BATCH
    blocks = [range(start, min(start + size, count)) for start in range(0, count, size)]
    for block in blocks_of_rank(blocks) if shared else blocks:
        own = None if labels is None else labels[block.start : block.stop]
        tokens = heptapod.generate_tokens(
            own, count=len(block), seed=seed + block.start, batch_size=batch_size, **settings
        )
        yield block, heptapod.decode(tokens, batch_size)


@dataclass
class ModelSamples:
    """What is sampled; :meth:`batches` samples it."""

    heptapod: Heptapod
    """The model."""
    folder: Path
    """Where it was loaded from."""
    count: int
    """Images."""
    policy: LabelPolicy | None
    """How classes are chosen; None where ``labels`` name them."""
    labels: Sequence[str]
    """Classes that take turns, by index or name."""
    seed: int
    """Image i is drawn with seed + i."""
    batch_size: int
    """Images at a time: batches are filled up to it, so that an image does not depend on ``count``."""
    settings: dict[str, Any]
    """Changes to the model's sampling settings."""

    def __post_init__(self) -> None:
        """Refuses settings that sampling could not follow."""
        if self.count < 1:
            raise ValueError(f"count: {self.count} given, must be at least 1")
        if self.policy is not None and self.labels:
            raise ValueError(f"label_policy: {self.policy} given beside labels; leave one of them out")
        if self.policy is None and not self.labels:
            self.policy = "balanced" if self.heptapod.class_names else "none"
        if self.policy == "reference":
            self.indices([1] * self.num_classes)  # whether the reference's classes fit is seen when it is there
        else:
            self.indices()
        image_seeds(self.seed, self.count)
        plan_sampling(self.heptapod.model, self.heptapod.sampling_config(**self.settings), [self.seed])

    @property
    def num_classes(self) -> int:
        """Classes of the model."""
        return len(self.heptapod.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        grid, factor = self.heptapod.model.grid, self.heptapod.tokenizer.factor
        return grid.height * factor, grid.width * factor

    def indices(self, class_counts: Sequence[int] | None = None) -> list[int] | None:
        """The class of every image, None for no labels; the policy ``reference`` goes by ``class_counts``."""
        if self.policy is None:
            named = self.heptapod.label_indices(self.labels)
            return [named[i % len(named)] for i in range(self.count)]
        return policy_labels(self.policy, self.count, self.num_classes, self.seed, class_counts)

    def batches(self, labels: Sequence[int] | None, shared: bool = False) -> Batches:
        """Samples images of the given classes, batch by batch; ``shared`` as of :func:`sample_batches`."""
        drawn = sample_batches(self.heptapod, labels, self.count, self.seed, self.batch_size, shared, **self.settings)
        for block, images in drawn:
            own = [-1] * len(block) if labels is None else labels[block.start : block.stop]
            yield images, torch.tensor(own)

    def record(self) -> dict[str, Any]:
        """How the samples are made, for results and for the file of samples."""
        folder = find_pretrained(self.folder)
        config = self.heptapod.sampling_config(**self.settings)
        return {
            "model": str(folder),
            "model_sha256": model_sha256(folder),
            "tokenizer_sha256": tokenizer_hash(self.heptapod.tokenizer),
            "count": self.count,
            "label_policy": self.policy or "given",
            "labels": list(self.labels) or None,
            "seed": self.seed,
            "steps": len(cells_per_step(config, self.heptapod.model.grid.num_cells)),
            "sampling": to_dict(config),
            "guidance": None,
            "batch_size": self.batch_size,
        }
