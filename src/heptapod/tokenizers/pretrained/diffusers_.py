"""Autoencoders in the folder format of the ``diffusers`` library: AutoencoderKL and VQModel.

Images of both are in [-1, 1]. ``diffusers`` builds the modules and is imported only then; the weights are read here,
so that every tensor is accounted for.

Shape legend: B batch, c latent channels, h and w sides.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from heptapod.configs.tokenizers import TokenizerConfig
from heptapod.tokenizers.base import PUBLISHED_TOKENIZERS, register_tokenizer
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.pretrained.base import PretrainedTokenizer, QuantizedTokenizer
from heptapod.tokenizers.pretrained.folder import read_folder
from heptapod.utils.config import settings
from heptapod.utils.files import load_strictly, read_json

ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention layers in files from before diffusers 0.15, and since."""


@settings
class DiffusersKLConfig(TokenizerConfig):
    """A published AutoencoderKL: each cell is the mean of the encoder's Gaussian."""

    architecture: dict[str, Any]
    """Arguments of diffusers' AutoencoderKL, as in the config.json of the folder."""
    kind: Literal["diffusers_kl"] = "diffusers_kl"
    """Kind of tokenizer."""
    patch: Annotated[int, Field(ge=1)] = 1
    """Latent positions per side that make one token (2 halves the grid)."""

    def __post_init__(self) -> None:
        _check_architecture(self.architecture)


@settings
class DiffusersVQConfig(TokenizerConfig):
    """A published VQModel: each cell is the nearest code."""

    architecture: dict[str, Any]
    """Arguments of diffusers' VQModel, as in the config.json of the folder."""
    kind: Literal["diffusers_vq"] = "diffusers_vq"
    """Kind of tokenizer."""

    def __post_init__(self) -> None:
        _check_architecture(self.architecture)


class KLTokenizer(ContinuousTokenizer, PretrainedTokenizer):
    """An AutoencoderKL of a given architecture.

    Args:
        architecture: arguments of diffusers' AutoencoderKL.
        patch: p×p latent positions make one token.
    """

    def __init__(self, architecture: dict[str, Any], patch: int) -> None:
        model = build_model("AutoencoderKL", architecture)
        super().__init__(_factor(model), model.config.latent_channels, patch)
        self.model = model

    def encode_latent(self, images: Tensor) -> Tensor:
        """See :meth:`ContinuousTokenizer.encode_latent`; the mean of the posterior."""
        mean: Tensor = self.model.encode(images).latent_dist.mode()
        return mean

    def decode_latent(self, latent: Tensor) -> Tensor:
        """See :meth:`ContinuousTokenizer.decode_latent`."""
        images: Tensor = self.model.decode(latent).sample
        return images


class VQModelTokenizer(QuantizedTokenizer):
    """A VQModel of a given architecture.

    Args:
        architecture: arguments of diffusers' VQModel.
    """

    def __init__(self, architecture: dict[str, Any]) -> None:
        super().__init__()
        self.model = build_model("VQModel", architecture)
        self.factor = _factor(self.model)
        self.vocabulary_size = self.model.config.num_vq_embeddings

    def codebook(self) -> Tensor:
        """See :meth:`QuantizedTokenizer.codebook`."""
        vectors: Tensor = self.model.quantize.embedding.weight
        return vectors

    def encode_vectors(self, images: Tensor) -> Tensor:
        """See :meth:`QuantizedTokenizer.encode_vectors`."""
        vectors: Tensor = self.model.encode(images).latents
        return vectors

    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """See :meth:`QuantizedTokenizer.decode_vectors`."""
        # Not model.decode: with lookup_from_codebook it expects codes in place of vectors.
        condition = vectors if self.model.config.norm_type == "spatial" else None  # MoVQ, 2209.09002
        images: Tensor = self.model.decoder(self.model.post_quant_conv(vectors), condition)
        return images


@register_tokenizer("diffusers_kl", DiffusersKLConfig, PUBLISHED_TOKENIZERS)
class DiffusersKLTokenizer(KLTokenizer):
    """An AutoencoderKL from a diffusers folder."""

    def __init__(self, config: DiffusersKLConfig) -> None:
        super().__init__(config.architecture, config.patch)
        self.config = config

    def load_published(self, path: Path) -> None:
        """See :meth:`PretrainedTokenizer.load_published`."""
        load_folder(self.model, path)


