"""Records: a JSON object next to a picture, from which the same picture is made again, pixel for pixel.

Shape legend: M images, N cells, k known cells, C channels.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from heptapod.grid import GridSpec
from heptapod.inference.images_in import WHITE
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.precision import dtype_name
from heptapod.inference.pretrained import find_pretrained, model_sha256
from heptapod.inference.request import named_classes
from heptapod.sampling import Known, SamplingConfig
from heptapod.utils.checks import BatchSize
from heptapod.utils.config import from_dict, settings, to_dict
from heptapod.utils.files import read_json
from heptapod.utils.images import to_pil


@settings
class KnownCells:
    """Known cells and their tokens."""

    cells: list[int]
    """Row · columns + column of each."""
    values: list[int] | str
    """A code for each; or continuous tokens: base64 of little-endian float32, C channels for each."""
    in_order: bool = False
    """Whether they are read in this order, as in an image whose sampling is resumed; else in the token order."""


@settings
class Composite:
    """The pixels of the original image, put back wherever nothing is repainted."""

    image: str
    """PNG, base64."""
    mask: str
    """PNG of the same size, base64: white where repainted."""


@settings
class Record:
    """Everything that determines images, except the weights."""

    model: str
    """Folder of the model."""
    labels: list[int]
    """Class index of each image, -1 without a label."""
    seeds: list[int]
    """One for each image."""
    sampling: dict[str, Any]
    """All settings of :class:`~heptapod.sampling.SamplingConfig`."""
    image_size: tuple[int, int]
    """Height and width in pixels."""
    batch_size: BatchSize | None = None
    """Images sampled together; None: all of them."""
    compiled: bool = False
    """Whether the model was compiled."""
    model_sha256: str | None = None
    """Hash of the model's weights file."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model."""
    known: KnownCells | None = None
    """Kept cells."""
    composite: Composite | None = None
    """Pixels put back."""

    def __post_init__(self) -> None:
        if not self.seeds or len(self.labels) != len(self.seeds):
            raise ValueError(f"seeds: {len(self.seeds)} given together with {len(self.labels)} labels")
        if min(self.labels) < 0 and set(self.labels) != {-1}:
            raise ValueError(f"labels: {self.labels} given, must be all -1 (no label) or all classes")


def read_record(path: Path) -> Record:
    """Reads a record that ``heptapod sample``, ``heptapod edit`` or the studio wrote next to a picture.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no record.
    """
    if not path.is_file():
        raise FileNotFoundError(f"from: {path} does not exist")
    values = read_json(path)
    names = {field.name for field in dataclasses.fields(Record)}
    if missing := [name for name in ("labels", "seeds", "sampling", "image_size") if name not in values]:
        raise ValueError(f"from: {path} has no {missing[0]}; it is not a record that heptapod wrote")
    return from_dict(Record, {name: value for name, value in values.items() if name in names}, f"from: {path}")


def reproduce(heptapod: Heptapod, record: Record, progress: bool = False) -> Tensor:
    """Makes the images of a record again.

    Args:
        heptapod: the model it names, see :func:`check_weights`.
        record: from :func:`read_record`.
        progress: show a progress bar.

    Returns:
        (M, 3, h, w) uint8 on the CPU: the same pixels on the same kind of machine with the same versions.

    Raises:
        ValueError: if it does not fit the model.
    """
    if tuple(record.image_size) != heptapod.image_size:
        heptapod = heptapod.at_size(*record.image_size)
    if record.compiled:
        heptapod.model.compile_blocks()
    count = len(record.seeds)
    sampling = to_dict(from_dict(SamplingConfig, record.sampling, "from: sampling"))
    labels = record.labels if min(record.labels) >= 0 else None
    known = None if record.known is None else known_cells(record.known, heptapod.model.grid, count)
    original = None if record.composite is None else read_composite(record.composite, heptapod.image_size)
    options = {"count": count, "seed": record.seeds, "batch_size": record.batch_size, "known": known, **sampling}
    tokens = heptapod.generate_tokens(labels, progress=progress, **options)
    images = heptapod.decode(tokens, record.batch_size)
    return images if original is None else composited(images, *original)


def model_fields(path: Path) -> dict[str, Any]:
    """The fields of a record that name the model of a folder."""
    return {"model": str(find_pretrained(path)), "model_sha256": model_sha256(path)}


def record_fields(
    heptapod: Heptapod, labels: list[int], seeds: list[int], config: SamplingConfig, batch_size: int | None
) -> dict[str, Any]:
    """The fields of a record that say how images were sampled, JSON-safe.

    Args:
        heptapod: the model, on the grid of the images.
        labels: class index of each image, -1 without a label.
        seeds: one per image.
        config: the sampling config, with all defaults filled in.
        batch_size: images sampled together; None for all of them.
    """
    return {
        "labels": labels,
        "classes": named_classes(labels, heptapod.class_names),
        "seeds": seeds,
        "sampling": to_dict(config),
        "image_size": list(heptapod.image_size),
        "guidance": None,
        "batch_size": batch_size,
        "device": str(heptapod.model.device),
        "precision": dtype_name(heptapod.model.dtype),
    }


