"""``heptapod sample --from``: the images of a record once more."""

from __future__ import annotations

import time
from pathlib import Path

from heptapod.distributed import process_group
from heptapod.distributed.device import resolve_device
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.record import check_weights, read_record, reproduce
from heptapod.utils.images import samples_picture, save_png, to_pil


def reproduce_file(source: str, model: str | None, device: str, picture: Path, one_each: Path | None) -> None:
    """Makes the images of a record again.

    Args:
        source: the JSON file.
        model: folder of the model; that which the record names if left out.
        device: auto, cpu, cuda, ...
        picture: where to write: the image itself, or a picture of several.
        one_each: a folder for one file per image besides.

    Raises:
        FileNotFoundError: if there is no such record or model.
        ValueError: if it is no record, or made by another model.
    """
    process_group.require_single_process("sample --from")
    record = read_record(Path(source))
    folder = model or record.model
    heptapod = Heptapod.from_pretrained(folder, resolve_device(device))
    check_weights(Path(folder), record)
    started = time.perf_counter()
    images = reproduce(heptapod, record, progress=True)
    save_png(samples_picture(images, record.labels, heptapod.class_names), picture)
    if one_each is not None:
        for number, image in enumerate(images):
            save_png(to_pil(image), one_each / f"{number:05d}.png")
    print(f"{len(images)} images of {source} in {time.perf_counter() - started:.1f} s: {picture}")
