"""Whole models that are small: tokens and pixels, untrained."""

from __future__ import annotations

import torch

from heptapod import Heptapod
from heptapod.distributions import DistributionConfig
from heptapod.grid import GridSpec
from heptapod.models import HeadConfig, ModelConfig
from heptapod.models.heptapod import build_model
from heptapod.tokenizers import VAEConfig, VQConfig
from heptapod.tokenizers.store import build_trainable
from tests.conftest import randomized

CODES = GridSpec(4, 5, 16)
VECTORS = GridSpec(4, 5, channels=3)


def small_model(grid: GridSpec, seed: int = 0) -> Heptapod:
    """16×20 pixels, 4×5 tokens, three classes; trained in both orders, as far as it knows."""
    if grid.is_discrete:
        tokenizer = build_trainable(VQConfig(width=8, codebook_size=16, code_width=4), 0)
        vectors = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
        tokenizer.codebook.vectors.copy_(vectors)  # type: ignore[union-attr, operator]
        cells = DistributionConfig("categorical")
    else:
        tokenizer = build_trainable(VAEConfig(width=8, latent_channels=3), 0)
        cells = DistributionConfig("flow", mlp_depth=2, mlp_width=24)
    config = ModelConfig(width=32, depth=2, num_heads=2, head=HeadConfig("cross", 2), distribution=cells)
    model = randomized(build_model(config, grid, 3, seed), seed)
    return Heptapod(model, tokenizer.eval(), ["cat", "dog", "owl"], "mixed", label_dropout=0.1)
