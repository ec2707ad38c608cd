"""``heptapod sample --from``: the images of a record once more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heptapod.cli.output_files import OutputFiles


def reproduce_file(source: str, model: str | None, device: str, files: OutputFiles) -> None:
    """Makes the images of a record again.

    Args:
        source: the JSON file.
        model: folder of the model; the record's model if left out.
        device: auto, cpu, cuda, ...
        files: where to write.

    Raises:
        FileNotFoundError: if there is no such record or model.
        ValueError: if it is not a record, or made by another model.
    """
    from heptapod.distributed import process_group
    from heptapod.distributed.device import resolve_device
    from heptapod.inference.pipeline import Heptapod
    from heptapod.inference.record import check_weights, read_record, reproduce
    from heptapod.utils.images import samples_picture, save_png

    process_group.require_single_process("sample --from")
    record = read_record(Path(source))
    folder = model or record.model
    heptapod = Heptapod.from_pretrained(folder, resolve_device(device), record.precision)
    check_weights(Path(folder), record)
    started = time.perf_counter()
    images = reproduce(heptapod, record, progress=True)
    save_png(samples_picture(images, record.labels, heptapod.class_names), files.picture)
    files.save_each(enumerate(images))
    print(f"{len(images)} images of {source} in {time.perf_counter() - started:.1f} s: {files.picture}")
