"""Tokenizers: images to token grids and back, trained for reconstruction only."""

from heptapod.tokenizers.base import GridSpec, Tokenizer
from heptapod.tokenizers.pixel import PixelConfig, PixelTokenizer
from heptapod.tokenizers.store import (
    TokenizerConfig,
    build_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
)
from heptapod.tokenizers.vq import VQConfig, VQTokenizer

__all__ = [
    "GridSpec",
    "PixelConfig",
    "PixelTokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "VQConfig",
    "VQTokenizer",
    "build_tokenizer",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_hash",
]
