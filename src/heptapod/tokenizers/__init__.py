"""Tokenizers: images to token grids and back, trained for reconstruction only."""

from heptapod.tokenizers.base import TOKENIZERS, Tokenizer, TokenizerConfig, register_tokenizer
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.fsq import FSQConfig, FSQTokenizer
from heptapod.tokenizers.losses import LossesConfig
from heptapod.tokenizers.networks import NetworkConfig, build_decoder, build_encoder
from heptapod.tokenizers.pixel import PixelConfig, PixelTokenizer
from heptapod.tokenizers.pretrained import import_pretrained
from heptapod.tokenizers.store import (
    build_tokenizer,
    build_trainable,
    load_tokenizer,
    save_tokenizer,
    tokenizer_class,
    tokenizer_hash,
)
from heptapod.tokenizers.trainable import Reconstruction, TrainableTokenizer
from heptapod.tokenizers.vae import VAEConfig, VAETokenizer
from heptapod.tokenizers.vq import VQConfig, VQTokenizer

__all__ = [
    "TOKENIZERS",
    "ContinuousTokenizer",
    "FSQConfig",
    "FSQTokenizer",
    "LossesConfig",
    "NetworkConfig",
    "PixelConfig",
    "PixelTokenizer",
    "Reconstruction",
    "Tokenizer",
    "TokenizerConfig",
    "TrainableTokenizer",
    "VAEConfig",
    "VAETokenizer",
    "VQConfig",
    "VQTokenizer",
    "build_decoder",
    "build_encoder",
    "build_tokenizer",
    "build_trainable",
    "import_pretrained",
    "load_tokenizer",
    "register_tokenizer",
    "save_tokenizer",
    "tokenizer_class",
    "tokenizer_hash",
]
