"""Published tokenizers: adapters that load their weights strictly and run no code from their files."""

from __future__ import annotations

from pathlib import Path

from heptapod.configs.tokenizers import KINDS, TokenizerConfig
from heptapod.tokenizers.base import PUBLISHED_TOKENIZERS
from heptapod.tokenizers.pretrained.base import PretrainedTokenizer, QuantizedTokenizer
from heptapod.tokenizers.pretrained.diffusers_ import (
    DiffusersKLConfig,
    DiffusersKLTokenizer,
    DiffusersVQConfig,
    DiffusersVQTokenizer,
    read_architecture,
)
from heptapod.tokenizers.pretrained.ldm import (
    LlamaGenVQConfig,
    LlamaGenVQTokenizer,
    MarKLConfig,
    MarKLTokenizer,
)
from heptapod.tokenizers.pretrained.maskgit import MaskGITVQConfig, MaskGITVQTokenizer
from heptapod.tokenizers.pretrained.taef2 import Taef2Config, Taef2Tokenizer
from heptapod.utils.random import seeded_initialization

__all__ = [
    "KINDS",
    "DiffusersKLConfig",
    "DiffusersKLTokenizer",
    "DiffusersVQConfig",
    "DiffusersVQTokenizer",
    "LlamaGenVQConfig",
    "LlamaGenVQTokenizer",
    "MarKLConfig",
    "MarKLTokenizer",
    "MaskGITVQConfig",
    "MaskGITVQTokenizer",
    "PretrainedTokenizer",
    "QuantizedTokenizer",
    "Taef2Config",
    "Taef2Tokenizer",
    "build_pretrained",
    "import_pretrained",
]


def build_pretrained(config: TokenizerConfig) -> PretrainedTokenizer:
    """A tokenizer with the architecture of the published one, to load weights into; no global state changes.

    Raises:
        ValueError: if diffusers is needed and not installed, or its settings are wrong.
    """
    with seeded_initialization(0, 1):
        tokenizer: PretrainedTokenizer = PUBLISHED_TOKENIZERS.get(config.kind)(config)
    return tokenizer


def import_pretrained(kind: str, path: Path, patch: int = 1) -> PretrainedTokenizer:
    """Reads a tokenizer from the files its authors published.

    Args:
        kind: one of :data:`KINDS`.
        path: file or folder, see :data:`KINDS`.
        patch: p×p latent positions make one token; continuous tokenizers only.

    Returns:
        It in evaluation mode; a continuous one is yet to be measured.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: naming the file or the setting that does not fit.
    """
    tokenizer = build_pretrained(_config_for(kind, path, patch))
    tokenizer.load_published(path)
    tokenizer.eval()
    return tokenizer


def _config_for(kind: str, path: Path, patch: int) -> TokenizerConfig:
    """The settings of a published tokenizer."""
    if kind not in KINDS:
        raise ValueError(f"kind: {kind!r} given, must be one of {', '.join(KINDS)}")
    match kind:
        case "taef2":
            return Taef2Config(patch=_positive(patch))
        case "diffusers_kl":
            return DiffusersKLConfig(read_architecture(path, "AutoencoderKL"), patch=_positive(patch))
        case "mar_kl16":
            return MarKLConfig(patch=_positive(patch))
    if patch != 1:
        raise ValueError(f"patch: {patch} given, must be 1 for {kind} (its tokens are codes)")
    match kind:
        case "diffusers_vq":
            return DiffusersVQConfig(read_architecture(path, "VQModel"))
        case "llamagen_vq16":
            return LlamaGenVQConfig()
        case _:
            return MaskGITVQConfig()


def _positive(patch: int) -> int:
    """Checked before pydantic does, whose errors take several lines."""
    if patch < 1:
        raise ValueError(f"patch: {patch} given, must be at least 1")
    return patch
