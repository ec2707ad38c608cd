"""Tokenizers by configuration and in folders: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from heptapod.config import from_dict, settings, to_dict
from heptapod.files import load_strictly, read_json, read_tensors, write_json, write_tensors
from heptapod.random import seeded_initialization
from heptapod.tokenizers.base import Tokenizer
from heptapod.tokenizers.pixel import PixelConfig, PixelTokenizer
from heptapod.tokenizers.vq import VQConfig, VQTokenizer

TokenizerConfig = Annotated[VQConfig | PixelConfig, Field(discriminator="kind")]
"""Settings of any tokenizer; ``kind`` tells which."""


@settings
class _TokenizerFile:
    """What a tokenizer's ``config.json`` holds."""

    tokenizer: TokenizerConfig


def build_tokenizer(config: VQConfig | PixelConfig, seed: int = 0) -> Tokenizer:
    """A freshly initialised tokenizer; the same seed gives the same weights, and no global state changes."""
    if isinstance(config, PixelConfig):
        return PixelTokenizer(config)
    with seeded_initialization(seed, 1):
        return VQTokenizer(config)


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
    """The settings of a tokenizer as a dictionary."""
    assert isinstance(tokenizer, VQTokenizer | PixelTokenizer)
    return to_dict(tokenizer.config)


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 over settings and weights: equal for tokenizers that give equal tokens."""
    digest = hashlib.sha256(json.dumps(config_of(tokenizer), sort_keys=True).encode())
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
