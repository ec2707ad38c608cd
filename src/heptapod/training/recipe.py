"""Recipes: everything a run needs, in one YAML file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from heptapod.data import DataConfig
from heptapod.models import ModelConfig, head_class
from heptapod.objective import ObjectiveConfig
from heptapod.sampling import TRAINED_FOR, SamplingConfig
from heptapod.tokenizers import TOKENIZERS, LossesConfig, TokenizerConfig, VQConfig
from heptapod.training import ProbeConfig, TrainConfig
from heptapod.utils.config import apply_overrides, find_yaml, from_dict, read_yaml, settings, shipped_names
from heptapod.utils.extensions import import_extensions, imported_by_command, read_imports


@settings
class TokenizerStage:
    """The tokenizer: a trained one, or one that is trained first."""

    path: str | None = None
    """Folder of a trained tokenizer (or of its run); if unset one is trained in OUT/tokenizer."""
    model: Annotated[TokenizerConfig, TOKENIZERS] = field(default_factory=VQConfig)
    """Kind and size."""
    losses: LossesConfig = field(default_factory=LossesConfig)
    """What its reconstructions are judged by."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""


@settings
class Recipe:
    """A run: data, tokenizer, model, objective, training, and how its samples are drawn."""

    description: str = ""
    """What the recipe is for, with expected time, hardware and score."""
    imports: list[str] = field(default_factory=list)
    """Files (my_head.py) or modules that register heads, distributions or tokenizers; imported before the rest is
    read."""
    out: str = ""
    """Run folder; empty means runs/<recipe>."""
    seed: int = 0
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
    """What is measured of its hidden states meanwhile."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How sample grids are drawn during training, and the defaults of `heptapod sample`."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: {self.seed} given, must be between 0 and 2^63 - 1")
        if not head_class(self.model.head.kind).predicts_grid and self.objective.targets_per_prefix != 1:
            raise ValueError(
                f"objective.targets_per_prefix: {self.objective.targets_per_prefix} given, but a "
                f"{self.model.head.kind} head predicts one cell per prefix: set it to 1"
            )
        if self.sampling.token_order not in (None, *TRAINED_FOR[self.objective.token_order]):
            raise ValueError(
                f"sampling.token_order: {self.sampling.token_order} given, but the model is trained on "
                f"objective.token_order {self.objective.token_order}"
            )


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return shipped_names("recipe")


def load_recipe(source: str | Mapping[str, Any], overrides: list[str] | None = None) -> Recipe:
    """A shipped recipe by name, one from a YAML file, or one from nested mappings, with overrides applied.

    Args:
        source: "demo", say, the path of a .yaml file, or what such a file contains.
        overrides: arguments such as ``--model.head.depth 4``; ``--data X`` stands for ``--data.path X``.

    Raises:
        FileNotFoundError: if there is no such recipe.
        ValueError: for an unknown setting or a value out of range.
    """
    path = find_yaml("recipe", source) if isinstance(source, str) else None
    values = read_yaml(path) if path else copy.deepcopy(dict(source))  # type: ignore[arg-type]
    name = str(path or "recipe")
    import_extensions(read_imports(values, name))
    overrides = _aliases(overrides or [])
    _name_kinds(values)
    from_dict(Recipe, values, name)  # an error in the file is the file's, not that of an override
    merged = apply_overrides(Recipe, _for_kinds(values, apply_overrides(Recipe, values, overrides)), overrides)
    _name_kinds(merged)
    recipe = from_dict(Recipe, merged, f"recipe {source}" if path else name)
    recipe.imports = list(dict.fromkeys([*recipe.imports, *imported_by_command()]))
    recipe.out = recipe.out or f"runs/{path.stem if path else 'recipe'}"
    return recipe


PARTS = (("tokenizer", "model", "vq"), ("model", "distribution", "categorical"))
"""Settings with a kind, and the kind they have where none is named."""


def _name_kinds(values: dict[str, Any]) -> None:
    for stage, part, default in PARTS:
        if (inner := _part(values, stage, part)) is not None:
            inner.setdefault("kind", default)


def _for_kinds(values: dict[str, Any], overridden: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values without those of a tokenizer or distribution of another kind than the overrides choose.

    Diffusion and flow have the same settings and keep them.
    """
    kept = copy.deepcopy(values)
    for stage, part, default in PARTS:
        before, now = _part(kept, stage, part), _part(overridden, stage, part)
        if before is None or now is None:
            continue
        kind = now.get("kind", default)
        if kind != before["kind"] and (part != "distribution" or "categorical" in (kind, before["kind"])):
            kept[stage][part] = {"kind": kind}
    return kept


def _part(values: dict[str, Any], stage: str, part: str) -> dict[str, Any] | None:
    outer = values.get(stage)
    inner = outer.get(part) if isinstance(outer, dict) else None
    return inner if isinstance(inner, dict) else None


def _aliases(overrides: list[str]) -> list[str]:
    def long(argument: str) -> str:
        key, equals, value = argument.partition("=")
        return f"--data.path{equals}{value}" if key == "--data" else argument

    return [long(argument) for argument in overrides]
