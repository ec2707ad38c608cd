"""``heptapod edit``."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from heptapod.cli.sampling_options import ModelFolder, SamplingOptions, number_pair
from heptapod.configs.grid import MAX_CELLS
from heptapod.configs.sampling import Precision
from heptapod.utils.arguments import parse_function
from heptapod.utils.checks import BatchSize, Count, Seed, check_at_least

if TYPE_CHECKING:
    from torch import Tensor

    from heptapod.inference.pipeline import Heptapod

logger = logging.getLogger(__name__)


def edit(arguments: list[str]) -> None:
    """Parses arguments and edits an image."""
    parse_function(edit_file, "edit", arguments)()


def edit_file(
    model: tyro.conf.Positional[ModelFolder],
    image: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="IMAGE")]],
    sampling: tyro.conf.OmitArgPrefixes[SamplingOptions],
    mask: str | None = None,
    canvas: str | None = None,
    at: str | None = None,
    keep_cells: Annotated[int, Field(ge=0, le=MAX_CELLS)] | None = None,
    labels: tuple[str, ...] = (),
    count: Count = 4,
    seed: Seed = 0,
    composite: bool = False,
    resize: bool = False,
    batch_size: BatchSize | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    out: str = "edited.png",
) -> None:
    """Repaints a part of an image, continues it beyond its borders, or varies it, and keeps the rest as it is.

    Give one of mask, canvas and keep_cells. Every cell (the pixels of one token) that is not repainted keeps its token
    bit for bit. Writes a picture with a row for each class, the original with the part to repaint hatched and then the
    results, and next to it a JSON record of how it was made and what changed.

    Args:
        model: Folder of a model, or of a run (its best weights are used).
        image: The image file to edit.
        sampling: Sampling config.
        mask: In-painting: an image file of the same size, white where to repaint. A cell is repainted as a whole if any
            pixel of it is white.
        canvas: Out-painting: HEIGHTxWIDTH in pixels of a larger canvas, whose part outside the image is painted.
        at: Position of the image on the canvas: TOP,LEFT in pixels; in the middle if left out.
        keep_cells: Variations: keep this many cells from the upper left, row by row, and repaint the rest.
        labels: Classes by name, or by index where no name is a number, a row each: the repainted part gets this class.
            Without a label if left out, which needs a model without classes or trained with label dropout.
        count: Results per class.
        seed: Result i has the seed SEED + i.
        composite: Put the pixels of the image back wherever nothing is repainted. Otherwise they are decoded from
            their tokens.
        resize: First resize the image to the model's size and crop the center, and the mask with it.
        batch_size: Results at a time; if given, batches are padded to it and results equal bit for bit.
        device: auto, cpu, cuda, ...
        precision: Precision of the model: float32, bfloat16, float16, or auto: bfloat16 on a GPU, and on a CPU
            where it is measured to be faster.
        out: A .png file for one picture, or a folder for the picture and one file per result.
    """
    from heptapod.cli.output_files import output_files
    from heptapod.distributed.device import resolve_device
    from heptapod.inference.editing import edit as inpaint
    from heptapod.inference.editing import outpaint, vary
    from heptapod.inference.images_in import read_image
    from heptapod.inference.pipeline import Heptapod
    from heptapod.inference.record import model_fields
    from heptapod.inference.request import numeric_names_note
    from heptapod.utils.files import write_json
    from heptapod.utils.images import save_png

    canvas_size, position = _canvas(mask, canvas, at, keep_cells)
    check_at_least(1, count=count)
    files = output_files(out, "edited.png")
    for name, source in (("image", image), ("mask", mask)):
        if source is not None and files.includes(Path(source), count * max(1, len(labels))):
            raise ValueError(f"out: {out} given, but that would write over the {name} {source}")
    pixels = read_image(image)
    repainted = None if mask is None else _read_mask(mask, image, pixels)
    heptapod = Heptapod.from_pretrained(model, resolve_device(device), precision)
    pixels, repainted = _fitted(heptapod, image, pixels, repainted, resize)

    started = time.perf_counter()
    options: dict[str, Any] = {"count": count, "seed": seed, "composite": composite, "batch_size": batch_size}
    options |= {"labels": labels or None, "progress": True, **sampling.given()}
    if repainted is not None:
        result = inpaint(heptapod, pixels, repainted, **options)
    elif keep_cells is not None:
        result = vary(heptapod, pixels, keep_cells, **options)
    else:
        result = outpaint(heptapod, pixels, *canvas_size, at=position, **options)
    seconds = time.perf_counter() - started

    save_png(result.picture(heptapod.class_names if labels else []), files.picture)
    files.save_each(enumerate(result.images))
    record = {
        **model_fields(Path(model)),
        "image": image,
        "mask": mask,
        "keep_cells": keep_cells,
        "resize": resize,
        "canvas": list(result.mask.shape) if canvas is not None else None,
        "at": (~result.mask).nonzero()[0].tolist() if canvas is not None else None,
        **result.record(heptapod, composite, batch_size),
        "seconds": seconds,
    }
    write_json(files.record, record)
    if note := numeric_names_note(result.labels, heptapod.class_names):
        logger.info(f"labels: {note}")
    print(
        f"{len(result.images)} images in {seconds:.1f} s, {record['kept_cells']} of {record['cells']} cells kept: "
        f"{files.picture}, {files.record}"
    )


def _canvas(
    mask: str | None, canvas: str | None, at: str | None, keep_cells: int | None
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Size of the canvas (0, 0 without one) and the image's position on it; checks that exactly one task is given."""
    tasks = {"mask": mask, "canvas": canvas, "keep_cells": keep_cells}
    given = [name for name, value in tasks.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"{', '.join(tasks)}: {' and '.join(given) or 'none'} given, must be exactly one of them")
    if at is not None and canvas is None:
        raise ValueError(f"at: {at} given, but it is the place on a canvas, and none is given")
    if canvas is None:
        return (0, 0), None
    position = None if at is None else number_pair("at", at, ",", "TOP,LEFT")
    return number_pair("canvas", canvas, "x", "HEIGHTxWIDTH"), position


