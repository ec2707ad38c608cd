from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from heptapod.configs.distributions import DISTRIBUTIONS
from heptapod.configs.models import HEADS
from heptapod.configs.tokenizers import TOKENIZERS
from heptapod.tokenizers import PixelConfig, VQConfig
from heptapod.training.recipe import Recipe, load_recipe, recipe_names
from heptapod.utils.config import from_dict, merge, to_dict, to_yaml


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_survive_a_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.description
    assert from_dict(Recipe, yaml.safe_load(to_yaml(recipe))) == recipe


def test_overrides_reach_every_depth() -> None:
    recipe = load_recipe(
        "demo",
        ["--model.head.depth", "4", "--train.learning-rate=1e-3", "--data", "somewhere", "--data.flip", "--out", "2026",
         "--tokenizer.model.codebook_size", "32", "--sampling.schedule", "[1, 48]", "--train.compile", "true"],
    )  # fmt: skip
    assert recipe.model.head.depth == 4
    assert recipe.train.learning_rate == 1e-3
    assert (recipe.data.path, recipe.data.flip, recipe.out) == ("somewhere", True, "2026")
    assert isinstance(recipe.tokenizer.model, VQConfig)
    assert recipe.tokenizer.model.codebook_size == 32
    assert recipe.tokenizer.model.factor == 4, "what is not overridden stays"
    assert recipe.sampling.schedule == [1, 48]
    assert recipe.train.compile is True


def test_the_tokenizer_kind_can_change() -> None:
    recipe = load_recipe("demo", ["--tokenizer.model.kind", "pixel", "--tokenizer.model.levels", "4"])
    assert recipe.tokenizer.model == PixelConfig(levels=4)