@register_tokenizer("diffusers_vq", DiffusersVQConfig, PUBLISHED_TOKENIZERS)
class DiffusersVQTokenizer(VQModelTokenizer):
    """A VQModel from a diffusers folder."""

    def __init__(self, config: DiffusersVQConfig) -> None:
        super().__init__(config.architecture)
        self.config = config

    def load_published(self, path: Path) -> None:
        """See :meth:`PretrainedTokenizer.load_published`."""
        load_folder(self.model, path)


def read_architecture(folder: Path, class_name: str) -> dict[str, Any]:
    """The arguments of a diffusers class in a folder's ``config.json``; keys the class does not take are left out.

    Raises:
        FileNotFoundError: if there is no ``config.json``.
        ValueError: if it is of another class, naming file and class.
    """
    file = folder / "config.json"
    if not file.is_file():
        inner = next(
            (f"; {folder / name} has one" for name in ("vae", "vqvae") if (folder / name / file.name).is_file()), ""
        )
        raise FileNotFoundError(f"{file}: no such file{inner}")
    values = read_json(file)
    if values.get("_class_name") != class_name:
        raise ValueError(f"{file}: _class_name is {values.get('_class_name')!r}, needed {class_name!r}")
    known = _arguments(_find_class(class_name))
    return {key: value for key, value in values.items() if key in known}


def load_folder(model: Any, folder: Path) -> None:
    """Loads the weights of a folder, see :func:`read_folder`; old names of attention layers are read too.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if a tensor does not fit.
    """
    tensors, file = read_folder(folder)
    load_strictly(model, _with_new_names(tensors, file), file)


def build_model(class_name: str, architecture: dict[str, Any]) -> Any:
    """A diffusers autoencoder, freshly initialized.

    Raises:
        ValueError: if diffusers is not installed, or the architecture is none or not of RGB images.
    """
    cls = _find_class(class_name)
    known = _arguments(cls)
    unknown = sorted(architecture.keys() - known)
    if unknown:
        raise ValueError(f"architecture: {class_name} takes no {unknown[0]!r}, allowed are {', '.join(sorted(known))}")
    try:
        model = cls(**architecture)
    except MemoryError:
        raise
    except Exception as error:  # the library checks little: a wrong value fails wherever it is first used
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"architecture: {class_name} cannot be built from it ({reason})") from None
    for name in ("in_channels", "out_channels"):
        if model.config[name] != 3:
            raise ValueError(f"architecture: {name} is {model.config[name]}, must be 3 (images are RGB)")
    return model


def _find_class(class_name: str) -> Any:
    try:
        return getattr(importlib.import_module("diffusers"), class_name)
    except ImportError:
        raise ValueError(f"{class_name} needs the diffusers library: pip install 'heptapod[pretrained]'") from None


def _arguments(cls: Any) -> set[str]:
    """Names of the arguments a class takes."""
    return set(inspect.signature(cls.__init__).parameters) - {"self"}


def _factor(model: Any) -> int:
    """Pixels per latent position: every level but the last halves the image."""
    return int(2 ** (len(model.config.block_out_channels) - 1))


def _with_new_names(tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Tensors with the present names of attention layers."""
    old = re.compile(rf"(?<=\.attentions\.)(\d+)\.({'|'.join(ATTENTION_NAMES)})(?=\.(weight|bias)$)")
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        new = old.sub(lambda match: f"{match[1]}.{ATTENTION_NAMES[match[2]]}", name)
        if new in renamed or (new != name and new in tensors):
            raise ValueError(f"{source}: holds {new} twice, once by its old name")
        renamed[new] = tensor
    return renamed


def _check_architecture(architecture: dict[str, Any]) -> None:
    private = sorted(key for key in architecture if key.startswith("_"))
    if private:
        raise ValueError(f"architecture: {private[0]!r} given, keys must not start with an underscore")
    try:
        json.dumps(architecture)
    except (TypeError, ValueError) as error:
        raise ValueError(f"architecture: holds what JSON cannot ({error})") from None
