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
    from heptapod.inference.editing import Edit, edit, outpaint, vary
    from heptapod.inference.pipeline import Heptapod
    from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
    from heptapod.sampling import SamplingConfig
    from heptapod.tokenizers import Tokenizer, load_tokenizer

_HOME = {
    "Edit": "inference.editing",
    "HeadConfig": "models",
    "Heptapod": "inference.pipeline",
    "HeptapodModel": "models",
    "ModelConfig": "models",
    "SamplingConfig": "sampling",
    "Tokenizer": "tokenizers",
    "edit": "inference.editing",
    "load_tokenizer": "tokenizers",
    "outpaint": "inference.editing",
    "vary": "inference.editing",
}

__all__ = [
    "Edit",
    "HeadConfig",
    "Heptapod",
    "HeptapodModel",
    "ModelConfig",
    "SamplingConfig",
    "Tokenizer",
    "__version__",
    "edit",
    "load_tokenizer",
    "outpaint",
    "vary",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'heptapod' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"heptapod.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
