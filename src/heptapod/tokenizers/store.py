"""Tokenizers by configuration and in folders: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from heptapod.configs.tokenizers import TOKENIZERS, LossesConfig, NetworkConfig, TokenizerConfig
from heptapod.tokenizers.base import PUBLISHED_TOKENIZERS, Tokenizer
from heptapod.tokenizers.discriminator import PatchDiscriminator
from heptapod.tokenizers.trainable import TrainableTokenizer
from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.extensions import origin_of
from heptapod.utils.files import load_strictly, read_json, read_tensors, write_json, write_tensors
from heptapod.utils.machine import check_fits
from heptapod.utils.messages import quoted
from heptapod.utils.random import seeded_initialization
from heptapod.utils.weights import plain_state_dict, unwrapped


@settings
class _TokenizerFile:
    """The content of a tokenizer's ``config.json``."""

    tokenizer: Annotated[TokenizerConfig, TOKENIZERS]


@settings
class _PublishedTokenizerFile(_TokenizerFile):
    """The content of the ``config.json`` of a converted tokenizer."""

    tokenizer: Annotated[TokenizerConfig, PUBLISHED_TOKENIZERS]


def tokenizer_class(config: TokenizerConfig) -> type[Tokenizer]:
    """The registered tokenizer of a config.

    Raises:
        ValueError: if there is none.
    """
    found: type[Tokenizer] = (PUBLISHED_TOKENIZERS if config.kind in PUBLISHED_TOKENIZERS.kinds() else TOKENIZERS).get(
        config.kind
    )
    return found


def build_tokenizer(config: TokenizerConfig, seed: int = 0) -> Tokenizer:
    """A freshly initialized tokenizer; the same seed gives the same weights, and no global state changes."""
    if isinstance(config, NetworkConfig):
        check_fits(
            4 * config.least_parameters(),
            f"tokenizer.model: width {config.width}, blocks {config.blocks}, factor {config.factor}",
        )
    with seeded_initialization(seed, 1):
        return tokenizer_class(config)(config)


def build_trainable(config: TokenizerConfig, seed: int = 0) -> TrainableTokenizer:
    """As :func:`build_tokenizer`, of a kind that is trained."""
    tokenizer = build_tokenizer(config, seed)
    assert isinstance(tokenizer, TrainableTokenizer)
    return tokenizer


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
    """Writes a tokenizer to a folder, without its wrappers (torch.compile); each file is whole or absent."""
    values = {"format": "heptapod-tokenizer-1", "tokenizer": config_of(tokenizer)}
    write_tensors(folder / "model.safetensors", plain_state_dict(tokenizer), metadata)
    origin = origin_of(type(unwrapped(tokenizer)))
    write_json(folder / "config.json", values | ({"imports": [origin]} if origin else {}))


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
        raise ValueError(f"{source}: not a tokenizer (format is {quoted(values.get('format'))})")
    content = values.get("tokenizer")
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise ValueError(f"{source}: tokenizer.kind: {kind!r} given, must be one of {', '.join(TOKENIZERS.kinds())}")
    TOKENIZERS.require(kind, values.get("imports"), str(source))
    file = _PublishedTokenizerFile if kind in PUBLISHED_TOKENIZERS.kinds() else _TokenizerFile
    config = from_dict(file, {"tokenizer": content}, str(source)).tokenizer
    tokenizer = build_tokenizer(config)
    weights = folder / "model.safetensors"
    load_strictly(tokenizer, read_tensors(weights), weights)
    return tokenizer.eval()


def config_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The settings of a tokenizer as a dictionary.

    Raises:
        ValueError: for a custom tokenizer without a config.
    """
    inner = unwrapped(tokenizer)
    config = getattr(inner, "config", None)
    if config is None:
        raise ValueError(f"tokenizer: {type(inner).__name__} has no config and cannot be saved")
    return to_dict(config)


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 over settings and weights in float32: equal for tokenizers that give equal tokens."""
    digest = hashlib.sha256(json.dumps(config_of(tokenizer), sort_keys=True).encode())
    for name, tensor in sorted(plain_state_dict(tokenizer).items()):
        digest.update(name.encode())
        values = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
