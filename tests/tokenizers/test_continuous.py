from __future__ import annotations

import pytest
import torch
from torch import Tensor

from heptapod.tokenizers import ContinuousTokenizer, VAEConfig, VAETokenizer
from heptapod.tokenizers.store import build_trainable
from heptapod.utils.random import KeyedGenerator, Stream


class Linear(ContinuousTokenizer):
    """Latents that are the pixels of 2×2 blocks, scaled and shifted: lossless, statistics known."""

    scale = torch.tensor([3.0, 0.5, 10.0]).view(3, 1, 1)
    shift = torch.tensor([1.0, -2.0, 0.0]).view(3, 1, 1)

    def encode_latent(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift

    def decode_latent(self, latent: Tensor) -> Tensor:
        return (latent - self.shift) / self.scale


def images_of(count: int = 8, size: int = 8) -> Tensor:
    return (torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)) / 4).clamp(-1, 1)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_tokens_are_normalised_and_decode_to_the_images(patch: int) -> None:
    tokenizer = Linear(1, 3, patch)
    images = images_of()
    tokenizer.measure(images.split(3))
    grid = tokenizer.grid(8, 8)
    assert (grid.height, grid.channels) == (8 // patch, 3 * patch**2)
    tokens = tokenizer.encode(images)
    assert tokens.shape == (8, *grid.token_shape)
    by_channel = tokens.unflatten(2, (3, patch**2)).transpose(1, 2).flatten(2).transpose(0, 1).flatten(1)  # (3, …)
    assert torch.allclose(by_channel.mean(1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(by_channel.std(1, unbiased=False), torch.ones(3), atol=1e-5)
    assert torch.allclose(tokenizer.decode(tokens, grid), images, atol=1e-5)


def test_a_patch_is_one_cell_in_raster_order() -> None:
    tokenizer = Linear(1, 3, 2)
    images = torch.zeros(1, 3, 4, 4)
    images[0, :, 2:, :2] = 1.0  # the lower left 2×2 block: cell 2
    changed = (tokenizer.encode(images) != tokenizer.encode(torch.zeros_like(images))).any(2)[0]
    assert changed.tolist() == [False, False, True, False]


def test_statistics_do_not_depend_on_batches() -> None:
    one, other = Linear(1, 3), Linear(1, 3)
    images = images_of(12)
    one.measure([images])
    other.measure(images.split(5))
    assert torch.allclose(one.latent_std, other.latent_std, rtol=1e-6)
    assert bool(one.measured)


def test_measuring_refuses_what_cannot_be_normalized() -> None:
    tokenizer = Linear(1, 3)
    with pytest.raises(ValueError, match="no images"):
        tokenizer.measure([])
    constant = images_of()
    constant[:, 1] = 0.5
    with pytest.raises(ValueError, match="channel 1 is constant"):
        tokenizer.measure([constant])
    assert not bool(tokenizer.measured)
    assert torch.equal(tokenizer.latent_std, torch.ones(3)), "nothing is changed"


def vae() -> VAETokenizer:
    tokenizer = build_trainable(VAEConfig(width=8, latent_channels=4), 0)
    assert isinstance(tokenizer, VAETokenizer)
    return tokenizer


def keys(count: int, seed: int = 0) -> KeyedGenerator:
    return KeyedGenerator(Stream.LOSS, [(seed, 0, i) for i in range(count)])


def test_vae_kl_is_that_of_a_diagonal_gaussian() -> None:
    tokenizer, images = vae(), images_of(5, 16)
    output = tokenizer(images, keys(5))
    mean, log_variance = tokenizer.encoder(images).chunk(2, 1)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).flatten(1).mean(1)
    assert torch.allclose(output.metrics["kl"], kl, rtol=1e-4)
    assert torch.allclose(output.penalty, 1e-5 * kl, rtol=1e-4)


def test_vae_noise_belongs_to_the_image() -> None:
    tokenizer, images = vae(), images_of(4, 16)
    whole = tokenizer(images, keys(4)).images
    assert torch.equal(tokenizer(images, keys(4)).images, whole)
    assert not torch.equal(tokenizer(images, keys(4, seed=1)).images, whole)
    assert torch.allclose(
        tokenizer(images[2:], KeyedGenerator(Stream.LOSS, [(0, 0, 2), (0, 0, 3)])).images, whole[2:], atol=1e-5
    )


def test_vae_tokens_are_the_mean_of_the_posterior() -> None:
    tokenizer, images = vae(), images_of(4, 16)
    assert torch.equal(tokenizer.encode(images), tokenizer.encode(images))
    latent = tokenizer.encoder(images)[:, :4]
    assert torch.allclose(tokenizer.encode(images), latent.flatten(2).transpose(1, 2), atol=1e-6)


def test_log_scale_is_the_log_determinant_of_the_normalization() -> None:
    """With patches of 2×2 positions and unequal channels: log|det| of token -> latent, by autograd."""
    tokenizer = build_trainable(VAEConfig(width=8, latent_channels=2, patch=2), 0)
    assert isinstance(tokenizer, VAETokenizer)
    tokenizer.latent_std.copy_(torch.tensor([0.5, 3.0]))
    tokenizer.decode_latent = lambda latent: latent / 100  # type: ignore[method-assign]
    grid = tokenizer.grid(8, 8)

    def latent_of(token: Tensor) -> Tensor:
        return tokenizer.decode(token.view(1, 1, 8), grid).flatten()

    jacobian = torch.func.jacrev(latent_of)(torch.randn(8, generator=torch.Generator().manual_seed(0))) * 100
    assert abs(float(torch.linalg.slogdet(jacobian).logabsdet) - tokenizer.log_scale) < 1e-5
    assert abs(tokenizer.log_scale - 4 * float(torch.tensor([0.5, 3.0]).log().sum())) < 1e-6
