from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from heptapod.grid import GridSpec
from heptapod.tokenizers import (
    FSQConfig,
    LossesConfig,
    PixelConfig,
    PixelTokenizer,
    TrainableTokenizer,
    VAEConfig,
    VQConfig,
    VQTokenizer,
    build_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
)
from heptapod.tokenizers.base import to_float, to_uint8
from heptapod.tokenizers.codebook import Codebook, codebook_usage
from heptapod.tokenizers.networks import SelfAttention
from heptapod.tokenizers.store import build_trainable
from heptapod.tokenizers.trainable import Reconstruction
from heptapod.utils.random import KeyedGenerator, Stream

SMALL = VQConfig(factor=4, codebook_size=8, code_width=4, width=8)


def images_of(count: int = 6, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def pass_through(tokenizer: TrainableTokenizer, images: torch.Tensor) -> Reconstruction:
    return tokenizer(images, KeyedGenerator(Stream.LOSS, [(0, 0, i) for i in range(len(images))]))


def trained_a_little(seed: int = 0) -> VQTokenizer:
    tokenizer = build_tokenizer(SMALL, seed)
    assert isinstance(tokenizer, VQTokenizer)
    output = pass_through(tokenizer, images_of())
    assert output.statistics is not None
    tokenizer.codebook.update(output.statistics, seed, 0)
    return tokenizer.eval()


def make(kind: str, seed: int = 0, **settings: Any) -> TrainableTokenizer:
    """A small tokenizer of a kind, its codebook started."""
    if kind == "fsq":
        return build_trainable(FSQConfig(**{"width": 8, "levels": [5, 4, 3], **settings}), seed).eval()
    if kind == "vae":
        return build_trainable(VAEConfig(**{"width": 8, "latent_channels": 4, **settings}), seed).eval()
    tokenizer = build_trainable(VQConfig(**{"width": 8, "codebook_size": 8, "code_width": 4, **settings}), seed)
    assert isinstance(tokenizer, VQTokenizer)
    output = pass_through(tokenizer, images_of(size=16 * tokenizer.factor))
    assert output.statistics is not None
    tokenizer.codebook.update(output.statistics, seed, 0)
    return tokenizer.eval()


def test_uint8_survives_floats() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(pixels)), pixels)


@pytest.mark.parametrize(("levels", "color"), [(2, False), (17, False), (256, False), (2, True), (6, True)])
def test_pixel_tokenizer_is_lossless_on_its_levels(levels: int, color: bool) -> None:
    tokenizer = PixelTokenizer(PixelConfig(levels=levels, color=color))
    grid = tokenizer.grid(5, 7)
    assert grid == GridSpec(5, 7, levels**3 if color else levels)
    tokens = torch.randint(grid.vocabulary_size, (4, 35), generator=torch.Generator().manual_seed(0))
    images = tokenizer.decode(tokens, grid)
    assert images.shape == (4, 3, 5, 7)
    assert torch.equal(tokenizer.encode(images), tokens)
    assert torch.equal(tokenizer.encode(to_float(to_uint8(images))), tokens), "also through uint8 files"


def test_vq_shapes_and_range() -> None:
    tokenizer = trained_a_little()
    grid = tokenizer.grid(16, 24)
    assert grid == GridSpec(4, 6, 8)
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    tokens = tokenizer.encode(images)
    assert tokens.shape == (2, 24)
    assert tokens.dtype == torch.int64
    decoded = tokenizer.decode(tokens, grid)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1