def check_weights(path: Path, record: Record) -> None:
    """Checks that a model has the weights that the record names.

    Raises:
        ValueError: naming the model.
    """
    if record.model_sha256 is not None and model_sha256(path) != record.model_sha256:
        raise ValueError(f"from: its images were made with other weights than those of {path}")


# --- tokens and pixels as JSON ---


def to_values(tokens: Tensor) -> list[int] | str:
    """Tokens (k,) int64 as a list, (k, C) float32 as base64 of little-endian float32."""
    if not tokens.is_floating_point():
        return [int(code) for code in tokens.tolist()]
    return base64.b64encode(tokens.cpu().numpy().astype("<f4").tobytes()).decode("ascii")


def from_values(values: Sequence[int] | str, count: int, grid: GridSpec) -> Tensor:
    """Tokens (count,) int64 or (count, C) float32 of a grid's kind.

    Raises:
        ValueError: for values of another kind, number or range.
    """
    if isinstance(values, str) == grid.is_discrete:
        expected = "a list of codes" if grid.is_discrete else "base64 of float32"
        raise ValueError(f"values: {'text' if isinstance(values, str) else 'a list'} given, must be {expected}")
    if isinstance(values, str):
        try:
            channels = np.frombuffer(base64.b64decode(values, validate=True), "<f4")
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"values: not base64 of float32 ({error})") from None
        if len(channels) != count * grid.channels:
            raise ValueError(f"values: {len(channels)} numbers given, must be {count} × {grid.channels}")
        if not np.isfinite(channels).all():
            raise ValueError("values: some are not finite")
        return torch.from_numpy(channels.astype(np.float32)).view(count, grid.channels)
    if len(values) != count:
        raise ValueError(f"values: {len(values)} given for {count} cells")
    if wrong := [code for code in values if not 0 <= code < grid.vocabulary_size]:
        raise ValueError(f"values: {wrong[0]} given, must be between 0 and {grid.vocabulary_size - 1}")
    return torch.tensor(values, dtype=torch.int64)


def check_cells(cells: Sequence[int], grid: GridSpec) -> None:
    """Checks that cells are on a grid and none is named twice.

    Raises:
        ValueError: naming the cell.
    """
    if wrong := [cell for cell in cells if not 0 <= cell < grid.num_cells]:
        raise ValueError(f"cells: {wrong[0]} given, must be between 0 and {grid.num_cells - 1}")
    if len(set(cells)) != len(cells):
        raise ValueError("cells: one is named twice")


def known_cells(known: KnownCells, grid: GridSpec, count: int) -> Known | None:
    """The same known cells for ``count`` images; None if there are none.

    Raises:
        ValueError: for cells or values that are not of this grid.
    """
    check_cells(known.cells, grid)
    values, cells = from_values(known.values, len(known.cells), grid), torch.tensor(known.cells, dtype=torch.int64)
    tokens, mask = grid.empty_tokens(1)[0], torch.zeros(grid.num_cells, dtype=torch.bool)
    tokens[cells], mask[cells] = values, True
    order = cells if known.in_order else None
    return Known(tokens.expand(count, *tokens.shape), mask, order) if known.cells else None


def known_of(tokens: Tensor, mask: Tensor) -> KnownCells:
    """The tokens of an image, (N,) or (N, C), where a mask (N,) is True, for a record."""
    return KnownCells(mask.nonzero().flatten().tolist(), to_values(tokens[mask]))


def png_base64(picture: Image.Image | Tensor) -> str:
    """A picture, or an image (3, h, w) uint8, as a PNG file in base64."""
    file = io.BytesIO()
    (to_pil(picture) if isinstance(picture, Tensor) else picture).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def composite_of(image: Tensor, mask: Tensor) -> Composite:
    """An image (3, h, w) uint8 and the pixels (h, w) bool that are repainted, for a record."""
    return Composite(png_base64(image), png_base64(Image.fromarray(mask.cpu().numpy())))


def read_composite(composite: Composite, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The image (3, h, w) uint8 and the mask (h, w) bool.

    Raises:
        ValueError: if one is no PNG file, or not of the image's size.
    """
    image = torch.from_numpy(np.array(_read_png("composite.image", composite.image, size).convert("RGB")))
    mask = torch.from_numpy(np.array(_read_png("composite.mask", composite.mask, size).convert("L")))
    return image.permute(2, 0, 1).contiguous(), mask >= WHITE


def composited(images: Tensor, original: Tensor, mask: Tensor) -> Tensor:
    """Images (M, 3, h, w) with the pixels of an original (3, h, w) wherever a mask (h, w) is False."""
    return torch.where(mask, images, original)


def _read_png(name: str, text: str, size: tuple[int, int]) -> Image.Image:
    height, width = size
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",))
        if picture.size == (width, height):  # read before it is decoded
            picture.load()
    except Exception as error:  # decoders raise whatever they like
        raise ValueError(f"{name}: not base64 of a PNG file ({error})") from None
    if picture.size != (width, height):
        raise ValueError(
            f"{name}: {picture.height}×{picture.width} pixels given, must be {height}×{width}, the image's size"
        )
    return picture
