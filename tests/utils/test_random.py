from __future__ import annotations

import numpy as np
import pytest
import torch

from heptapod.utils.random import KeyedGenerator, Stream, numpy_generator, seeded_initialization


def test_streams_are_independent_of_each_other_and_of_the_batch() -> None:
    keys = [(0, 0, i) for i in range(4)]
    together = KeyedGenerator(Stream.SUPERVISION, keys)
    first, second = together.uniform(5), together.uniform(5)
    alone = KeyedGenerator(Stream.SUPERVISION, keys[2:3])
    assert torch.equal(alone.uniform(5)[0], first[2])
    assert torch.equal(alone.uniform(5)[0], second[2])
    assert not torch.equal(first, second)
    other = KeyedGenerator(Stream.LABEL_DROPOUT, keys).uniform(5)
    rows = torch.cat([first, other]).tolist()
    assert len({tuple(row) for row in rows}) == 8


def test_every_part_of_the_key_counts() -> None:
    draws = {
        numpy_generator(Stream.SHUFFLE, *key).random()
        for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**63 - 1, 5, 9)]
    }
    assert len(draws) == 5


def test_golden_values() -> None:
    """Runs must reproduce over versions: these numbers may never change."""
    assert KeyedGenerator(Stream.SAMPLE, [(0,), (1,)]).permutation(6).tolist() == GOLDEN_PERMUTATIONS
    with seeded_initialization(3):
        assert torch.randint(2**60, ()).item() == GOLDEN_DRAW


def test_initialization_leaves_torch_as_it_was() -> None:
    before = torch.random.get_rng_state()
    with seeded_initialization(1):
        first = torch.rand(3)
    assert torch.equal(before, torch.random.get_rng_state())
    with seeded_initialization(1):
        assert torch.equal(first, torch.rand(3))


GOLDEN_PERMUTATIONS = [[5, 2, 4, 3, 0, 1], [3, 0, 2, 4, 1, 5]]
GOLDEN_DRAW = 705325979558466583


def test_uniform_numbers_are_uniform() -> None:
    numbers = KeyedGenerator(Stream.SAMPLE, [(i,) for i in range(500)]).uniform(20)
    assert float(numbers.min()) >= 0
    assert float(numbers.max()) < 1
    assert abs(float(numbers.mean()) - 0.5) < 0.01
    assert abs(float(numbers.var()) - 1 / 12) < 0.003


def test_a_key_of_more_than_three_numbers_is_refused() -> None:
    for make in (
        lambda: numpy_generator(Stream.SAMPLE, 1, 2, 3, 4),
        lambda: KeyedGenerator(Stream.LOSS, [(1, 2, 3, 4)]),
    ):
        with pytest.raises(ValueError, match=r"key: \(1, 2, 3, 4\) given, must have at most three numbers"):
            make()


@pytest.mark.parametrize(
    ("stream", "key"), [(Stream.LOSS, (1, 2, 3)), (Stream.SAMPLE, (2**63 - 1,)), (Stream.SHUFFLE, (0, 7))]
)
def test_generators_are_those_of_numpy_with_key_and_counter(stream: Stream, key: tuple[int, ...]) -> None:
    first, second, third = (*key, 0, 0, 0)[:3]
    words = np.array([first, second], np.uint64), np.array([0, 0, third, stream], np.uint64)
    expected, found = (
        np.random.Generator(np.random.Philox(key=words[0], counter=words[1])),
        numpy_generator(stream, *key),
    )
    for _ in range(3):
        assert np.array_equal(expected.random(5, np.float32), found.random(5, np.float32))
        assert np.array_equal(expected.permutation(9), found.permutation(9))
        assert np.array_equal(expected.standard_normal(3), found.standard_normal(3))
        assert expected.integers(2**63 - 1) == found.integers(2**63 - 1)
