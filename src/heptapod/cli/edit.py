"""``heptapod edit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageOps
from torch import Tensor

from heptapod.cli.sampling_options import ModelFolder, SamplingOptions, number_pair
from heptapod.data.images import decode_one, to_rgb
from heptapod.distributed.device import resolve_device
from heptapod.inference.editing import Edit, outpaint, vary
from heptapod.inference.editing import edit as inpaint
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.pretrained import find_pretrained, model_sha256
from heptapod.inference.record import WHITE, composite_of, known_of
from heptapod.utils.arguments import parse_function
from heptapod.utils.config import to_dict
from heptapod.utils.files import write_json
from heptapod.utils.images import hatched, image_grid, save_png, to_pil


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
    keep_cells: int | None = None,
    labels: tuple[str, ...] = (),
    count: int = 4,
    seed: int = 0,
    composite: bool = False,
    resize: bool = False,
    batch_size: int | None = None,
    device: str = "auto",
    out: str = "edited.png",
) -> None:
    """Repaints a part of an image, continues it beyond its borders, or varies it, and keeps the rest as it is.

    Give one of mask, canvas and keep_cells. Every cell (of as many pixels as the tokenizer makes one token of) that is
    not repainted keeps its token bit for bit. Writes a picture, the original with the part to repaint hatched and then
    the results, a row for each class, and a JSON file beside it that says how it was made and what changed.

    Args:
        model: Folder of a model, or of a run (its best weights are taken).
        image: The image file to edit.
        sampling: How cells are drawn.
        mask: In-painting: an image file of the same size, white where to repaint. A cell is repainted as a whole if any
            pixel of it is white.
        canvas: Out-painting: HEIGHTxWIDTH in pixels of a larger canvas, whose part outside the image is painted.
        at: Where the image lies on the canvas: TOP,LEFT in pixels; in the middle if left out.
        keep_cells: Variations: keep this many cells from the upper left, row by row, and repaint the rest.
        labels: Classes by index or name, a row each: another class than the image's changes what is repainted. Without
            a label if left out, which needs a model without classes or trained with label dropout.
        count: Results per class.
        seed: Result i is drawn with seed + i.
        composite: Put the image's own pixels back wherever nothing is to be repainted. Otherwise they come from their
            tokens, as the tokenizer shows them.
        resize: First resize the image to the model's size and crop the center, and the mask with it.
        batch_size: Results at a time; if given, batches are filled up to it and results equal bit for bit.
        device: auto, cpu, cuda, ...
        out: A .png file for one picture, or a folder for one file per result besides.
    """
    place = _place(mask, canvas, at, keep_cells)
    if count < 1:
        raise ValueError(f"count: {count} given, must be at least 1")
    picture, one_each = _files(out, count * max(1, len(labels)), {"image": image, "mask": mask})
    pixels = _read("image", image)
    repaint = None if mask is None else _read_mask(mask, image, pixels)
    heptapod = Heptapod.from_pretrained(model, resolve_device(device))
    pixels, repaint = _sized(heptapod, image, pixels, repaint, resize)

    started = time.perf_counter()
    options: dict[str, Any] = {"count": count, "seed": seed, "composite": composite, "batch_size": batch_size}
    options |= {"labels": labels or None, "progress": True, **sampling.given()}
    if repaint is not None:
        result = inpaint(heptapod, pixels, repaint, **options)
    elif keep_cells is not None:
        result = vary(heptapod, pixels, keep_cells, **options)
    else:
        result = outpaint(heptapod, pixels, *place, **options)
    seconds = time.perf_counter() - started

    save_png(_picture(result, count, heptapod.class_names if labels else []), picture)
    for edited, file in zip(result.images, one_each, strict=False):
        save_png(to_pil(edited), file)
    record = {
        "model": str(find_pretrained(Path(model))),
        "model_sha256": model_sha256(Path(model)),
        "image": image,
        "mask": mask,
        "keep_cells": keep_cells,
        "resize": resize,
        **_facts(result, is_canvas=canvas is not None),
        "image_size": list(result.mask.shape),
        "known": to_dict(known_of(result.original_tokens, result.kept)),
        "composite": to_dict(composite_of(result.original, result.mask)) if composite else None,
        "seeds": [seed + i for i in range(len(result.labels))],
        "guidance": None,
        "batch_size": batch_size,
        "device": str(heptapod.model.token_embedding.weight.device),
        "seconds": seconds,
    }
    write_json(picture.with_suffix(".json"), record)
    print(
        f"{len(result.images)} images in {seconds:.1f} s, {record['kept_cells']} of {record['cells']} cells kept: "
        f"{picture}, {picture.with_suffix('.json')}"
    )


def _facts(result: Edit, is_canvas: bool) -> dict[str, Any]:
    """What was done and what came of it, for the record."""
    return {
        "canvas": list(result.mask.shape) if is_canvas else None,
        "at": (~result.mask).nonzero()[0].tolist() if is_canvas else None,
        "cells": len(result.kept),
        "kept_cells": int(result.kept.sum()),
        "kept_cells_identical": result.kept_cells_identical,
        "largest_pixel_difference_outside_mask": result.largest_difference_outside_mask,
        "labels": result.labels,
        "sampling": to_dict(result.sampling),
    }


def _place(
    mask: str | None, canvas: str | None, at: str | None, keep_cells: int | None
) -> tuple[int, int, tuple[int, int] | None]:
    """Height and width of the canvas (0 without one) and the image's place on it; refuses none or several tasks."""
    tasks = {"mask": mask, "canvas": canvas, "keep_cells": keep_cells}
    given = [name for name, value in tasks.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"{', '.join(tasks)}: {' and '.join(given) or 'none'} given, must be exactly one of them")
    if at is not None and canvas is None:
        raise ValueError(f"at: {at} given, but it is the place on a canvas, and none is given")
    if canvas is None:
        return 0, 0, None
    height, width = number_pair("canvas", canvas, "x", "HEIGHTxWIDTH")
    return height, width, None if at is None else number_pair("at", at, ",", "TOP,LEFT")