@pytest.mark.parametrize("kind", ["vq", "fsq", "vae"])
@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_factors(factor: int, kind: str) -> None:
    tokenizer = make(kind, factor=factor, attention=factor == 16, blocks=1 + (factor == 4))
    grid = tokenizer.grid(32, 16)
    assert (grid.height, grid.width) == (32 // factor, 16 // factor)
    images = images_of(2, 32)[..., :16]
    tokens = tokenizer.encode(images)
    assert tokens.shape == (2, *grid.token_shape)
    assert tokens.dtype == (torch.int64 if grid.is_discrete else torch.float32)
    assert tokenizer.decode(tokens, grid).shape == images.shape


def test_attention_is_attention_of_every_cell_to_every_cell() -> None:
    attention = SelfAttention(16)
    x = torch.randn(2, 16, 3, 5, generator=torch.Generator().manual_seed(0))
    q, k, v = attention.qkv(attention.norm(x)).flatten(2).chunk(3, 1)  # (B, C, cells)
    weights = (q.transpose(1, 2) @ k / 4).softmax(-1)  # (B, cells, cells)
    mixed = (v @ weights.transpose(1, 2)).view_as(x)
    assert torch.allclose(attention(x), x + attention.out(mixed), atol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_attention_is_a_setting(attention: bool) -> None:
    tokenizer = make("vae", attention=attention)
    for part in (tokenizer.encoder, tokenizer.decoder):
        assert sum(isinstance(module, SelfAttention) for module in part) == attention


def test_refuses_an_indivisible_size() -> None:
    with pytest.raises(
        ValueError, match=r"image size 30×28 is not divisible by the tokenizer's factor 4; try 28 or 32"
    ):
        build_tokenizer(SMALL).grid(30, 28)


def test_nearest_is_nearest() -> None:
    codebook = Codebook(9, 3, 0.9, 0.05)
    codebook.vectors.copy_(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(codebook.nearest(x), torch.cdist(x, codebook.vectors).argmin(1))


def test_nearest_is_exact_under_autocast() -> None:
    codebook = Codebook(256, 8, 0.9, 0.05)
    codebook.vectors.copy_(torch.randn(256, 8, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codebook.nearest(x), torch.cdist(x, codebook.vectors).argmin(1))


@pytest.mark.parametrize("kind", ["vq", "fsq", "vae"])
@pytest.mark.parametrize("attention", [False, True])
def test_gradient_reaches_every_weight(kind: str, attention: bool) -> None:
    tokenizer = make(kind, attention=attention).train()
    output = pass_through(tokenizer, images_of())
    ((output.images - images_of()).square().mean() + output.penalty.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tokenizer.parameters())


def test_codebook_starts_from_data_and_follows_it() -> None:
    codebook = Codebook(4, 2, decay=0.5, dead_below=0.0)
    centers = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        x = centers.repeat(25, 1) + 0.1 * torch.randn(100, 2, generator=generator)
        codebook.update(codebook.statistics(x, codebook.nearest(x)), 0, step)
        if step == 0:
            codebook.vectors.copy_(centers + 1.0)  # wrong, but each nearest to its own center
    assert (codebook.vectors - centers).abs().max() < 0.1


def test_dead_codes_restart_so_that_the_codebook_does_not_collapse() -> None:
    codebook = Codebook(16, 2, decay=0.9, dead_below=0.05)
    generator = torch.Generator().manual_seed(0)
    codebook.update(
        codebook.statistics(torch.randn(64, 2, generator=generator), torch.zeros(64, dtype=torch.long)), 0, 0
    )
    codebook.vectors[1:] = 100.0  # out of reach of every vector
    restarted = 0
    for step in range(1, 80):
        x = torch.randn(64, 2, generator=generator)
        restarted += int(codebook.update(codebook.statistics(x, codebook.nearest(x)), 0, step))
    assert restarted >= 15
    usage, perplexity = codebook_usage(codebook.nearest(torch.randn(2000, 2, generator=generator)), 16)
    assert usage == 1.0
    assert perplexity > 10


def test_statistics_of_micro_batches_add_up() -> None:
    codebook = Codebook(4, 2, 0.9, 0.05)
    codebook.vectors.copy_(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    whole = codebook.statistics(x, codebook.nearest(x))
    parts = [codebook.statistics(part, codebook.nearest(part)) for part in x.split(10)]
    summed = parts[0] + parts[1] + parts[2] + parts[3]
    assert torch.allclose(whole.counts, summed.counts)
    assert torch.allclose(whole.sums, summed.sums, atol=1e-5)
    assert torch.equal(whole.vectors, summed.vectors)


def test_usage_and_perplexity() -> None:
    assert codebook_usage(torch.tensor([0, 1, 2, 3]), 8) == (0.5, pytest.approx(4.0))
    assert codebook_usage(torch.tensor([3, 3, 3]), 4) == (0.25, pytest.approx(1.0))


@pytest.mark.parametrize("kind", ["vq", "pixel", "fsq", "vae"])
def test_save_and_load(tmp_path: Path, kind: str) -> None:
    tokenizer = build_tokenizer(PixelConfig(levels=5)) if kind == "pixel" else make(kind)
    save_tokenizer(tokenizer, tmp_path / "t")
    loaded = load_tokenizer(tmp_path / "t")
    assert tokenizer_hash(loaded) == tokenizer_hash(tokenizer)
    assert torch.equal(loaded.encode(images_of()), tokenizer.encode(images_of()))


def test_hash_knows_weights_and_settings() -> None:
    hashes = {
        tokenizer_hash(trained_a_little(0)),
        tokenizer_hash(trained_a_little(1)),
        tokenizer_hash(build_tokenizer(PixelConfig(levels=5))),
        tokenizer_hash(build_tokenizer(PixelConfig(levels=6))),
    }
    assert len(hashes) == 4


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no tokenizer there"):
        load_tokenizer(tmp_path)
    save_tokenizer(trained_a_little(), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated or damaged"):
        load_tokenizer(tmp_path)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    del tensors["codebook.vectors"]
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"another architecture: lacks codebook\.vectors"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "something"}')
    with pytest.raises(ValueError, match="not a tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (VQConfig, {"factor": 3}, "factor: 3"),
        (VQConfig, {"codebook_size": 1}, "codebook_size: 1"),
        (VQConfig, {"width": 12}, "width: 12"),
        (FSQConfig, {"levels": [8, 1]}, "levels: 1 given"),
        (FSQConfig, {"levels": []}, r"levels: \[\]"),
        (FSQConfig, {"levels": [64] * 5}, "product may be at most"),
        (VAEConfig, {"patch": 0}, "patch: 0"),
        (VAEConfig, {"kl_weight": -1.0}, "kl_weight: -1.0"),
        (LossesConfig, {"pixel_weight": 0.0}, "pixel_weight: 0"),
        (LossesConfig, {"discriminator_width": 12}, "discriminator_width: 12"),
    ],
)
def test_refusals(config: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_a_grid_is_of_codes_or_of_vectors() -> None:
    assert GridSpec(2, 3, 5).token_shape == (6,)
    assert GridSpec(2, 3, channels=4).token_shape == (6, 4)
    for wrong in ({}, {"vocabulary_size": 2, "channels": 2}):
        with pytest.raises(ValueError, match="one of them must be above 0"):
            GridSpec(2, 3, **wrong)
