"""Published state dicts of the VQGAN family (2012.09841, 2112.10752): LlamaGen's VQ-16 and MAR's KL-16.

Both networks are those of ``diffusers`` by other names: residual blocks in five levels, self-attention in the middle
and at the lowest resolution. Their attention layers are 1×1 convolutions, which diffusers writes as linear layers.
Images are in [-1, 1].

Shape legend: B batch, c channels, V codes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from heptapod.configs.tokenizers import TokenizerConfig
from heptapod.tokenizers.base import PUBLISHED_TOKENIZERS, register_tokenizer
from heptapod.tokenizers.pretrained.base import read_published
from heptapod.tokenizers.pretrained.diffusers_ import KLTokenizer, VQModelTokenizer
from heptapod.utils.config import settings
from heptapod.utils.files import check_tensors
from heptapod.utils.weights import check_finite_weights, without_prefix

LEVELS = 5
WIDTHS = [128, 128, 256, 256, 512]
_PLAIN_DOWN, _PLAIN_UP = ["DownEncoderBlock2D"] * LEVELS, ["UpDecoderBlock2D"] * LEVELS
_ATTENTION_DOWN = [*_PLAIN_DOWN[1:], "AttnDownEncoderBlock2D"]
_ATTENTION_UP = ["AttnUpDecoderBlock2D", *_PLAIN_UP[1:]]
_COMMON: dict[str, Any] = {"block_out_channels": WIDTHS, "layers_per_block": 2, "down_block_types": _ATTENTION_DOWN}
VQ16: dict[str, Any] = {
    **_COMMON,
    "up_block_types": _ATTENTION_UP,
    "latent_channels": 256,
    "vq_embed_dim": 8,
    "num_vq_embeddings": 16384,
}
"""LlamaGen's VQ-16 as arguments of diffusers' VQModel."""
KL16: dict[str, Any] = {**_COMMON, "up_block_types": _PLAIN_UP, "latent_channels": 16}
"""MAR's KL-16 as arguments of diffusers' AutoencoderKL; its decoder has attention in the middle only."""


@settings
class LlamaGenVQConfig(TokenizerConfig):
    """LlamaGen's published VQ-16 (2406.06525): 16,384 codes, one per 16×16 pixels."""

    kind: Literal["llamagen_vq16"] = "llamagen_vq16"
    """Kind of tokenizer."""


@settings
class MarKLConfig(TokenizerConfig):
    """MAR's published KL-16 (2406.11838): latents of 16 channels, one per 16×16 pixels."""

    kind: Literal["mar_kl16"] = "mar_kl16"
    """Kind of tokenizer."""
    patch: Annotated[int, Field(ge=1)] = 1
    """Latent positions per side that make one token of 16 · patch² channels (2 halves the grid)."""


@dataclass(frozen=True)
class Names:
    """How a published state dict names the layers that diffusers has too."""

    down: str
    """Levels of the encoder, from the highest resolution."""
    up: str
    """Levels of the decoder."""
    up_runs_backwards: bool
    """Whether the decoder's levels are numbered from the highest resolution, which comes last."""
    residual: str
    """Residual blocks of a level."""
    middle: tuple[str, str, str]
    """Residual block, attention and residual block between encoder's and decoder's levels."""
    unused: tuple[str, ...]
    """Names, or beginnings of names that end in a point, of what only training needs."""

    def published(self, own: str) -> str:
        """The published name of a diffusers layer."""
        flip = LEVELS - 1 if self.up_runs_backwards else 0
        name = re.sub(r"\.up_blocks\.(\d)", lambda match: f".{self.up}.{abs(flip - int(match[1]))}", own)
        for ours, theirs in zip(_MIDDLE, self.middle, strict=True):
            name = name.replace(ours, theirs)
        for ours, theirs in ((".down_blocks.", f".{self.down}."), (".resnets.", f".{self.residual}."), *_LAYERS):
            name = name.replace(ours, theirs)
        return name

    def is_unused(self, name: str) -> bool:
        """Whether only training needs a published tensor."""
        return any(name == other or (other.endswith(".") and name.startswith(other)) for other in self.unused)


