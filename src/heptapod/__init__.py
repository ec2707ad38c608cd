"""Heptapod: language modeling on visual signals.

A causal Transformer reads the tokens of an image one after another and predicts, at every step, the distribution of
every cell of the 2D grid that has not been read yet. After "Heptapod: Language Modeling on Visual Signals"
(arXiv 2510.06673).
"""

from heptapod.editing import Edit, edit, outpaint, vary
from heptapod.models import HeadConfig, HeptapodModel, ModelConfig
from heptapod.pipeline import Heptapod
from heptapod.sampling import SamplingConfig
from heptapod.tokenizers import Tokenizer, load_tokenizer

__version__ = "0.1.0"

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