def _read_mask(path: str, image: str, pixels: Tensor) -> Tensor:
    """(h, w) bool: where a mask is white."""
    from heptapod.inference.images_in import mask_tensor, read_image
    from heptapod.utils.images import to_pil

    mask = read_image(path, "mask")
    if mask.shape != pixels.shape:
        raise ValueError(
            f"mask: {path} is {mask.shape[1]}×{mask.shape[2]} pixels (height×width), must be of the size of {image}, "
            f"{pixels.shape[1]}×{pixels.shape[2]}"
        )
    return mask_tensor(to_pil(mask), pixels.shape[1:])


def _fitted(
    heptapod: Heptapod, name: str, pixels: Tensor, mask: Tensor | None, resize: bool
) -> tuple[Tensor, Tensor | None]:
    """Image and mask as they are, or resized and cropped to the trained size; raises ValueError without a grid."""
    from PIL import Image, ImageOps

    from heptapod.inference.images_in import image_tensor, mask_tensor
    from heptapod.utils.images import to_pil

    factor, (height, width) = heptapod.tokenizer.factor, heptapod.trained_image_size
    if not resize:
        if pixels.shape[1] % factor or pixels.shape[2] % factor:
            raise ValueError(
                f"image: {name} is {pixels.shape[1]}×{pixels.shape[2]} pixels (height×width), but both sides must be "
                f"multiples of {factor} (the tokenizer's factor): crop it, or give --resize to bring it to the model's "
                f"{height}×{width}"
            )
        return pixels, mask
    fitted = image_tensor(ImageOps.fit(to_pil(pixels), (width, height), Image.Resampling.BICUBIC))
    if mask is None:
        return fitted, None
    return fitted, mask_tensor(
        ImageOps.fit(Image.fromarray(mask.numpy()), (width, height), Image.Resampling.NEAREST), (height, width)
    )
