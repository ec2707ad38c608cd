"""Labels and seeds of any kind: one reader for generation, editing, likelihood and questions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from heptapod import Heptapod, edit, outpaint, vary
from heptapod.inference.cell_query import ask_cell
from heptapod.inference.request import class_index, class_indices
from tests.small import CODES, small_model

NAMES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def heptapod() -> Heptapod:
    return small_model(CODES)


LISTS: list[Any] = [[2], ("owl",), range(2, 3), [2.0], [torch.tensor(2)], np.array([2]), np.array(["owl"])]


@pytest.mark.parametrize(
    "labels", [2, "owl", "2", np.int64(2), np.array(2), torch.tensor(2), 2.0, np.float32(2), torch.tensor([2]), *LISTS]
)
def test_one_label_of_any_kind(labels: Any) -> None:
    assert class_indices(labels, NAMES) == [2]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3.7, "label: 3.7 given, must be a whole number"),
        ([3.7], "label: 3.7 given, must be a whole number"),
        (torch.tensor([0.5]), "label: 0.5 given, must be a whole number"),
        (float("nan"), "label: nan given, must be a whole number"),
        (True, "label: True given, must be a whole number"),
        (np.array([True, False]), "label: True given, must be a whole number"),
        ([None, 1], "label: None given, must be a whole number"),
        ([[0, 1]], r"label: \[0, 1\] given, must be a whole number"),
        (torch.zeros(2, 2), r"label: \[0.0, 0.0\] given, must be a whole number"),
        (b"cat", "label: b'cat' given, must be a whole number"),
        ("37", "label: 37 given, must be between 0 and 2"),
        ("-1", "label: -1 given, must be between 0 and 2"),
        (3, "label: 3 given, must be between 0 and 2"),
        ("ca", r"label: 'ca' is no class of this model \(cat, dog, owl\)"),
        ("x" * 100, "label: 'x{59} is no class"),
        ([], "labels: none given"),
        (np.array([]), "labels: none given"),
    ],
)
def test_labels_that_mean_nothing(label: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        class_indices(label, NAMES)


def test_a_number_is_an_index_and_a_string_a_name() -> None:
    folders = ["1", "10", "2"]
    assert [class_index(label, folders) for label in (1, "1", 2, "2", "10")] == [1, 0, 2, 2, 1]
    with pytest.raises(ValueError, match=r"label: '0' is no class of this model \(1, 10, 2\)"):
        class_index("0", folders)
    assert class_index("1", ["cat", "dog"]) == 1
    with pytest.raises(ValueError, match="label: 0 given, this model was trained without classes"):
        class_index(0, [])


def test_one_label_for_several_images() -> None:
    assert class_indices("dog", NAMES, 3) == [1, 1, 1]
    assert class_indices(None, NAMES, 2) == [-1, -1]
    with pytest.raises(ValueError, match="count: 3 given together with 1 labels"):
        class_indices(["dog"], NAMES, 3)


def test_generate(heptapod: Heptapod) -> None:
    expected = heptapod.generate_tokens([2, 2], seed=[5, 6])
    for labels, seed in ((2, 5), ("owl", torch.tensor(5)), (torch.tensor(2), torch.tensor([5, 6])), (2.0, (5.0, 6))):
        assert torch.equal(heptapod.generate_tokens(labels, count=2, seed=seed), expected)
    assert torch.equal(heptapod.generate_tokens(torch.tensor([2, 2]), seed=[np.uint8(5), torch.tensor(6)]), expected)
    assert len(heptapod.generate(2)) == 1
    for seed in (True, [0.5], ["1"], torch.tensor([[1]]), None):
        with pytest.raises(ValueError, match="seed: .* given, must be a whole number"):
            heptapod.generate(2, seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed: 2 seeds given for 1 images"):
        heptapod.generate(2, seed=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="label: '37'|label: 37 given"):
        heptapod.generate("37")


def test_editing_likelihood_and_questions(heptapod: Heptapod) -> None:
    image = heptapod.generate(1, output="tensor")[0]
    mask = torch.arange(16 * 20).view(16, 20) > 160
    for labels in (2, "owl", np.int64(2), torch.tensor(2), [2], torch.tensor([2]), 2.0):
        assert edit(heptapod, image, mask, labels, count=2).labels == [2, 2]
    assert edit(heptapod, image, mask, torch.tensor([0, 2]), count=2).labels == [0, 0, 2, 2]
    assert edit(heptapod, image, mask, count=2).labels == [-1, -1]
    assert vary(heptapod, image, 3, torch.tensor(1)).labels == [1]
    with pytest.warns(UserWarning, match="trained on"):
        assert outpaint(heptapod, image, 24, 20, labels="dog").labels == [1]
    images = torch.stack([image, image])
    nats = heptapod.negative_log_likelihood(images, ["owl", "owl"])
    for labels in (2, "owl", torch.tensor([2, 2]), torch.tensor(2)):
        assert torch.equal(heptapod.negative_log_likelihood(images, labels), nats)
    assert ask_cell(heptapod, 3, torch.tensor(2)).uncertainty == ask_cell(heptapod, 3, "owl").uncertainty  # type: ignore[arg-type]
    for wrong in (3.7, True, "37"):
        for call in (
            lambda: edit(heptapod, image, mask, wrong),  # type: ignore[arg-type]  # noqa: B023
            lambda: heptapod.negative_log_likelihood(images, wrong),  # type: ignore[arg-type]  # noqa: B023
            lambda: ask_cell(heptapod, 3, wrong),  # type: ignore[arg-type]  # noqa: B023
        ):
            with pytest.raises(ValueError, match="label: (3.7|True|37) given, must be"):
                call()
