"""Recipes: everything a run needs, in one YAML file."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from heptapod.configs.data import DataConfig
from heptapod.configs.distributions import DISTRIBUTIONS
from heptapod.configs.models import HEADS, ModelConfig
from heptapod.configs.objective import ObjectiveConfig
from heptapod.configs.sampling import TRAINED_FOR, SamplingConfig
from heptapod.configs.tokenizers import TOKENIZERS, LossesConfig, TokenizerConfig, VQConfig
from heptapod.training.config import ProbeConfig, TrainConfig
from heptapod.utils.arguments import parse_arguments
from heptapod.utils.config import dotted, find_yaml, from_dict, merge, settings, shipped_names
from heptapod.utils.extensions import import_extensions, imported_by_command, read_imports
from heptapod.utils.options import Group
from heptapod.utils.yaml_text import read_yaml


@settings
class TokenizerStage:
    """The tokenizer: a trained one, or one that is trained first."""

    path: str | None = None
    """Folder of a trained tokenizer (or of its run); if unset one is trained in OUT/tokenizer."""
    model: Annotated[TokenizerConfig, TOKENIZERS] = field(default_factory=VQConfig)
    """Kind and size."""
    losses: LossesConfig = field(default_factory=LossesConfig)
    """Losses of its reconstructions."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""


@settings
class Recipe:
    """A run: data, tokenizer, model, objective, training and sampling."""

    description: str = ""
    """What the recipe is for, with expected time, hardware and score."""
    imports: list[str] = field(default_factory=list)
    """Files (my_head.py) or modules that register heads, distributions or tokenizers; imported before the rest is
    read."""
    out: str = ""
    """Run folder; empty means runs/<recipe>."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Keys all randomness."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda, cuda:1, …"""
    data: DataConfig = field(default_factory=DataConfig)
    """Images."""
    tokenizer: TokenizerStage = field(default_factory=TokenizerStage)
    """Tokenizer."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Model."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """Token order and supervision density."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How the model is trained."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Probes of its hidden states during training."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampling config of the sample grids during training, and the default of `heptapod sample`."""

    def __post_init__(self) -> None:
        predicts_grid = HEADS.fact(self.model.head.kind, "predicts_grid")
        if not predicts_grid and self.objective.targets_per_prefix not in (None, 1):
            raise ValueError(
                f"objective.targets_per_prefix: {self.objective.targets_per_prefix} given, but a "
                f"{self.model.head.kind} head predicts one cell per prefix: set it to 1"
            )
        self.objective.for_head(self.model.head.kind)  # refuses what does not fit
        if self.train.minutes is not None and (self.objective.far_warmup or self.objective.far_decay):
            raise ValueError(
                f"train.minutes: {self.train.minutes:g} given, but objective.far_warmup and objective.far_decay follow "
                "the steps; set train.steps, or both to 0"
            )
        losses, minutes = self.tokenizer.losses, self.tokenizer.train.minutes
        if minutes is not None and losses.adversarial_weight and losses.adversarial_start:
            raise ValueError(
                f"tokenizer.train.minutes: {minutes:g} given, but tokenizer.losses.adversarial_start "
                f"({losses.adversarial_start:,}) is a step; set tokenizer.train.steps"
            )
        if self.sampling.token_order not in (None, *TRAINED_FOR[self.objective.token_order]):
            raise ValueError(
                f"sampling.token_order: {self.sampling.token_order} given, but the model is trained on "
                f"objective.token_order {self.objective.token_order}"
            )


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return shipped_names("recipe")


