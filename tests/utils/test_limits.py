"""Every number that is a setting has limits, of which the error names all."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from heptapod.cli import (
    bench,
    edit,
    evaluate,
    evaluate_tokenizer,
    export,
    likelihood,
    plan,
    probe,
    recipe_options,
    reference,
    sample,
    studio,
    tokenize,
)
from heptapod.data.cache import CacheConfig
from heptapod.distributions import DISTRIBUTIONS
from heptapod.models import HEADS
from heptapod.sampling import SamplingConfig
from heptapod.tokenizers import TOKENIZERS
from heptapod.tools.ablation.study import Study
from heptapod.tools.bench.config import SamplingBench, TrainingBench
from heptapod.training.recipe import Recipe
from heptapod.utils.arguments import _options_of
from heptapod.utils.config import Known, from_dict, known_settings
from heptapod.utils.messages import limits_of

CLASSES = [Recipe, SamplingConfig, CacheConfig, Study, SamplingBench, TrainingBench]
COMMANDS: list[Callable[..., None]] = [
    bench.sampling,
    edit.edit_file,
    evaluate.evaluate_generation,
    evaluate_tokenizer.evaluate,
    export.export_run,
    likelihood.measure,
    probe.probe_model,
    reference.make,
    sample.generate,
    studio.serve,
    tokenize.write_cache,
    tokenize.import_published,
]
CLASSES += [plan.PlanOptions, recipe_options.GridOptions, *map(_options_of, COMMANDS)]
OUT_OF_RANGE = [math.inf, -math.inf, math.nan, -1, -1e30, 10**20, "3", "-0", True]
KINDS = {"head": HEADS, "distribution": DISTRIBUTIONS, "model": TOKENIZERS}


def numbers(hint: Any) -> set[type]:
    """The types of numbers within an annotation."""
    if hint in (int, float):
        return {hint}
    return set().union(*map(numbers, typing.get_args(hint))) if typing.get_origin(hint) is not typing.Literal else set()


def fields() -> Iterator[tuple[type[Any], str, Known]]:
    for cls in CLASSES:
        for key, known in known_settings(cls).items():
            if numbers(known.hint):
                yield cls, key, known


def refusal(cls: type[Any], key: str, kinds: tuple[str, ...], value: object) -> str | None:
    """The message for a value of a setting; None if it is accepted."""
    *groups, name = key.split(".")
    values: dict[str, Any] = {name: value, **({"kind": kinds[0]} if kinds else {})}
    for group in reversed(groups):
        values = {group: values}
    try:
        from_dict(cls, values, "")
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("cls", "key", "known"),
    list(fields()),
    ids=lambda value: getattr(value, "__name__", None) or (value if isinstance(value, str) else ""),
)
def test_numbers_out_of_range_are_refused(cls: type[Any], key: str, known: Known) -> None:
    assert limits_of(known.hint), "a number without limits"
    for value in OUT_OF_RANGE:
        message = refusal(cls, key, known.kinds, value)
        assert message is not None, value
        assert "\n" not in message
        assert len(message) < 400


def test_the_whole_range_is_named() -> None:
    assert refusal(Recipe, "train.beta1", (), 1) == "train.beta1: 1.0 given, must be at least 0 and below 1"
    message = refusal(Recipe, "train.learning_rate", (), 1e30)
    assert message == "train.learning_rate: 1e+30 given, must be above 0 and at most 10"
