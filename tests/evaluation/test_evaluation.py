from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from heptapod.data import DataConfig, ImageSet, load_images
from heptapod.evaluation.classifier import accuracy, train_classifier
from heptapod.likelihood import negative_log_likelihood
from heptapod.models import HeptapodModel
from tests.conftest import GRID

Make = Callable[..., HeptapodModel]


@pytest.mark.parametrize("order", ["raster", "random", "mixed"])
def test_likelihood_does_not_depend_on_the_batch_size(make_model: Make, order: str) -> None:
    model = make_model("cross")
    tokens = torch.randint(7, (11, GRID.num_cells), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(11) % 3
    parts = [negative_log_likelihood(model, tokens, labels, order, batch_size) for batch_size in (1, 4, 11)]  # type: ignore[arg-type]
    assert torch.allclose(parts[0], parts[1], atol=1e-5)
    assert torch.allclose(parts[0], parts[2], atol=1e-5)
    assert not torch.allclose(parts[0], negative_log_likelihood(model, tokens, None, order), atol=1e-3)  # type: ignore[arg-type]


def test_judge_learns_from_real_images_only_what_they_show(image_folder: object) -> None:
    train, held_out = load_images(DataConfig(str(image_folder), validation_fraction=0.3))
    judge = train_classifier(train, 2, steps=20)
    assert accuracy(judge, held_out.images, held_out.labels) == 1.0
    assert accuracy(judge, held_out.images, 1 - held_out.labels) == 0.0
    again = train_classifier(train, 2, steps=20)
    assert all(torch.equal(a, b) for a, b in zip(judge.parameters(), again.parameters(), strict=True))


def test_subset_keeps_what_belongs_together() -> None:
    images = ImageSet(torch.arange(12).view(4, 3, 1, 1).to(torch.uint8), torch.arange(4), list("abcd"), list("wxyz"))
    part = images.subset(torch.tensor([2, 0]))
    assert (part.names, part.labels.tolist()) == (["c", "a"], [2, 0])
    assert part.images[0, 0, 0, 0] == 6
