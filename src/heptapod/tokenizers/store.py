"""Tokenizers by configuration and in folders: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from heptapod.tokenizers.base import Tokenizer
from heptapod.tokenizers.discriminator import PatchDiscriminator
from heptapod.tokenizers.fsq import FSQConfig, FSQTokenizer
from heptapod.tokenizers.losses import LossesConfig
from heptapod.tokenizers.pixel import PixelConfig, PixelTokenizer
from heptapod.tokenizers.pretrained import AnyPretrainedConfig, build_pretrained
from heptapod.tokenizers.trainable import TrainableTokenizer
from heptapod.tokenizers.vae import VAEConfig, VAETokenizer
from heptapod.tokenizers.vq import VQConfig, VQTokenizer
from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.files import load_strictly, read_json, read_tensors, write_json, write_tensors
from heptapod.utils.random import seeded_initialization

AnyTrainableConfig = VQConfig | FSQConfig | VAEConfig
AnyConfig = AnyTrainableConfig | PixelConfig | AnyPretrainedConfig
TokenizerConfig = Annotated[AnyTrainableConfig | PixelConfig, Field(discriminator="kind")]
"""Settings of a tokenizer that a recipe can make; ``kind`` tells which."""


@settings
class _TokenizerFile:
    """What a tokenizer's ``config.json`` holds."""

    tokenizer: Annotated[AnyConfig, Field(discriminator="kind")]


def build_trainable(config: AnyTrainableConfig, seed: int = 0) -> TrainableTokenizer:
    """A freshly initialized tokenizer; the same seed gives the same weights, and no global state changes."""
    with seeded_initialization(seed, 1):
        match config:
            case VQConfig():
                return VQTokenizer(config)
            case FSQConfig():
                return FSQTokenizer(config)
            case VAEConfig():
                return VAETokenizer(config)


def build_tokenizer(config: AnyConfig, seed: int = 0) -> Tokenizer:
    """A tokenizer of any kind, a trainable one freshly initialized, a pretrained one without its weights."""
    if isinstance(config, PixelConfig):
        return PixelTokenizer(config)
    if isinstance(config, AnyTrainableConfig):
        return build_trainable(config, seed)
    return build_pretrained(config)


def build_discriminator(config: LossesConfig, image_size: int, seed: int) -> PatchDiscriminator | None:
    """The discriminator of an adversarial loss; None without one.

    Raises:
        ValueError: if the images, of the given smallest side, are too small for it.
    """
    if not config.adversarial_weight:
        return None
    if image_size < 3 * 2**config.discriminator_layers:
        raise ValueError(
            f"losses.discriminator_layers: {config.discriminator_layers} given, too many for images of {image_size} "
            f"pixels; they need {3 * 2**config.discriminator_layers}"
        )
    with seeded_initialization(seed, 2):
        return PatchDiscriminator(config.discriminator_width, config.discriminator_layers)


def save_tokenizer(tokenizer: Tokenizer, folder: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes a tokenizer to a folder; each file is whole or absent."""
    write_tensors(folder / "model.safetensors", tokenizer.state_dict(), metadata)
    write_json(folder / "config.json", {"format": "heptapod-tokenizer-1", "tokenizer": config_of(tokenizer)})


def load_tokenizer(folder: Path) -> Tokenizer:
    """Reads a tokenizer from a folder, in evaluation mode.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged or does not fit.
    """
    source = folder / "config.json"
    if not source.is_file():
        raise FileNotFoundError(f"{folder}: no tokenizer there (config.json is missing)")
    values = read_json(source)
    if values.get("format") != "heptapod-tokenizer-1":
        raise ValueError(f"{source}: not a tokenizer (format is {values.get('format')!r})")
    config = from_dict(_TokenizerFile, {"tokenizer": values.get("tokenizer")}, str(source)).tokenizer
    tokenizer = build_tokenizer(config)
    weights = folder / "model.safetensors"
    load_strictly(tokenizer, read_tensors(weights), weights)
    return tokenizer.eval()


def config_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The settings of a tokenizer as a dictionary.

    Raises:
        ValueError: for a tokenizer of your own that has none.
    """
    config = getattr(tokenizer, "config", None)
    if config is None:
        raise ValueError(f"tokenizer: {type(tokenizer).__name__} has no config and cannot be saved")
    return to_dict(config)


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 over settings and weights: equal for tokenizers that give equal tokens."""
    digest = hashlib.sha256(json.dumps(config_of(tokenizer), sort_keys=True).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
