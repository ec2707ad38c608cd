"""A convolutional VAE (1312.6114): continuous tokens, kept close to a normal distribution by a small KL term.

Shape legend: B batch, c latent channels, h and w latent positions.
"""

from __future__ import annotations

from torch import Tensor

from heptapod.configs.tokenizers import VAEConfig
from heptapod.tokenizers.base import register_tokenizer
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.networks import build_decoder, build_encoder
from heptapod.tokenizers.trainable import Reconstruction, TrainableTokenizer, at_least_float32
from heptapod.utils.random import KeyedGenerator, to_device

LOG_VARIANCE = (-30.0, 20.0)


@register_tokenizer("vae", VAEConfig)
class VAETokenizer(ContinuousTokenizer, TrainableTokenizer):
    """Convolutional encoder to a diagonal Gaussian, convolutional decoder; tokens are the Gaussian's mean."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__(config.factor, config.latent_channels, config.patch)
        self.config = config
        self.encoder = build_encoder(config, 2 * config.latent_channels)
        self.decoder = build_decoder(config, config.latent_channels)

    def reconstruct(self, images: Tensor, generator: KeyedGenerator) -> Reconstruction:
        """See :meth:`TrainableTokenizer.reconstruct`; decodes a sample of the posterior."""
        mean, log_variance = at_least_float32(self.encoder(images)).chunk(2, 1)
        log_variance = log_variance.clamp(*LOG_VARIANCE)
        noise = to_device(generator.normal(mean[0].numel()).view_as(mean), mean.device).to(mean)
        sample = mean + (log_variance / 2).exp() * noise
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1) / 2
        decoded = at_least_float32(self.decoder(sample))
        return Reconstruction(decoded, self.config.kl_weight * kl, {"kl": kl})

    def encode_latent(self, images: Tensor) -> Tensor:
        """See :meth:`ContinuousTokenizer.encode_latent`."""
        mean: Tensor = self.encoder(images).chunk(2, 1)[0]
        return mean

    def decode_latent(self, latent: Tensor) -> Tensor:
        """See :meth:`ContinuousTokenizer.decode_latent`."""
        decoded: Tensor = self.decoder(latent)
        return decoded