_MIDDLE = ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")
_LAYERS = (
    (".attentions.", ".attn."),
    (".group_norm.", ".norm."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".proj_out."),
    (".conv_shortcut.", ".nin_shortcut."),
    (".downsamplers.0.", ".downsample."),
    (".upsamplers.0.", ".upsample."),
    (".conv_norm_out.", ".norm_out."),
)
LLAMAGEN_NAMES = Names(
    down="conv_blocks",
    up="conv_blocks",
    up_runs_backwards=False,
    residual="res",
    middle=("mid.0", "mid.1", "mid.2"),
    unused=("quantize.codebook_used",),  # the codes of the last 65,536 vectors seen in training
)
MAR_NAMES = Names(
    down="down",
    up="up",
    up_runs_backwards=True,
    residual="block",
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    unused=("loss.",),  # perceptual loss and discriminator of the trainer of latent diffusion
)


@register_tokenizer("llamagen_vq16", LlamaGenVQConfig, PUBLISHED_TOKENIZERS)
class LlamaGenVQTokenizer(VQModelTokenizer):
    """LlamaGen's VQ-16: vectors and codes are compared on the unit sphere, and decoded from there."""

    def __init__(self, config: LlamaGenVQConfig) -> None:
        super().__init__(VQ16)
        self.config = config

    def codebook(self) -> Tensor:
        """See :meth:`QuantizedTokenizer.codebook`; every vector has length 1."""
        return F.normalize(super().codebook(), dim=-1)

    def encode_vectors(self, images: Tensor) -> Tensor:
        """See :meth:`QuantizedTokenizer.encode_vectors`; every vector has length 1."""
        return F.normalize(super().encode_vectors(images).float(), dim=1)

    def load_published(self, path: Path) -> None:
        """See :meth:`PretrainedTokenizer.load_published`; ``vq_ds16_c2i.pt`` of FoundationVision/LlamaGen."""
        load_renamed(self.model, read_published(path), LLAMAGEN_NAMES, path)


@register_tokenizer("mar_kl16", MarKLConfig, PUBLISHED_TOKENIZERS)
class MarKLTokenizer(KLTokenizer):
    """MAR's KL-16; tokens are the mean of its Gaussian."""

    def __init__(self, config: MarKLConfig) -> None:
        super().__init__(KL16, config.patch)
        self.config = config

    def load_published(self, path: Path) -> None:
        """See :meth:`PretrainedTokenizer.load_published`; ``kl16.ckpt`` of LTH14/mar."""
        load_renamed(self.model, read_published(path), MAR_NAMES, path)


def load_renamed(module: nn.Module, tensors: Mapping[str, Tensor], names: Names, source: Path) -> None:
    """Loads a published state dict into a diffusers module; names and shapes must all fit.

    Raises:
        ValueError: naming the first published tensors that do not fit.
    """
    own = module.state_dict()
    published = {names.published(name): name for name in own}
    assert len(published) == len(own), "two layers by one name"
    tensors = without_prefix(published.keys(), tensors, source)
    used = {name: tensor for name, tensor in tensors.items() if not names.is_unused(name)}
    needed = {theirs: _published_shape(ours, own[ours]) for theirs, ours in published.items()}
    check_tensors(needed, used, source)
    check_finite_weights(used, source)
    module.load_state_dict({ours: used[theirs].view(own[ours].shape) for theirs, ours in published.items()})


def _published_shape(name: str, own: Tensor) -> torch.Size:
    """Linear layers of attention are published as 1×1 convolutions."""
    is_linear = ".attentions." in name and own.ndim == 2
    return torch.Size((*own.shape, 1, 1)) if is_linear else own.shape
