"""The folder of a model: ``config.json``, ``model.safetensors`` and, inside or next to it, the tokenizer."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any

from heptapod.configs.grid import TokenOrder
from heptapod.distributions import DISTRIBUTIONS
from heptapod.grid import GridSpec
from heptapod.models import HEADS, HeptapodModel, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.sampling import SamplingConfig
from heptapod.tokenizers import Tokenizer, load_tokenizer, tokenizer_hash
from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.files import (
    load_strictly,
    read_json,
    read_metadata,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
)
from heptapod.utils.messages import quoted
from heptapod.utils.weights import plain_state_dict

FORMAT = "heptapod-model-2"


@settings
class PretrainedConfig:
    """The content of a model's ``config.json``."""

    model: ModelConfig
    """Sizes and kinds."""
    grid: GridSpec
    """The token grid and the kind of its tokens."""
    class_names: list[str]
    """Names of the classes; empty for an unconditional model."""
    token_order: TokenOrder
    """The order(s) the model was trained on."""
    sampling: SamplingConfig
    """Recommended settings, the defaults of ``generate``."""
    tokenizer: str
    """Folder of the tokenizer, relative to this file."""
    tokenizer_sha256: str
    """Hash of the tokenizer the model was trained with."""
    label_dropout: float | None = None
    """Probability of training without the label; None if it is not known."""
    imports: list[str] = field(default_factory=list)
    """Files, modules or packages that register the custom parts of the model; never imported by loading it."""
    format: str = FORMAT
    """Version of this file."""


def read_pretrained(path: Path) -> tuple[HeptapodModel, Tokenizer, PretrainedConfig, dict[str, str]]:
    """Model, tokenizer, settings and metadata of a model's folder, or of the best model of a run folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file is damaged, does not fit, or the tokenizer is another than that of training.
    """
    folder = find_pretrained(path)
    source = folder / "config.json"
    values = _upgrade_config(read_json(source))
    if values.get("format") != FORMAT:
        found = quoted(values.get("format"))
        raise ValueError(f"{source}: not a Heptapod model (format is {found}, needed {FORMAT!r})")
    _require_registered(values, str(source))
    config = from_dict(PretrainedConfig, values, str(source))
    tokenizer = load_tokenizer(folder / config.tokenizer)
    if tokenizer_hash(tokenizer) != config.tokenizer_sha256:
        raise ValueError(f"{folder / config.tokenizer}: another tokenizer than the one the model was trained with")
    if (tokenizer.vocabulary_size, tokenizer.channels) != (config.grid.vocabulary_size, config.grid.channels):
        raise ValueError(f"{source}: its grid {to_dict(config.grid)} is not one of its tokenizer's")
    model = build_model(config.model, config.grid, len(config.class_names), seed=0)
    weights = folder / "model.safetensors"
    load_strictly(model, read_tensors(weights), weights)
    return model, tokenizer, config, read_metadata(weights)


def write_pretrained(folder: Path, model: HeptapodModel, config: PretrainedConfig, metadata: dict[str, str]) -> None:
    """Writes weights, then settings; each file is whole or absent."""
    write_tensors(folder / "model.safetensors", plain_state_dict(model), metadata)
    values = to_dict(config)
    found = {HEADS.origin(config.model.head.kind), DISTRIBUTIONS.origin(config.model.distribution.kind)}
    values["imports"] = sorted(name for name in found if name)
    if not values["imports"]:
        del values["imports"]
    write_json(folder / "config.json", values)


def _require_registered(values: dict[str, Any], source: str) -> None:
    model = values.get("model")
    for key, registry in (("head", HEADS), ("distribution", DISTRIBUTIONS)):
        part = model.get(key) if isinstance(model, dict) else None
        if isinstance(part, dict):
            registry.require(part.get("kind"), values.get("imports"), source)


def find_pretrained(path: Path) -> Path:
    """The folder of a model: the path itself, or ``best`` (else ``last``) in a run folder.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder")
    for folder in (path, path / "best", path / "last"):
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(f"{path}: no model there (neither config.json nor best/config.json)")


def model_sha256(path: Path) -> str:
    """Hash of the weights of a model's folder, or of a run's best model."""
    return sha256(find_pretrained(path) / "model.safetensors")


def _upgrade_config(values: dict[str, Any]) -> dict[str, Any]:
    """Converts settings of format 1 (codes only) to the present format."""
    if values.get("format") != "heptapod-model-1":
        return values
    old = dict(values, format=FORMAT)
    height, width, codes = (old.pop(name) for name in ("grid_height", "grid_width", "vocabulary_size"))
    grid = {"height": height, "width": width, "vocabulary_size": codes}
    return {**old, "grid": grid, "model": {**old["model"], "distribution": {"kind": "categorical"}}}
