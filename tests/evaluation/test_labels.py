from __future__ import annotations

from collections import Counter

import pytest

from heptapod.evaluation.labels import counts_by_class, policy_labels


@pytest.mark.parametrize(("count", "classes"), [(25, 10), (30, 10), (3, 10), (1, 1), (5000, 1000), (997, 10)])
def test_balanced(count: int, classes: int) -> None:
    labels = policy_labels("balanced", count, classes)
    assert labels is not None
    assert len(labels) == count
    occurrences = [Counter(labels)[c] for c in range(classes)]
    assert max(occurrences) - min(occurrences) <= 1
    assert labels == policy_labels("balanced", count, classes, seed=5)
    assert labels[: classes if count >= classes else 0] == list(range(classes if count >= classes else 0))


def test_balanced_spreads_the_remainder() -> None:
    assert policy_labels("balanced", 14, 10) == [*range(10), 0, 2, 5, 7]
    assert policy_labels("balanced", 2, 10) == [0, 5]


def test_random() -> None:
    labels = policy_labels("random", 4000, 4, seed=1)
    assert labels is not None
    assert labels == policy_labels("random", 4000, 4, seed=1)
    assert labels != policy_labels("random", 4000, 4, seed=2)
    assert all(850 < Counter(labels)[c] < 1150 for c in range(4))


def test_reference() -> None:
    labels = policy_labels("reference", 10, 3, class_counts=[60, 25, 15])
    assert labels is not None
    assert Counter(labels) == {0: 6, 1: 3, 2: 1}  # 6, 2.5 and 1.5: the lower index first
    assert labels != sorted(labels)
    assert labels == policy_labels("reference", 10, 3, class_counts=[60, 25, 15])
    assert Counter(policy_labels("reference", 7, 3, class_counts=[1, 0, 0]) or []) == {0: 7}


def test_none() -> None:
    assert policy_labels("none", 5, 0) is None
    assert policy_labels("none", 5, 10) is None


def test_errors() -> None:
    with pytest.raises(ValueError, match="label_policy: balanced given, but this model was trained without classes"):
        policy_labels("balanced", 5, 0)
    with pytest.raises(ValueError, match="the reference has no labels"):
        policy_labels("reference", 5, 3, class_counts=[])
    with pytest.raises(ValueError, match="the reference has 2 classes, the model 3"):
        policy_labels("reference", 5, 3, class_counts=[1, 2])
    with pytest.raises(ValueError, match="count: 0 given"):
        policy_labels("none", 0, 3)


def test_classes_of_a_reference_are_those_of_the_model_by_name() -> None:
    assert counts_by_class(["b", "c"], [4, 0], ["a", "b"]) == [0, 4]
    assert counts_by_class(["0", "2"], [1, 5], ["a", "b", "c"]) == [1, 0, 5]  # numbers, for names: by index
    assert counts_by_class(["10", "1"], [3, 1], ["1", "10", "2"]) == [1, 3, 0]
    with pytest.raises(ValueError, match=r"the reference has 1 class\(es\) that the model lacks \('c'\)"):
        counts_by_class(["a", "c"], [1, 1], ["a", "b"])
    with pytest.raises(ValueError, match=r"the model lacks \('5'\)"):
        counts_by_class(["0", "5"], [1, 1], ["a", "b"])
