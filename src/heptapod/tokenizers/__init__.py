"""Tokenizers: images to token grids and back, trained for reconstruction only."""

from heptapod.configs.tokenizers import (
    TOKENIZERS,
    FSQConfig,
    LossesConfig,
    NetworkConfig,
    PixelConfig,
    TokenizerConfig,
    VAEConfig,
    VQConfig,
)
from heptapod.tokenizers.base import Tokenizer, register_tokenizer
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.fsq import FSQTokenizer
from heptapod.tokenizers.networks import build_decoder, build_encoder
from heptapod.tokenizers.pixel import PixelTokenizer
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
from heptapod.tokenizers.vae import VAETokenizer
from heptapod.tokenizers.vq import VQTokenizer

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
