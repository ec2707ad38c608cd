"""``Heptapod``: a model with its tokenizer, from and to a folder, ready to generate."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from heptapod.grid import MAX_CELLS, TokenOrder
from heptapod.inference.bundle import ModelBundle, padded_batches
from heptapod.inference.pretrained import PretrainedConfig, read_pretrained, write_pretrained
from heptapod.inference.support_warnings import size_warning, support_warnings
from heptapod.inference.trace import shown_steps, trace_picture
from heptapod.likelihood import (
    check_likelihood,
    log_scale,
    negative_log_likelihood,
    tokens_of_images,
    trained_order,
)
from heptapod.sampling import (
    Known,
    SamplingConfig,
    SamplingPlan,
    SamplingStep,
    cells_per_step,
    plan_sampling,
    run_plan,
    run_to_end,
)
from heptapod.tokenizers import save_tokenizer, tokenizer_hash
from heptapod.utils.config import from_dict, to_dict
from heptapod.utils.images import to_pil
from heptapod.utils.logging import Progress
from heptapod.utils.random import image_seeds


class Heptapod(ModelBundle):
    """A trained model with its tokenizer, ready to generate; arguments as for :class:`ModelBundle`."""

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Heptapod:
        """Loads a model from its folder, or the best model of a run folder.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file is damaged, does not fit, or the tokenizer is another than that of training.
        """
        model, tokenizer, config, metadata = read_pretrained(Path(path))
        model, tokenizer = model.to(device), tokenizer.to(device)
        names, order = config.class_names, config.token_order
        return cls(model, tokenizer, names, order, config.sampling, metadata, config.label_dropout)

    def save_pretrained(self, folder: str | os.PathLike[str], tokenizer: str | None = None) -> None:
        """Writes ``config.json``, ``model.safetensors`` and the tokenizer.

        Args:
            folder: where to; made if absent. Each file is whole or absent.
            tokenizer: path of the tokenizer's folder relative to ``folder``, if it is not to be written inside.

        Raises:
            ValueError: for a model whose head is not the one its configuration names: it could not be loaded.
        """
        if not self.model.head_is_configured:
            raise ValueError(
                f"head: {type(self.model.head).__name__} is not the head that config.head describes; register it "
                "(heptapod.register_head) and name it there"
            )
        folder = Path(folder)
        if tokenizer is None:
            save_tokenizer(self.tokenizer, folder / "tokenizer")
        config = PretrainedConfig(
            model=self.model.config,
            grid=self.model.trained_grid,
            class_names=self.class_names,
            token_order=self.token_order,
            sampling=self.sampling,
            tokenizer=tokenizer or "tokenizer",
            tokenizer_sha256=tokenizer_hash(self.tokenizer),
            label_dropout=self.label_dropout,
        )
        write_pretrained(folder, self.model, config, self.metadata)

    def at_size(self, height: int, width: int) -> Heptapod:
        """The same model (weights are shared) for images of another size, by its 2D rotary positions.

        Args:
            height: pixels, a multiple of the tokenizer's factor.
            width: pixels, the same.

        Raises:
            ValueError: for a size that is no multiple of the factor.
        """
        grid = self.tokenizer.grid(height, width)
        if grid.num_cells > MAX_CELLS:
            raise ValueError(f"size: {height}×{width} given, must have at most {MAX_CELLS:,} cells")
        other = self.on_grid(grid.height, grid.width)
        if message := size_warning(other):
            warnings.warn(message, stacklevel=2)
        return other

    def on_grid(self, height: int, width: int) -> Heptapod:
        """The same for a grid of so many rows and columns, without a warning."""
        model = self.model.on_grid(height, width)
        names, order, dropout = self.class_names, self.token_order, self.label_dropout
        return Heptapod(model, self.tokenizer, names, order, self.sampling, self.metadata, dropout)

    def generate(
        self,
        labels: Sequence[int | str] | None = None,
        *,
        count: int | None = None,
        seed: int | Sequence[int] = 0,
        batch_size: int | None = None,
        progress: bool = False,
        **settings: Any,
    ) -> list[Image.Image]:
        """Images of the given classes, without guidance.

        Args:
            labels: one class index or name per image; None generates without a label.
            count: number of images where there are no labels.
            seed: image i takes seed + i; or one seed per image. An image depends on its label, its seed and the
                settings only.
            batch_size: images at a time. If given, every batch is filled up to it, and images are equal bit for bit
                however many are asked for; if not, at most 64 are drawn at once, and a batch's size may show in the
                last bits of its arithmetic.
            progress: show a progress bar.
            **settings: fields of :class:`~heptapod.sampling.SamplingConfig` (steps, temperature, top_k, top_p,
                token_order, schedule, preset, cell_solver, cell_steps, approximate_head); the model's own defaults
                otherwise.

        Raises:
            ValueError: for a label, seed or setting out of range.
        """
        tokens = self.generate_tokens(
            labels, count=count, seed=seed, batch_size=batch_size, progress=progress, **settings
        )
        return [to_pil(image) for image in self.decode(tokens, batch_size)]

    def generate_tokens(
        self,
        labels: Sequence[int | str] | None = None,
        *,
        count: int | None = None,
        seed: int | Sequence[int] = 0,
        batch_size: int | None = None,
        progress: bool = False,
        known: Known | None = None,
        **settings: Any,
    ) -> Tensor:
        """Token grids (M, N) int64 or (M, N, C) float32; ``known`` gives cells to keep, else as :meth:`generate`."""
        indices, plan = self._checked(labels, count, seed, known, settings)
        parts = []
        with Progress(f"sampling {len(indices):,} images", len(indices), shown=progress) as bar:
            for rows, kept in padded_batches(len(indices), batch_size):
                labels_of_batch = torch.tensor([indices[i] for i in rows])
                parts.append(run_to_end(self.model, labels_of_batch, plan.batch(rows))[:kept])
                bar.advance(kept)
        return torch.cat(parts)

    def stream(
        self,
        labels: Sequence[int | str] | None = None,
        *,
        count: int | None = None,
        seed: int | Sequence[int] = 0,
        known: Known | None = None,
        belief: bool | Collection[int] | None = None,
        **settings: Any,
    ) -> Iterator[SamplingStep]:
        """The steps of sampling one batch, as they are made: prefix, sampled cells, belief over the whole grid.

        The images are those of :meth:`generate`; ``heptapod.decode(step.tokens)`` shows what is there of them. The
        tensors are made in inference mode: clone what is to be changed.

        Args:
            labels: as in :meth:`generate`.
            count: as in :meth:`generate`.
            seed: as in :meth:`generate`.
            known: cells to keep.
            belief: at which steps to predict the whole grid; by default at all, if the head can.
            **settings: as in :meth:`generate`.

        Yields:
            Every step, and at the end the finished grid.

        Raises:
            ValueError: for a label, seed or setting out of range, or if a belief is asked of a head that has none.
        """
        belief = self.model.head.reaches_grid if belief is None else belief
        indices, plan = self._checked(labels, count, seed, known, settings, belief)
        return run_plan(self.model, torch.tensor(indices), plan)

    def trace(
        self, label: int | str | None = None, *, seed: int = 0, most: int = 6, **settings: Any
    ) -> list[SamplingStep]:
        """At most ``most`` evenly spaced states of sampling one image, for :mod:`heptapod.inference.trace`."""
        num_steps = len(cells_per_step(self.sampling_config(**settings), self.model.grid.num_cells))
        shown = shown_steps(num_steps, most)
        belief = shown if self.model.head.reaches_grid else False
        steps = self.stream(None if label is None else [label], seed=seed, belief=belief, **settings)
        return [step for step in steps if step.step in shown]

    def belief(self, label: int | str | None, *, seed: int = 0, columns: int = 6, **settings: Any) -> Image.Image:
        """A picture of what the model believes while it samples one image, at evenly spaced steps.

        Raises:
            ValueError: if the head cannot predict the whole grid.
        """
        if not self.model.head.reaches_grid:
            raise ValueError("belief over the whole grid needs a global or cross head; this model's cannot be asked")
        return trace_picture(self, self.trace(label, seed=seed, most=columns, **settings))

    def negative_log_likelihood(
        self,
        images: Tensor,
        labels: Sequence[int | str] | None = None,
        batch_size: int = 32,
        progress: bool = False,
        token_order: TokenOrder | None = None,
    ) -> Tensor:
        """−log p of the tokens of images by the chain rule, in nats per token.

        Exact for codes; for a flow by an ODE, and then of the latents as the tokenizer's network gives them, that is,
        with the Jacobian of their normalization. Where the order is random, or the flow's divergence an estimate (above
        32 numbers per token), an image's place in the batch of all images keys what is drawn for it.

        Args:
            images: (M, 3, h, w) uint8.
            labels: a class index or name per image; None for no label.
            batch_size: images at a time; the result does not depend on it but for rounding.
            progress: show a progress bar.
            token_order: the order to read in; the one(s) of training if left out.

        Returns:
            (M,) float32 on the CPU.

        Raises:
            ValueError: for a diffusion model, which has no likelihood, an order that was not trained, or images of
                another size than the model's.
        """
        check_likelihood(self.model)
        order = trained_order(token_order, self.token_order)
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"labels: {len(labels)} given for {len(images)} images")
        indices = torch.tensor(self.label_indices(labels, None if labels else len(images)))
        tokens = tokens_of_images(self.tokenizer, self.model.grid, images, batch_size, progress)
        nats = negative_log_likelihood(self.model, tokens, indices, order, batch_size, progress=progress)
        return nats + log_scale(self.tokenizer)

    def label_indices(self, labels: Sequence[int | str] | None, count: int | None = None) -> list[int]:
        """Class indices of labels given as indices or names; -1 for each image without a label.

        Raises:
            ValueError: naming a label that is out of range or unknown.
        """
        if labels is None:
            if count is not None and count < 1:
                raise ValueError(f"count: {count} given, must be at least 1")
            return [-1] * (count or 1)
        labels = list(labels)
        if not labels:
            raise ValueError("labels: none given; name at least one class")
        if count is not None and count != len(labels):
            raise ValueError(f"count: {count} given beside {len(labels)} labels; leave one of them out")
        return [self._label_index(label) for label in labels]

    def _label_index(self, label: int | str) -> int:
        names = self.class_names
        if isinstance(label, str):
            if label in names:
                return names.index(label)
            if not re.fullmatch("-?[0-9]+", label):
                raise ValueError(f"label: {label!r} is no class of this model ({_some(names)})")
        index = int(label)
        if not 0 <= index < len(names):
            allowed = f"must be between 0 and {len(names) - 1}" if names else "this model was trained without classes"
            raise ValueError(f"label: {index} given, {allowed}")
        return index

    def sampling_config(self, num_cells: int | None = None, **changes: Any) -> SamplingConfig:
        """The model's sampling defaults with changes; token order, solver and its steps are filled in.

        Args:
            num_cells: cells to fill; all of the grid if left out. The model's own steps are for the trained grid: for
                another number they are at most as many as there are cells.
            **changes: what is asked for now; it goes before what the model was saved with.
        """
        defaults, trained = to_dict(self.sampling), self.model.trained_grid.num_cells
        num_cells = self.model.grid.num_cells if num_cells is None else num_cells
        if "preset" in changes:
            defaults |= {"cell_solver": None, "cell_steps": None}
        if isinstance(changes.get("schedule"), list | tuple):
            defaults["steps"] = None
        elif isinstance(defaults["schedule"], list) and ("steps" in changes or num_cells != trained):
            defaults |= {"steps": len(defaults["schedule"]), "schedule": "cosine"}
        if defaults["steps"] is not None and num_cells != trained:
            defaults["steps"] = max(1, min(defaults["steps"], num_cells))
        config = from_dict(SamplingConfig, {**defaults, **changes}, "sampling")
        return self.model.distribution.plan(config.with_token_order(self.token_order))

    def _checked(
        self,
        labels: Sequence[int | str] | None,
        count: int | None,
        seed: int | Sequence[int],
        known: Known | None,
        settings: dict[str, Any],
        belief: bool | Collection[int] = False,
    ) -> tuple[list[int], SamplingPlan]:
        """Class indices and the sampling plan, all checked; warns of what was not trained."""
        indices = self.label_indices(labels, count)
        seeds = image_seeds(seed, len(indices))
        config = self.sampling_config(None if known is None else int((~known.mask).sum()), **settings)
        plan = plan_sampling(self.model, config, seeds, known, belief)
        for message in support_warnings(self, indices, config, known):
            warnings.warn(message, stacklevel=3)
        return indices, plan


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown}, … {len(names)} in all" if len(names) > 8 else shown or "it has none"
