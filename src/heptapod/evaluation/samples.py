"""Samples of a model for an evaluation: their classes, seeds and sampling config, generated batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heptapod.configs.evaluation import LabelPolicy
from heptapod.distributed.collectives import blocks_of_rank
from heptapod.evaluation.labels import counts_by_class, policy_labels
from heptapod.evaluation.streams import Batches
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.precision import dtype_name
from heptapod.inference.record import model_fields
from heptapod.inference.request import GenerationRequest, named_classes
from heptapod.tokenizers import tokenizer_hash
from heptapod.utils.checks import check_at_least
from heptapod.utils.config import to_dict


def sample_batches(
    heptapod: Heptapod, request: GenerationRequest, shared: bool = False
) -> Iterator[tuple[list[int], Tensor]]:
    """Samples images batch by batch; which images share a batch does not depend on the number of processes.

    Args:
        heptapod: the model.
        request: from its :meth:`~heptapod.Heptapod.request`.
        shared: only the batches of this rank (:func:`heptapod.distributed.collectives.blocks_of_rank`).

    Yields:
        Numbers of the images of a batch, and the images (B, 3, h, w) uint8 on the CPU.
    """
    request.warn()
    batches = request.batches()
    for rows, count in blocks_of_rank(batches) if shared else batches:
        tokens = request.sample_batch(heptapod.model, rows, count)
        yield rows[:count], heptapod.decode(tokens, request.batch_size)


@dataclass
class ModelSamples:
    """Samples of a model for an evaluation; :meth:`batches` generates them."""

    heptapod: Heptapod
    """The model."""
    folder: Path
    """Where it was loaded from."""
    count: int
    """Images."""
    policy: LabelPolicy | None
    """How classes are chosen; None where ``labels`` name them."""
    labels: Sequence[str]
    """Classes in turn, by index or name."""
    seed: int
    """Image i has the seed ``seed`` + i."""
    batch_size: int
    """Images at a time: batches are padded to it, so that an image does not depend on ``count``."""
    settings: dict[str, Any]
    """Changes to the model's sampling config."""

    def __post_init__(self) -> None:
        check_at_least(1, count=self.count)
        if self.policy is not None and self.labels:
            raise ValueError(f"label_policy: {self.policy} given together with labels; leave one of them out")
        if self.policy is None and not self.labels:
            self.policy = "balanced" if self.heptapod.class_names else "none"
        # The classes of the policy "reference" are known only with the reference; until then every class occurs once.
        labels = self.indices([1] * self.num_classes if self.policy == "reference" else None)
        self.request = self.heptapod.request(
            labels,
            count=None if labels else self.count,
            seed=self.seed,
            batch_size=self.batch_size,
            **self.settings,
        )

    @property
    def num_classes(self) -> int:
        """Classes of the model."""
        return len(self.heptapod.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.heptapod.image_size

    def indices_like(self, names: Sequence[str], counts: Sequence[int]) -> list[int] | None:
        """The class of every image, None for no labels; the policy ``reference`` goes by the counts of classes."""
        is_needed = self.policy == "reference" and bool(names)
        return self.indices(counts_by_class(names, counts, self.heptapod.class_names) if is_needed else None)

    def indices(self, class_counts: Sequence[int] | None = None) -> list[int] | None:
        """As :meth:`indices_like`, for counts of the classes of the model."""
        if self.policy is None:
            named = self.heptapod.label_indices(self.labels)
            return [named[i % len(named)] for i in range(self.count)]
        return policy_labels(self.policy, self.count, self.num_classes, self.seed, class_counts)

    def batches(self, labels: Sequence[int] | None, shared: bool = False) -> Batches:
        """Samples images of the given classes, batch by batch; ``shared`` as of :func:`sample_batches`."""
        request = self.request if labels is None else dataclasses.replace(self.request, labels=list(labels))
        for rows, images in sample_batches(self.heptapod, request, shared):
            yield images, torch.tensor([request.labels[row] for row in rows])

    def record(self) -> dict[str, Any]:
        """How the samples are made, for results and for the file of samples."""
        return {
            **model_fields(self.folder),
            "tokenizer_sha256": tokenizer_hash(self.heptapod.tokenizer),
            "count": self.count,
            "label_policy": self.policy or "given",
            "labels": list(self.labels) or None,
            "classes": named_classes(self.heptapod.label_indices(self.labels), self.heptapod.class_names)
            if self.labels
            else None,
            "seed": self.seed,
            "steps": len(self.request.plan.counts),
            "sampling": to_dict(self.request.plan.config),
            "guidance": None,
            "batch_size": self.batch_size,
            "precision": dtype_name(self.heptapod.model.dtype),
        }
