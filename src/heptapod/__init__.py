"""Heptapod: language modeling on visual signals.

A causal Transformer reads the tokens of an image one after another and predicts, at every step, the distribution of
every cell of the 2D grid that has not been read yet. After "Heptapod: Language Modeling on Visual Signals"
(arXiv 2510.06673).

Names are imported on first use, so that ``import heptapod`` loads neither torch nor anything else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from heptapod.distributions import CellDistribution, CellSampling, DistributionConfig, register_distribution
    from heptapod.grid import GridSpec
    from heptapod.inference.editing import Edit, edit, outpaint, vary
    from heptapod.inference.pipeline import Heptapod
    from heptapod.models import Head, HeadConfig, HeptapodModel, ModelConfig, ReadStates, register_head
    from heptapod.sampling import SamplingConfig
    from heptapod.tokenizers import (
        Reconstruction,
        Tokenizer,
        TokenizerConfig,
        TrainableTokenizer,
        load_tokenizer,
        register_tokenizer,
    )
    from heptapod.training.recipe import Recipe, load_recipe
    from heptapod.training.run import train
    from heptapod.utils.config import settings

_HOME = {
    "CellDistribution": "distributions",
    "CellSampling": "distributions",
    "DistributionConfig": "distributions",
    "Edit": "inference.editing",
    "GridSpec": "grid",
    "Head": "models",
    "HeadConfig": "models",
    "Heptapod": "inference.pipeline",
    "HeptapodModel": "models",
    "ModelConfig": "models",
    "ReadStates": "models",
    "Recipe": "training.recipe",
    "Reconstruction": "tokenizers",
    "SamplingConfig": "sampling",
    "Tokenizer": "tokenizers",
    "TokenizerConfig": "tokenizers",
    "TrainableTokenizer": "tokenizers",
    "edit": "inference.editing",
    "load_recipe": "training.recipe",
    "load_tokenizer": "tokenizers",
    "outpaint": "inference.editing",
    "register_distribution": "distributions",
    "register_head": "models",
    "register_tokenizer": "tokenizers",
    "settings": "utils.config",
    "train": "training.run",
    "vary": "inference.editing",
}

__all__ = [
    "CellDistribution",
    "CellSampling",
    "DistributionConfig",
    "Edit",
    "GridSpec",
    "Head",
    "HeadConfig",
    "Heptapod",
    "HeptapodModel",
    "ModelConfig",
    "ReadStates",
    "Recipe",
    "Reconstruction",
    "SamplingConfig",
    "Tokenizer",
    "TokenizerConfig",
    "TrainableTokenizer",
    "__version__",
    "edit",
    "load_recipe",
    "load_tokenizer",
    "outpaint",
    "register_distribution",
    "register_head",
    "register_tokenizer",
    "settings",
    "train",
    "vary",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'heptapod' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"heptapod.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