def test_a_recipe_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model:\n  size: B\n")
    recipe = load_recipe(str(file))
    assert (recipe.model.width, recipe.model.depth, recipe.model.head.depth) == (768, 12, 12)
    assert recipe.out == "runs/mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  widht: 3\n", "mine.yaml: unknown setting 'model.widht'; did you mean 'model.width'?"),
        ("trian: {}\n", "unknown setting 'trian'; did you mean 'train'?"),
        ("tokenizer:\n  model: {kind: vq, codebok_size: 2}\n", "did you mean 'tokenizer.model.codebook_size'?"),
        ("tokenizer:\n  model: {factor: 3}\n", "mine.yaml: tokenizer.model.factor: 3 given"),
        ("tokenizer:\n  model: {codebook_size: x}\n", "tokenizer.model.codebook_size: 'x' given"),
        ("objective:\n  prefixes_per_image: foo\n", "objective.prefixes_per_image: 'foo' given"),
        ("train:\n  steps: many\n", "train.steps: 'many' given; input should be a valid integer"),
        ("train:\n  steps: 0\n", "train.steps: 0 given, must be at least 1"),
        ("model:\n  head: {kind: crss}\n", "model.head.kind: 'crss' given"),
        ("model:\n  head: {kind: cross, window: 3}\n", "model.head.window: 3 given"),
        ("model:\n  width: 30\n", "model.width: 30 given"),
        ("model:\n  head: {kind: next_token}\nobjective: {targets_per_prefix: 3}\n", "targets_per_prefix: 3 given"),
        ("sampling:\n  temperature: -1\n", "sampling.temperature: -1.0 given"),
        ("sampling:\n  token_order: random\n", "sampling.token_order: random given"),
        ("- 1\n", "a recipe is a mapping"),
        ("a: [\n", "not a YAML file"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is checked below
        load_recipe(str(file))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.head.dept", "4"], "unknown setting 'model.head.dept'; did you mean 'model.head.depth'?"),
        (["--depth", "4"], "unknown setting 'depth'; did you mean 'model.depth'?"),
        (["model.depth", "4"], "unexpected argument 'model.depth'"),
        (["--train.steps"], "train.steps: no value given; write --train.steps VALUE"),
        (["--train.steps", "--train.compile"], "train.steps: no value given"),
        (["--train.steps", "x"], "train.steps: 'x' given"),
    ],
)
def test_mistaken_overrides(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_recipe("demo", arguments)
    assert message in str(error.value)


def test_a_tokenizer_that_the_recipe_does_not_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {path: x}\n")
    recipe = load_recipe(str(file), ["--tokenizer.model.codebook_size", "64"])
    assert recipe.tokenizer.model == VQConfig(codebook_size=64)


def test_overrides_leave_the_original_alone() -> None:
    values = {"model": {"depth": 3}}
    merged = merge(values, {"model": {"depth": 5}})
    assert (values["model"]["depth"], merged["model"]["depth"]) == (3, 5)


def test_missing_recipe() -> None:
    with pytest.raises(FileNotFoundError, match="neither a file nor one of cifar10, cifar10_vae, demo"):
        load_recipe("dmeo")


def test_dictionaries_are_json_safe() -> None:
    import json

    assert json.loads(json.dumps(to_dict(Recipe()))) == to_dict(Recipe())


def test_every_setting_is_documented() -> None:
    import dataclasses
    import inspect
    import re

    from heptapod.configs.objective import ObjectiveConfig
    from heptapod.data import DataConfig
    from heptapod.data.cache import CacheConfig
    from heptapod.models import HeadConfig, ModelConfig
    from heptapod.sampling import SamplingConfig
    from heptapod.tokenizers import FSQConfig, LossesConfig, VAEConfig
    from heptapod.training.config import TrainConfig
    from heptapod.training.recipe import TokenizerStage

    groups = [DataConfig, HeadConfig, ModelConfig, ObjectiveConfig, Recipe, TokenizerStage, SamplingConfig]
    tokenizers = [VQConfig, FSQConfig, VAEConfig, PixelConfig, LossesConfig, CacheConfig]
    for cls in [*groups, TrainConfig, *tokenizers]:
        source = "".join(inspect.getsource(base) for base in cls.__mro__ if base is not object)
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            assert re.search(rf'\n    {field.name}: [^\n]+\n    """', source), f"{cls.__name__}.{field.name}"


def test_an_override_of_the_kind_drops_what_belongs_to_the_old_one() -> None:
    """But not what is given again, and diffusion and flow share their settings."""
    swapped = load_recipe("cifar10_vae", ["--model.distribution.kind", "diffusion"]).model.distribution
    assert (swapped.kind, swapped.mlp_depth, swapped.mlp_width) == ("diffusion", 3, 192)
    codes = [
        "--tokenizer.model.kind",
        "vq",
        "--tokenizer.model.width",
        "32",
        "--model.distribution.kind",
        "categorical",
    ]
    recipe = load_recipe("cifar10_vae", codes)
    assert recipe.model.distribution.mlp_depth == 0
    assert isinstance(recipe.tokenizer.model, VQConfig)
    assert recipe.tokenizer.model.width == 32
    assert recipe.tokenizer.model.codebook_size == VQConfig().codebook_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1:30\n", "seed: '1:30' given; input should be a valid integer"),
        ("train: {steps: '10'}\n", "train.steps: '10' given; input should be a valid integer"),
        ("train: {steps: true}\n", "train.steps: True given; input should be a valid integer"),
        ("train: {learning_rate: .nan}\n", "train.learning_rate: nan given, must be a finite number, above 0"),
        ("model: {rotary_base: .inf}\n", "model.rotary_base: inf given, must be a finite number, above 1 and at most"),
        ("objective: {prefixes_per_image: '3'}\n", "objective.prefixes_per_image: '3' given"),
        (
            "tokenizer: {model: {kind: vae, codebook_size: 8}}\n",
            "unknown setting 'tokenizer.model.codebook_size': it belongs to kind vq",
        ),
        ("sampling: {cfg_scale: 3}\n", "unknown setting 'sampling.cfg_scale': there is no guidance"),
        (f"model: {{size: {'x' * 100_000}}}\n", "model.size: 'xxx"),
        (f"{'y' * 1000}: 1\n", "unknown setting 'yyy"),
    ],
)
def test_what_was_accepted_or_printed_whole(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is checked below
        load_recipe(str(file))
    assert message in str(error.value)
    assert len(str(error.value)) < 400 + len(str(file))


def test_changes_of_a_tokenizer_that_is_trained_are_refused(tmp_path: Path) -> None:
    path = ["--tokenizer.path", str(tmp_path / "t")]
    assert load_recipe("demo", path).tokenizer.path
    with pytest.raises(ValueError, match="tokenizer.train.steps: given, but the tokenizer of .* is used"):
        load_recipe("demo", [*path, "--tokenizer.train.steps", "3"])
    (tmp_path / "cache.json").touch()
    with pytest.raises(ValueError, match="tokenizer.losses.pixel: given, but the tokenizer of .* is used"):
        load_recipe("demo", ["--data", str(tmp_path), "--tokenizer.losses.pixel", "l1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["--data.validation_path", "v", "--data.validation_fraction", "0.1"],
            "data.validation_fraction: given, but the",
        ),
        (["--probe.test_images", "9"], "probe.test_images: given, but probe.images is 0"),
        (["--tokenizer.losses.adversarial_start", "9"], "tokenizer.losses.adversarial_start: given, but"),
        (
            ["--tokenizer.losses.perceptual_network", "alex"],
            "perceptual_network: given, but tokenizer.losses.perceptual_w",
        ),
    ],
)
def test_changes_without_effect_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("demo", changes)


def test_what_settings_take_for_granted_of_classes_holds() -> None:
    for registry in (HEADS, DISTRIBUTIONS, TOKENIZERS):
        for kind, builtin in registry._builtin.items():
            cls = registry.get(kind)
            assert {name: getattr(cls, name) for name in builtin.facts} == dict(builtin.facts)
            assert registry.config_type(kind) is builtin.config
            assert cls.__module__ == builtin.module