def load_recipe(source: str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by name, one from a YAML file, or one from nested mappings, with overrides applied.

    Args:
        source: "demo", say, the path of a .yaml file, or what such a file contains.
        overrides: arguments such as ``--model.head.depth 4``; ``--data X`` stands for ``--data.path X``.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: for an unknown setting or a value out of range.
    """
    values = read_recipe(source)
    name = source if isinstance(source, str) else "recipe"
    return build_recipe(name, values, parse_arguments([recipe_options(values)], f"train {name}", overrides)[0])


def read_recipe(source: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings in the file of a recipe; imports the extensions it names. Raises like :func:`load_recipe`."""
    path = find_yaml("recipe", source) if isinstance(source, str) else None
    values = read_yaml(path) if path else copy.deepcopy(dict(source))  # type: ignore[arg-type]
    name = str(path or "recipe")
    import_extensions(read_imports(values, name))
    _name_kinds(values)
    from_dict(Recipe, values, name)  # an error in the file is reported as the file's, not as an override's
    return values


def recipe_options(values: Mapping[str, Any], without: Collection[str] = ()) -> Group:
    """The settings of a recipe as options of a command, without some of them."""
    return Group(Recipe, {"out": "runs/<recipe>", **values}, without, {"data": "data.path"})


def build_recipe(name: str, values: Mapping[str, Any], changes: Mapping[str, Any]) -> Recipe:
    """A recipe from the settings of its file and changes to them.

    Another kind of tokenizer or distribution takes none of the settings of the former kind.

    Raises:
        ValueError: for an unknown setting or a value out of range.
    """
    merged = merge(_for_kinds(values, changes), changes)
    _name_kinds(merged)
    recipe = from_dict(Recipe, merged, f"recipe {name}")
    _check_effect(recipe, changes)
    recipe.imports = list(dict.fromkeys([*recipe.imports, *imported_by_command()]))
    recipe.out = recipe.out or f"runs/{Path(name).stem}"
    return recipe


def _check_effect(recipe: Recipe, changes: Mapping[str, Any]) -> None:
    """Refuses changes that would change nothing.

    Raises:
        ValueError: naming the first of them, and why it has no effect.
    """
    losses, cache = recipe.tokenizer.losses, Path(recipe.data.path) / "cache.json"
    trained = recipe.tokenizer.path or (recipe.data.path if cache.is_file() else None)
    adversary = [f"tokenizer.losses.{name}" for name in ("adversarial_start", "adaptive_weight", "discriminator_")]
    network = "tokenizer.losses.perceptual_network"
    for is_idle, reason, *without_effect in (
        (trained, f"the tokenizer of {trained} is used, which is trained already", *TOKENIZER_TRAINING),
        (recipe.data.has_validation, "the held-out images are a separate set", "data.validation_fraction"),
        (not recipe.probe.images, "probe.images is 0", "probe.test_images"),
        (not losses.adversarial_weight, "tokenizer.losses.adversarial_weight is 0", *adversary),
        (not losses.perceptual_weight, "tokenizer.losses.perceptual_weight is 0", network),
    ):
        for key, _ in dotted(changes) if is_idle else ():
            if key.startswith(tuple(map(str, without_effect))):
                raise ValueError(f"{key}: given, but {reason}")


TOKENIZER_TRAINING = ("tokenizer.model.", "tokenizer.losses.", "tokenizer.train.")
"""Settings of a tokenizer that is trained here."""


PARTS = (("tokenizer", "model", TOKENIZERS), ("model", "distribution", DISTRIBUTIONS))
"""Settings with a kind whose other settings belong to that kind."""


def _name_kinds(values: dict[str, Any]) -> None:
    for stage, part, registry in PARTS:
        if (inner := _part(values, stage, part)) is not None:
            inner.setdefault("kind", registry.default)


def _for_kinds(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values without those of another kind than the changes choose.

    Kinds with the same settings (diffusion and flow) keep them.
    """
    kept = merge(values, {})
    for stage, part, registry in PARTS:
        before, now = _part(kept, stage, part), _part(changes, stage, part)
        kind = (now or {}).get("kind")
        if before is not None and kind is not None and not registry.same_settings(kind, before["kind"]):
            kept[stage][part] = {"kind": kind}
    return kept


def _part(values: Mapping[str, Any], stage: str, part: str) -> dict[str, Any] | None:
    outer = values.get(stage)
    inner = outer.get(part) if isinstance(outer, dict) else None
    return inner if isinstance(inner, dict) else None
