"""Tokenizers: images to token grids and back, trained for reconstruction only."""

from heptapod.tokenizers.base import Tokenizer
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.fsq import FSQConfig, FSQTokenizer
from heptapod.tokenizers.losses import LossesConfig
from heptapod.tokenizers.pixel import PixelConfig, PixelTokenizer
from heptapod.tokenizers.store import (
    TokenizerConfig,
    build_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
)
from heptapod.tokenizers.trainable import TrainableTokenizer
from heptapod.tokenizers.vae import VAEConfig, VAETokenizer
from heptapod.tokenizers.vq import VQConfig, VQTokenizer

__all__ = [
    "ContinuousTokenizer",
    "FSQConfig",
    "FSQTokenizer",
    "LossesConfig",
    "PixelConfig",
    "PixelTokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "TrainableTokenizer",
    "VAEConfig",
    "VAETokenizer",
    "VQConfig",
    "VQTokenizer",
    "build_tokenizer",
    "load_tokenizer",
    "save_tokenizer",
    "tokenizer_hash",
]
