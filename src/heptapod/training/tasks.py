"""The two things that are trained: a tokenizer on images, a model on tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from heptapod.data.images import ImageSet
from heptapod.data.loader import Batch
from heptapod.data.tokens import TokenSet
from heptapod.evaluation.likelihood import negative_log_likelihood
from heptapod.models.heptapod import HeptapodModel
from heptapod.objective import ObjectiveConfig, draw_supervision, drop_labels, objective_loss
from heptapod.pictures import image_grid
from heptapod.random import KeyedGenerator, Stream
from heptapod.tokenizers import VQTokenizer, save_tokenizer
from heptapod.tokenizers.base import to_float, to_uint8
from heptapod.tokenizers.codebook import CodebookStatistics
from heptapod.tokenizers.vq import VQOutput, codebook_usage
from heptapod.training.task import LossOutput


class TokenizerTask:
    """Trains a VQ tokenizer to reconstruct images.

    Args:
        module: the tokenizer.
        train: images to train on.
        validation: held-out images.
        seed: keys the restarts of unused codes.
    """

    name = "tokenizer"

    def __init__(self, module: VQTokenizer, train: ImageSet, validation: ImageSet, seed: int) -> None:
        self.module = module
        self.train_items = train
        self.validation = validation
        self.seed = seed
        module.grid(*train.size)  # refuses a size that does not fit

    def step(self, batch: Batch) -> LossOutput:
        """Reconstruction and commitment loss of a micro-batch."""
        output: VQOutput = self.module(to_float(batch.items))
        return LossOutput(output.loss, {"reconstruction": output.reconstruction_loss}, output.statistics)

    def after_step(self, statistics: CodebookStatistics, step: int) -> dict[str, Tensor]:
        """Moves the codebook."""
        return {"codes_restarted": self.module.codebook.update(statistics, self.seed, step)}

    def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
        """Held-out squared error (``val_loss``), PSNR in dB, codebook usage and perplexity."""
        assert isinstance(module, VQTokenizer)
        errors, codes = [], []
        for start in range(0, min(max_images, len(self.validation)), 128):
            images = to_float(self.validation.images[start : min(start + 128, max_images)]).to(module.device)
            tokens = module.encode(images)
            decoded = module.decode(tokens, module.grid(*self.validation.size))
            errors.append((decoded - images).square().flatten(1).mean(1))
            codes.append(tokens)
        error = torch.cat(errors)
        usage, perplexity = codebook_usage(torch.cat(codes), module.vocabulary_size)
        psnr = float((10 * torch.log10(4 / error.clamp(min=1e-10))).mean())
        return {
            "val_loss": float(error.mean()),
            "val_psnr": psnr,
            "val_codebook_usage": usage,
            "val_perplexity": perplexity,
        }

    def preview(self, module: nn.Module) -> Image.Image:
        """Held-out images over their reconstructions."""
        assert isinstance(module, VQTokenizer)
        originals = self.validation.images[:: max(1, len(self.validation) // 16)][:16]
        tokens = module.encode(to_float(originals).to(module.device))
        decoded = to_uint8(module.decode(tokens, module.grid(*self.validation.size))).cpu()
        return image_grid(torch.cat([originals, decoded]), columns=len(originals))

    def export(self, module: nn.Module, folder: Path, metadata: dict[str, str]) -> None:
        """Writes a folder that ``load_tokenizer`` reads."""
        assert isinstance(module, VQTokenizer)
        save_tokenizer(module, folder, metadata)


class ModelTask:
    """Trains a Heptapod model on tokens.

    Args:
        module: the model.
        train: tokens to train on.
        validation: held-out tokens.
        objective: token order and supervision density.
        preview: draws a picture of samples.
        export: writes the weights for use.
    """

    name = "model"

    def __init__(
        self,
        module: HeptapodModel,
        train: TokenSet,
        validation: TokenSet,
        objective: ObjectiveConfig,
        preview: Callable[[HeptapodModel], Image.Image],
        export: Callable[[HeptapodModel, Path, dict[str, str]], None],
    ) -> None:
        self.module = module
        self.train_items = train
        self.validation = validation
        self.objective = objective
        self._preview = preview
        self._export = export

    def step(self, batch: Batch) -> LossOutput:
        """The objective's loss of a micro-batch."""
        device = batch.items.device
        grid = self.module.grid
        supervision = draw_supervision(self.objective, grid.height, grid.width, batch.keys, self.module.head.window).to(
            device
        )
        labels = drop_labels(batch.labels, self.objective.label_dropout, batch.keys)
        generator = KeyedGenerator(Stream.LOSS, batch.keys)
        return LossOutput(objective_loss(self.module, batch.items, labels, supervision, generator))

    def after_step(self, statistics: Any, step: int) -> dict[str, Tensor]:
        """Nothing to do."""
        return {}

    def evaluate(self, module: nn.Module, max_images: int) -> dict[str, float]:
        """Held-out negative log-likelihood per token in nats (``val_loss``), by the chain rule."""
        assert isinstance(module, HeptapodModel)
        tokens: Tensor = self.validation.views[0][:max_images].long()
        labels = self.validation.labels[:max_images]
        nll = float(negative_log_likelihood(module, tokens, labels, self.objective.token_order).mean())
        bits = nll * module.grid.num_cells / math.log(2)
        return {"val_loss": nll, "val_nats_per_token": nll, "val_bits_per_image": bits}

    def preview(self, module: nn.Module) -> Image.Image:
        """Samples of the model."""
        assert isinstance(module, HeptapodModel)
        return self._preview(module)

    def export(self, module: nn.Module, folder: Path, metadata: dict[str, str]) -> None:
        """Writes a folder that ``Heptapod.from_pretrained`` reads."""
        assert isinstance(module, HeptapodModel)
        self._export(module, folder, metadata)
