"""The computations of the studio, without HTTP: images state by state, one cell, the tokens of an upload.

A request is checked when it arrives (``plan_generation``, ``check_request``), and computed when its job runs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from heptapod.inference.cell_query import ask_cell, cell_surroundings, check_question
from heptapod.inference.images_in import image_tensor
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.record import (
    Composite,
    KnownCells,
    composite_of,
    composited,
    from_values,
    known_cells,
    png_base64,
    read_composite,
    record_fields,
    to_values,
)
from heptapod.inference.request import GenerationRequest
from heptapod.inference.support_warnings import size_warning
from heptapod.inference.trace import shown_steps
from heptapod.sampling import SamplingConfig, SamplingStep
from heptapod.studio import schemas
from heptapod.tokenizers.encode import decode_pixels, encode_pixels
from heptapod.utils.config import to_dict

DECODE_BATCH = 4
"""Images decoded between two checks whether the client is still connected."""
UNSET_BY_NULL = ("steps", "top_k", "top_p")


@dataclass(frozen=True)
class Generation:
    """A checked request for images."""

    request: schemas.GenerateRequest
    grid: tuple[int, int]
    """Rows and columns."""
    generation: GenerationRequest
    """Labels, seeds and the sampling plan."""
    original: tuple[Tensor, Tensor] | None
    """An image and a mask: where the mask is not set, the results keep the pixels of the image."""
    frames: frozenset[int]
    """States with a picture."""
    support_warnings: list[str]

    def started(self, heptapod: Heptapod) -> schemas.Started:
        """The event before the first step."""
        return schemas.Started(
            grid=self.grid,
            factor=heptapod.tokenizer.factor,
            label=self.generation.labels[0] if self.generation.labels[0] >= 0 else None,
            seeds=self.generation.plan.seeds,
            known=self.request.known.cells if self.request.known else [],
            steps=self.generation.plan.counts,
            sampling=self.generation.plan.config,
            uncertainty_name=heptapod.model.distribution.uncertainty_name,
            warnings=self.support_warnings,
        )


def sized(heptapod: Heptapod, size: tuple[int, int] | None, images: int, limits: schemas.Limits) -> Heptapod:
    """The model on the grid of an image size (height, width), checked for a number of images.

    Raises:
        ValueError: if the size is above a limit or not a multiple of the factor.
    """
    if size is not None:
        height, width = size
        if max(size) > limits.side:
            raise ValueError(f"size: {height}×{width} given, this server allows sides of at most {limits.side} pixels")
        grid = heptapod.tokenizer.grid(height, width)
        heptapod = heptapod.on_grid(grid.height, grid.width)
    cells = heptapod.model.grid.num_cells
    if images * cells > limits.cells:
        raise ValueError(
            f"size: {images} images of {cells:,} cells requested, this server allows {limits.cells:,} cells at once"
        )
    return heptapod


def given_settings(sampling: schemas.Shape) -> dict[str, Any]:
    """The sampling settings that were given; null unsets a default of the model where it may be unset."""
    given = sampling.model_dump(exclude_unset=True)
    return {name: value for name, value in given.items() if value is not None or name in UNSET_BY_NULL}


def plan_generation(heptapod: Heptapod, request: schemas.GenerateRequest, limits: schemas.Limits) -> Generation:
    """Checks a request for images.

    Raises:
        ValueError: naming the setting that is not supported or above a limit.
    """
    if request.count > limits.count:
        raise ValueError(f"count: {request.count} given, this server allows at most {limits.count}")
    count = request.count
    heptapod = sized(heptapod, request.size, count, limits)
    grid = heptapod.model.grid
    known = None
    if request.known is not None:
        known = known_cells(KnownCells(**request.known.model_dump()), grid, count)
    generation = heptapod.request(
        None if request.label is None else [request.label] * count,
        count=count,
        seed=request.seed,
        known=known,
        **given_settings(request.sampling),
    )
    steps = len(generation.plan.counts)
    if steps > limits.steps:
        raise ValueError(f"steps: {steps} given or needed, this server allows at most {limits.steps}")
    _check_cell_steps(generation.plan.config, limits)
    original = None
    if request.composite is not None:
        original = read_composite(Composite(**request.composite.model_dump()), heptapod.image_size)
    warnings = [message for message in [size_warning(heptapod)] if message] + generation.support_warnings
    frames = frozenset(shown_steps(steps, request.frames))
    if heptapod.model.head.reaches_grid:
        generation = dataclasses.replace(generation, plan=dataclasses.replace(generation.plan, belief=frames))
    return Generation(request, (grid.height, grid.width), generation, original, frames, warnings)


def states(heptapod: Heptapod, plan: Generation, facts: dict[str, Any]) -> Iterator[schemas.StepEvent | schemas.Done]:
    """Generates images: every state, then the finished images.

    Args:
        heptapod: the model that the request names, on a device.
        plan: the checked request.
        facts: the model in the records of the images (model, model_sha256).
    """
    began = time.perf_counter()
    heptapod = heptapod.on_grid(*plan.grid)
    images = None
    for step in plan.generation.stream(heptapod.model):
        images = None
        if step.step in plan.frames:
            images = heptapod.decode(step.tokens if step.believed is None else step.believed)
        yield schemas.StepEvent(step=step.step, images=_image_states(step, images))
    assert images is not None  # the last state is always among the frames
    if plan.original is not None:
        images = composited(images, *plan.original)
    yield schemas.Done(
        images=[
            schemas.FinishedImage(seed=seed, picture=png_base64(image), record=_record(heptapod, plan, seed, facts))
            for seed, image in zip(plan.generation.plan.seeds, images, strict=True)
        ],
        seconds=time.perf_counter() - began,
    )


def _image_states(step: SamplingStep, images: Tensor | None) -> list[schemas.ImageState]:
    return [
        schemas.ImageState(
            cells=step.cells[row].tolist(),
            values=to_values(step.values[row]),
            picture=None if images is None else png_base64(images[row]),
            uncertainty=None if step.uncertainty is None else [round(u, 4) for u in step.uncertainty[row].tolist()],
        )
        for row in range(len(step.cells))
    ]


def _record(heptapod: Heptapod, plan: Generation, seed: int, facts: dict[str, Any]) -> dict[str, Any]:
    """The record that generates one of the images again."""
    known, generation = plan.request.known, plan.generation
    return {
        **facts,
        **record_fields(heptapod, generation.labels[:1], [seed], generation.plan.config, len(generation)),
        "known": known.model_dump() if known and known.cells else None,
        "composite": plan.original and to_dict(composite_of(*plan.original)),
    }


def _check_cell_steps(config: SamplingConfig, limits: schemas.Limits) -> None:
    if config.cell_steps is not None and config.cell_steps > limits.cell_steps:
        raise ValueError(f"cell_steps: {config.cell_steps} given, this server allows at most {limits.cell_steps}")


def check_request(heptapod: Heptapod, request: schemas.CellRequest, limits: schemas.Limits) -> None:
    """Checks a request for the prediction of a cell.

    Raises:
        ValueError: naming the setting that is not supported or above a limit.
    """
    heptapod = sized(heptapod, request.size, 1 + request.top, limits)
    grid = heptapod.model.grid
    check_question(request.cell, request.known.cells, grid)
    from_values(request.known.values, len(request.known.cells), grid)
    heptapod.label_indices(None if request.label is None else [request.label])
    _check_cell_steps(heptapod.sampling_config(**given_settings(request.sampling)), limits)


def answer(
    heptapod: Heptapod, request: schemas.CellRequest, limits: schemas.Limits
) -> Iterator[schemas.CellAnswer | None]:
    """The prediction of a cell; None between parts of the work."""
    heptapod = sized(heptapod, request.size, 1 + request.top, limits)
    known, grid = request.known, heptapod.model.grid
    values = from_values(known.values, len(known.cells), grid)
    cell = ask_cell(
        heptapod, request.cell, request.label, known.cells, values,
        top=request.top, seed=request.seed, **given_settings(request.sampling),
    )  # fmt: skip
    rows, columns, offset = cell_surroundings(heptapod, request.cell)
    probabilities = [None] * len(cell.values) if cell.probabilities is None else cell.probabilities.tolist()
    pictures = []
    for tokens in cell.tokens.split(DECODE_BATCH):
        yield None
        pictures += [png_base64(image) for image in heptapod.decode(tokens)[:, :, rows, columns]]
    yield schemas.CellAnswer(
        cell=request.cell,
        candidates=[
            schemas.Candidate(values=to_values(value[None]), probability=probability, picture=picture)
            for value, probability, picture in zip(cell.values, probabilities, pictures, strict=True)
        ],
        rest=cell.rest,
        uncertainty=cell.uncertainty,
        uncertainty_name=heptapod.model.distribution.uncertainty_name,
        mean=None if cell.mean is None else cell.mean.tolist(),
        spread=None if cell.spread is None else cell.spread.tolist(),
        offset=offset,
        factor=heptapod.tokenizer.factor,
    )


@torch.inference_mode()
def encode(heptapod: Heptapod, picture: Image.Image, converted: list[str]) -> schemas.Encoded:
    """A fitted upload as tokens and as its reconstruction."""
    image, tokenizer = image_tensor(np.array(picture)), heptapod.tokenizer
    grid = tokenizer.grid(picture.height, picture.width)
    tokens = encode_pixels(tokenizer, image[None])
    reconstruction = decode_pixels(tokenizer, tokens, grid)[0]
    return schemas.Encoded(
        size=(picture.height, picture.width),
        grid=(grid.height, grid.width),
        picture=png_base64(image),
        reconstruction=png_base64(reconstruction),
        values=to_values(tokens[0]),
        converted=converted,
    )
