"""Training a tokenizer on images, for reconstruction only."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from heptapod.configs.tokenizers import LossesConfig
from heptapod.data.images import ImageSet
from heptapod.data.loader import Batch
from heptapod.evaluation.image_metrics import psnr
from heptapod.evaluation.perceptual import load_lpips
from heptapod.tokenizers import save_tokenizer
from heptapod.tokenizers.base import to_float, to_uint8
from heptapod.tokenizers.codebook import CodebookStatistics, codebook_usage
from heptapod.tokenizers.continuous import ContinuousTokenizer
from heptapod.tokenizers.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from heptapod.tokenizers.losses import adaptive_weight, pixel_loss
from heptapod.tokenizers.store import build_discriminator
from heptapod.tokenizers.trainable import Reconstruction, TrainableTokenizer
from heptapod.tokenizers.vq import VQTokenizer
from heptapod.training.task import LossOutput
from heptapod.utils.images import image_grid
from heptapod.utils.random import KeyedGenerator, Stream

MEASURED_IMAGES = 2048
"""Training images on which the latent statistics of a continuous tokenizer are measured."""
BATCH = 64


class TokenizerTraining(nn.Module):
    """The modules trained together: a tokenizer and, for an adversarial loss, its discriminator."""

    def __init__(self, tokenizer: TrainableTokenizer, discriminator: PatchDiscriminator | None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.discriminator = discriminator

    def compile(self, *args: object, **kwargs: object) -> None:
        """Compiles each child module, because they are called separately."""
        for part in self.children():
            part.compile(*args, **kwargs)


class TokenizerTask:
    """Trains a tokenizer to reconstruct images.

    Args:
        tokenizer: the tokenizer.
        losses: the reconstruction losses.
        train: images to train on.
        validation: held-out images.
        seed: keys the restarts of unused codes.

    Raises:
        ValueError: if the images do not fit the tokenizer or the discriminator, or the LPIPS weights are missing.
    """

    name = "tokenizer"

    def __init__(
        self, tokenizer: TrainableTokenizer, losses: LossesConfig, train: ImageSet, validation: ImageSet, seed: int
    ) -> None:
        tokenizer.grid(*train.size)  # raises an error if the size does not fit
        self.module = TokenizerTraining(tokenizer, build_discriminator(losses, min(train.size), seed))
        self.config = losses
        self.train_items = train
        self.validation = validation
        self.seed = seed
        # Frozen and not part of the module, so it is neither averaged nor saved.
        self.lpips = load_lpips(losses.perceptual_network) if losses.perceptual_weight else None
        if self.lpips is not None and min(train.size) < self.lpips.architecture.smallest_side:
            raise ValueError(
                f"losses.perceptual_weight: {losses.perceptual_weight} given, but images of {train.size[0]}×"
                f"{train.size[1]} pixels are too small for LPIPS ({losses.perceptual_network}: at least "
                f"{self.lpips.architecture.smallest_side})"
            )

    @property
    def averaged(self) -> nn.Module:
        """The tokenizer without its discriminator."""
        return self.module.tokenizer

    @property
    def parts(self) -> list[nn.Module]:
        """Tokenizer and discriminator, whose gradients are independent."""
        return list(self.module.children())

    @property
    def selects_best(self) -> bool:
        """Whether the best weights are selected by validation loss; with an adversarial loss the newest are used."""
        return not self.config.adversarial_weight

    def prepare(self, batch: Batch, step: int) -> Batch:
        """Nothing to draw."""
        return batch

    def losses(self, batch: Batch, step: int) -> LossOutput:
        """Reconstruction loss of a micro-batch and, from ``adversarial_start``, generator and discriminator loss."""
        tokenizer, config = self.module.tokenizer, self.config
        originals = to_float(batch.items).to(tokenizer.last_weight.dtype)
        output: Reconstruction = tokenizer(originals, KeyedGenerator(Stream.LOSS, batch.keys))
        pixel = pixel_loss(config.pixel, output.images, originals)
        loss = config.pixel_weight * pixel
        metrics = {"reconstruction": pixel, **output.metrics}
        if self.lpips is not None:
            perceptual = self.lpips.to(loss.device)(output.images, originals)
            loss = loss + config.perceptual_weight * perceptual
            metrics["perceptual"] = perceptual
        if self.module.discriminator is not None and step >= config.adversarial_start:
            adversarial, adversary, extra = self._adversarial(self.module.discriminator, output.images, originals, loss)
            loss = loss + adversarial + adversary
            metrics |= extra
        return LossOutput(loss + output.penalty, metrics, output.statistics)

    def _adversarial(
        self, discriminator: PatchDiscriminator, images: Tensor, originals: Tensor, loss: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The tokenizer's and the discriminator's loss (B,), each with gradients for one of the two only."""
        discriminator.requires_grad_(False)
        generated = generator_loss(discriminator(images))
        discriminator.requires_grad_(True)
        weight = torch.ones((), device=loss.device)
        if self.config.adaptive_weight:
            weight = adaptive_weight(loss.mean(), generated.mean(), self.module.tokenizer.last_weight)
        discriminated = discriminator_loss(discriminator(originals), discriminator(images.detach()))
        metrics = {
            "generator": generated,
            "discriminator": discriminated,
            "adaptive_weight": weight.expand_as(discriminated),
        }
        return self.config.adversarial_weight * weight * generated, discriminated, metrics

    def after_step(self, statistics: CodebookStatistics | None, step: int) -> dict[str, Tensor]:
        """Updates the codebook, if there is one, with the statistics of all ranks."""
        tokenizer = self.module.tokenizer
        if statistics is None or not isinstance(tokenizer, VQTokenizer):
            return {}
        restarted = tokenizer.codebook.update(statistics.across_ranks(), self.seed, step)
        return {"codes_restarted": restarted, "codebook_perplexity": tokenizer.codebook.perplexity()}

    def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
        """Held-out loss without the adversarial loss (``val_loss``), PSNR in dB, codebook usage and perplexity."""
        tokenizer = _tokenizer(module)
        losses, quality, codes = [], [], []
        for images in _batches(self.validation.images[:max_images], tokenizer):
            tokens = tokenizer.encode(images)
            decoded = tokenizer.decode(tokens, tokenizer.grid(*self.validation.size))
            loss = self.config.pixel_weight * pixel_loss(self.config.pixel, decoded, images)
            if self.lpips is not None:
                loss = loss + self.config.perceptual_weight * self.lpips.to(loss.device)(decoded, images)
            losses.append(loss)
            quality.append(psnr(decoded, images))
            codes.append(tokens)
        figures = {"val_loss": float(torch.cat(losses).mean()), "val_psnr": float(torch.cat(quality).mean())}
        if tokenizer.is_discrete:
            usage, perplexity = codebook_usage(torch.cat(codes), tokenizer.vocabulary_size)
            figures |= {"val_codebook_usage": usage, "val_perplexity": perplexity}
        return figures

    def preview(self, module: nn.Module) -> Image.Image:
        """Held-out images above their reconstructions."""
        tokenizer = _tokenizer(module)
        originals = self.validation.images[:: max(1, len(self.validation) // 16)][:16]
        tokens = tokenizer.encode(to_float(originals).to(tokenizer.last_weight))
        decoded = to_uint8(tokenizer.decode(tokens, tokenizer.grid(*self.validation.size))).cpu()
        return image_grid(torch.cat([originals, decoded]), columns=len(originals))

    def export(self, module: nn.Module, folder: Path, metadata: dict[str, str]) -> None:
        """Writes a folder for ``load_tokenizer``, after measuring the latent statistics of a continuous tokenizer."""
        tokenizer = _tokenizer(module)
        if isinstance(tokenizer, ContinuousTokenizer):
            stride = max(1, len(self.train_items) // MEASURED_IMAGES)
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.measure(_batches(self.train_items.images[::stride][:MEASURED_IMAGES], tokenizer))
        save_tokenizer(tokenizer, folder, metadata)


def _tokenizer(module: nn.Module) -> TrainableTokenizer:
    assert isinstance(module, TrainableTokenizer)
    return module


def _batches(images: Tensor, tokenizer: TrainableTokenizer) -> Iterator[Tensor]:
    for start in range(0, len(images), BATCH):
        yield to_float(images[start : start + BATCH]).to(tokenizer.last_weight)
