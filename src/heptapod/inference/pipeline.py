"""``Heptapod``: a model with its tokenizer, from and to a folder, ready to generate."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from PIL import Image
from torch import Tensor

from heptapod.configs.grid import MAX_CELLS, TokenOrder
from heptapod.configs.sampling import Precision
from heptapod.distributed.device import resolve_device
from heptapod.inference.bundle import ModelBundle
from heptapod.inference.images_in import ImagesInput, image_batch
from heptapod.inference.precision import inference_dtype
from heptapod.inference.pretrained import PretrainedConfig, read_pretrained, write_pretrained
from heptapod.inference.request import GenerationRequest, LabelsInput, class_indices
from heptapod.inference.support_warnings import size_warning, support_warnings
from heptapod.inference.trace import shown_steps, trace_picture
from heptapod.likelihood import check_likelihood, log_scale, negative_log_likelihood, trained_order
from heptapod.models import HeptapodModel
from heptapod.sampling import Known, SamplingConfig, SamplingStep, plan_sampling
from heptapod.tokenizers import save_tokenizer, tokenizer_hash
from heptapod.utils.checks import as_list, check_at_least
from heptapod.utils.config import from_dict, to_dict
from heptapod.utils.files import removed_on_failure
from heptapod.utils.images import to_pil
from heptapod.utils.messages import quoted
from heptapod.utils.random import SeedsInput, image_seeds
from heptapod.utils.weights import unwrapped


class Heptapod(ModelBundle):
    """A trained model with its tokenizer, ready to generate; arguments as for :class:`ModelBundle`."""

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | Precision = torch.float32,
    ) -> Heptapod:
        """Loads a model from its folder, or the best model of a run folder.

        Args:
            path: the folder.
            device: where to.
            dtype: precision of the model, as for :meth:`to`; also by name, or ``auto``: bfloat16 on a GPU that has it,
                and on a CPU where a short measurement says that it is faster.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file is damaged, does not fit, or the tokenizer is another than that of training.
        """
        model, tokenizer, config, metadata = read_pretrained(Path(path))
        names, order = config.class_names, config.token_order
        loaded = cls(model, tokenizer, names, order, config.sampling, metadata, config.label_dropout)
        loaded.to(device)
        return loaded.to(inference_dtype(dtype, model))

    def to(self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | None = None) -> Heptapod:
        """Moves it to a device, or its model to another precision, in place.

        The weights of the tokenizer stay in float32, so that its tokens and its hash stay the same; its decoder
        computes in the precision of the model (autocast). In half precision the model still computes logits, latents
        and likelihoods in float32, from weights and states that are rounded.

        Args:
            device: where to; a dtype alone is taken as ``dtype``.
            dtype: float32, bfloat16 or float16.

        Returns:
            Itself.

        Raises:
            ValueError: for another dtype, or a device that is not there.
        """
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype: {quoted(dtype)} given, must be torch.float32, torch.bfloat16 or torch.float16")
        place = None if device is None else resolve_device(str(device))
        self.model.to(device=place, dtype=dtype)
        self.tokenizer.to(device=place)
        return self

    def save_pretrained(self, folder: str | os.PathLike[str], tokenizer: str | None = None) -> None:
        """Writes ``config.json``, ``model.safetensors`` and the tokenizer, without wrappers such as torch.compile's.

        Args:
            folder: where to; made if absent. Each file is whole or absent.
            tokenizer: path of the tokenizer's folder relative to ``folder``, if it is not to be written inside.

        Raises:
            ValueError: for a model whose head is not the one its configuration names: it could not be loaded.
        """
        model = cast(HeptapodModel, unwrapped(self.model))
        if not model.head_is_configured:
            raise ValueError(
                f"head: {type(model.head).__name__} is not the head that config.head describes; register it "
                "(heptapod.register_head) and name it there"
            )
        folder = Path(folder)
        config = PretrainedConfig(
            model=model.config,
            grid=model.trained_grid,
            class_names=self.class_names,
            token_order=self.token_order,
            sampling=self.sampling,
            tokenizer=tokenizer or "tokenizer",
            tokenizer_sha256=tokenizer_hash(self.tokenizer),
            label_dropout=self.label_dropout,
        )
        with removed_on_failure(folder, contents=True):
            if tokenizer is None:
                save_tokenizer(self.tokenizer, folder / "tokenizer")
            write_pretrained(folder, model, config, self.metadata)

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
        """The same for a grid of the given rows and columns, without a warning."""
        model = self.model.on_grid(height, width)
        names, order, dropout = self.class_names, self.token_order, self.label_dropout
        return Heptapod(model, self.tokenizer, names, order, self.sampling, self.metadata, dropout)

    @overload
    def generate(self, labels: LabelsInput | None = None, *, output: Literal["tensor"], **options: Any) -> Tensor: ...

    @overload
    def generate(
        self, labels: LabelsInput | None = None, *, output: Literal["pil"] = "pil", **options: Any
    ) -> list[Image.Image]: ...

    def generate(
        self,
        labels: LabelsInput | None = None,
        *,
        count: int | None = None,
        seed: SeedsInput = 0,
        batch_size: int | None = None,
        progress: bool = False,
        output: Literal["pil", "tensor"] = "pil",
        **settings: Any,
    ) -> list[Image.Image] | Tensor:
        """Generates images of the given classes, without guidance.

        Args:
            labels: one class index or name per image (a list, array or tensor), or one for all images; None generates
                without a label.
            count: number of images where there is not one label for each.
            seed: image i takes seed + i; or one seed per image. An image depends only on its label, its seed and the
                sampling config.
            batch_size: images at a time. If given, the last batch is padded to it, and images are equal bit for bit
                whatever the number of images; if not, at most 64 are sampled at once, and the size of a batch may
                change the last bits of its arithmetic.
            progress: show a progress bar.
            output: pil for a list of PIL images, tensor for one tensor (M, 3, h, w) uint8 on the CPU.
            **settings: fields of :class:`~heptapod.sampling.SamplingConfig` (steps, temperature, top_k, top_p,
                token_order, schedule, preset, cell_solver, cell_steps, approximate_head), and ``known`` (see
                :meth:`request`); the model's own defaults otherwise.

        Raises:
            ValueError: for a label, seed or setting out of range.
        """
        if output not in ("pil", "tensor"):
            raise ValueError(f"output: {output!r} given, must be pil or tensor")
        options = {"count": count, "seed": seed, "batch_size": batch_size, "progress": progress, **settings}
        images = self.decode(self.generate_tokens(labels, **options), batch_size)
        return images if output == "tensor" else [to_pil(image) for image in images]

    def generate_tokens(self, labels: LabelsInput | None = None, *, progress: bool = False, **options: Any) -> Tensor:
        """Token grids (M, N) int64 or (M, N, C) float32; arguments as for :meth:`request`."""
        request = self.request(labels, **options)
        request.warn()
        return request.sample(self.model, progress)

    def stream(
        self,
        labels: LabelsInput | None = None,
        *,
        count: int | None = None,
        seed: SeedsInput = 0,
        known: Known | None = None,
        belief: bool | Collection[int] | None = None,
        **settings: Any,
    ) -> Iterator[SamplingStep]:
        """Samples one batch step by step: prefix, sampled cells, prediction of the whole grid (the belief).

        The images are those of :meth:`generate`; ``heptapod.decode(step.tokens)`` shows the cells sampled so far. The
        tensors are made in inference mode: clone a tensor before changing it.

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
            ValueError: for a label, seed or setting out of range, or for a belief of a head that has none.
        """
        belief = self.model.head.reaches_grid if belief is None else belief
        request = self._request(labels, count, seed, None, known, settings, belief)
        request.warn()
        return request.stream(self.model)

    def request(
        self,
        labels: LabelsInput | None = None,
        *,
        count: int | None = None,
        seed: SeedsInput = 0,
        batch_size: int | None = None,
        known: Known | None = None,
        **settings: Any,
    ) -> GenerationRequest:
        """Checks and plans a request for images, once for all its batches; samples nothing and issues no warning.

        Args:
            labels: as in :meth:`generate`.
            count: as in :meth:`generate`.
            seed: as in :meth:`generate`.
            batch_size: as in :meth:`generate`.
            known: cells to keep, with their tokens.
            **settings: fields of :class:`~heptapod.sampling.SamplingConfig`.

        Raises:
            ValueError: for a label, seed or setting out of range.
        """
        return self._request(labels, count, seed, batch_size, known, settings)

    def _request(
        self,
        labels: LabelsInput | None,
        count: int | None,
        seed: SeedsInput,
        batch_size: int | None,
        known: Known | None,
        settings: dict[str, Any],
        belief: bool | Collection[int] = False,
    ) -> GenerationRequest:
        check_at_least(1, batch_size=batch_size)
        indices = self.label_indices(labels, count)
        config = self.sampling_config(None if known is None else int((~known.mask).sum()), **settings)
        plan = plan_sampling(self.model, config, image_seeds(seed, len(indices)), known, belief)
        return GenerationRequest(indices, plan, batch_size, support_warnings(self, indices, config, known))

    def trace(
        self, label: int | str | None = None, *, seed: int = 0, most: int = 6, **settings: Any
    ) -> list[SamplingStep]:
        """At most ``most`` evenly spaced states of sampling one image, for :mod:`heptapod.inference.trace`."""
        request = self.request(None if label is None else [label], seed=seed, **settings)
        request.warn()
        shown = shown_steps(len(request.plan.counts), most)
        belief = frozenset(shown) if self.model.head.reaches_grid else False
        request = dataclasses.replace(request, plan=dataclasses.replace(request.plan, belief=belief))
        return [step for step in request.stream(self.model) if step.step in shown]

    def belief(self, label: int | str | None, *, seed: int = 0, columns: int = 6, **settings: Any) -> Image.Image:
        """A picture of the model's predictions of the whole grid (its belief) while it samples one image.

        Raises:
            ValueError: if the head cannot predict the whole grid.
        """
        if not self.model.head.reaches_grid:
            raise ValueError(
                "belief over the whole grid needs a cross, global or group head; this model's cannot be asked"
            )
        return trace_picture(self, self.trace(label, seed=seed, most=columns, **settings))

    def negative_log_likelihood(
        self,
        images: ImagesInput,
        labels: LabelsInput | None = None,
        batch_size: int = 32,
        progress: bool = False,
        token_order: TokenOrder | None = None,
    ) -> Tensor:
        """−log p of the tokens of images by the chain rule, in nats per token.

        Exact for codes. For a flow an ODE computes it, for the latents before their normalization (the Jacobian of the
        normalization is included). Where the order is random, or the flow's divergence an estimate (above 32 channels),
        the index of an image keys its random numbers.

        Args:
            images: as for :meth:`encode`.
            labels: a class index or name per image, or one for all; None for no label.
            batch_size: images at a time; the result does not depend on it except for rounding.
            progress: show a progress bar.
            token_order: the order to read in; the order of training if left out.

        Returns:
            (M,) float32 on the CPU.

        Raises:
            ValueError: for a diffusion model, which has no likelihood, an order that was not trained, or images of
                another size than the model's.
        """
        check_likelihood(self.model)
        order = trained_order(token_order, self.token_order)
        pixels = image_batch(images)
        one_for_all = labels is None or as_list(labels)[1]
        indices = torch.tensor(self.label_indices(labels, len(pixels) if one_for_all else None))
        if len(indices) != len(pixels):
            raise ValueError(f"labels: {len(indices)} given for {len(pixels)} images")
        tokens = self.encode(pixels, batch_size, progress)
        nats = negative_log_likelihood(self.model, tokens, indices, order, batch_size, progress=progress)
        return nats + log_scale(self.tokenizer)

    def label_indices(self, labels: LabelsInput | None, count: int | None = None) -> list[int]:
        """Class indices of labels given as indices or names, see :func:`~heptapod.inference.request.class_indices`."""
        return class_indices(labels, self.class_names, count)

    def sampling_config(self, num_cells: int | None = None, **changes: Any) -> SamplingConfig:
        """The model's sampling defaults with changes; token order, solver and its steps are filled in.

        Args:
            num_cells: cells to fill; all of the grid if left out. The model's default steps are meant for the trained
                grid: for another number of cells they are limited to it.
            **changes: fields of the config that replace the model's defaults.
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