def _files(out: str, total: int, sources: dict[str, str | None]) -> tuple[Path, list[Path]]:
    """The picture, and for a folder a file per result; refuses to write over what is read."""
    target = Path(out)
    if target.suffix not in ("", ".png"):
        raise ValueError(f"out: {out} given, pictures are written as .png")
    picture = target if target.suffix else target / "edited.png"
    one_each = [] if target.suffix else [target / f"{number:05d}.png" for number in range(total)]
    written = {file.resolve() for file in (picture, *one_each)}
    for name, source in sources.items():
        if source is not None and Path(source).resolve() in written:
            raise ValueError(f"out: {out} given, but that would write over the {name} {source}")
    return picture, one_each


def _read(name: str, path: str) -> Tensor:
    """The image in a file, (3, h, w) uint8."""
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"{name}: {path} does not exist")
    pixels = decode_one(file.read_bytes, lambda image: to_rgb(image, 0))
    if isinstance(pixels, str):
        raise ValueError(f"{name}: {path} cannot be read: {pixels}")
    return torch.from_numpy(pixels)


def _read_mask(path: str, image: str, pixels: Tensor) -> Tensor:
    """(h, w) bool: where a mask is white."""
    gray = torch.from_numpy(np.array(to_pil(_read("mask", path)).convert("L")))
    if gray.shape != pixels.shape[1:]:
        raise ValueError(
            f"mask: {path} is {gray.shape[0]}×{gray.shape[1]} pixels (height×width), must be of the size of {image}, "
            f"{pixels.shape[1]}×{pixels.shape[2]}"
        )
    return gray >= WHITE


def _sized(
    heptapod: Heptapod, name: str, pixels: Tensor, repaint: Tensor | None, resize: bool
) -> tuple[Tensor, Tensor | None]:
    """Image and mask as they are, or resized and cropped to the model's size; refuses a size that has no grid."""
    factor, grid = heptapod.tokenizer.factor, heptapod.model.trained_grid
    (height, width), (own_height, own_width) = pixels.shape[1:], (grid.height * factor, grid.width * factor)
    if not resize:
        if height % factor or width % factor:
            raise ValueError(
                f"image: {name} is {height}×{width} pixels (height×width), but both sides must be multiples of "
                f"{factor} (the tokenizer's factor): crop it, or give --resize to bring it to the model's "
                f"{own_height}×{own_width}"
            )
        return pixels, repaint
    size = own_width, own_height
    fitted = ImageOps.fit(to_pil(pixels), size, Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1).contiguous()
    if repaint is not None:
        shown = Image.fromarray(repaint.numpy().astype(np.uint8))
        repaint = torch.from_numpy(np.array(ImageOps.fit(shown, size, Image.Resampling.NEAREST))) > 0
    return pixels, repaint


def _picture(result: Edit, count: int, class_names: list[str]) -> Image.Image:
    """A row per label: the original with what was to be repainted hatched, then the results."""
    first = hatched(result.original, result.mask)[None]
    rows = [part for images in result.images.split(count) for part in (first, images)]
    names = [class_names[label] for label in result.labels[::count]] if class_names else None
    return image_grid(torch.cat(rows), count + 1, names)
