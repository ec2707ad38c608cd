"""``heptapod reference``."""

from __future__ import annotations

from pathlib import Path

import tyro

from heptapod.configs.data import SplitName
from heptapod.configs.evaluation import FEATURES_KEPT, SUFFIX
from heptapod.utils.checks import BatchSize, Count, Seed, Side


def reference(arguments: list[str]) -> None:
    """Parses arguments and makes reference statistics."""
    from heptapod.cli.distributed_command import run_distributed

    run_distributed(make, "reference", arguments)


def make(
    data: tyro.conf.Positional[str],
    out: str,
    split: SplitName | None = None,
    image_size: Side = 0,
    count: Count | None = None,
    features_kept: Count = FEATURES_KEPT,
    inception: str | None = None,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    device: str = "auto",
) -> None:
    """Measures a set of real images once, for heptapod evaluate to compare samples with.

    For a token cache the reconstructions of its tokenizer are measured. A reference batch of ADM (.npz) may contain
    images, Inception's moments, or both. Several processes (torchrun) share the work; the results are those of one.

    Args:
        data: A folder of images, parquet file(s), .tar shards, mnist5k, a token cache, or an .npz file.
        out: File to write, ending in .safetensors.
        split: The split of the data, if it has several; train if left out.
        image_size: Side after resizing and cropping; 0 keeps the images as they are.
        count: Number of images, chosen at random; all if left out.
        features_kept: Largest number of images, chosen at random, whose features are kept: the kernel distance,
            precision, recall, density and coverage need them. The moments are always those of all images.
        inception: torch-fidelity's Inception weights, the file or download to fetch it once, for FID and KID;
            without them EfficientNet-Lite0 is used, which works offline.
        batch_size: Images at a time.
        seed: Keys the choice of images.
        device: auto, cpu, cuda, ...
    """
    from heptapod.distributed import process_group
    from heptapod.distributed.collectives import main_process_first
    from heptapod.distributed.device import resolve_device
    from heptapod.evaluation.features import open_extractor
    from heptapod.evaluation.reference import make_reference
    from heptapod.utils.files import check_folder

    target = Path(out)
    if target.suffix != SUFFIX:
        raise ValueError(f"out: {out} given, references are written as {SUFFIX}")
    check_folder(target.parent)
    place = resolve_device(device)
    extractor = main_process_first(lambda: open_extractor(inception, place))
    made = make_reference(data, extractor, image_size, count, features_kept, seed, batch_size, shared=True, split=split)
    if not process_group.is_main_process():
        return
    made.save(target)
    images = "moments" if made.count is None else f"{made.count:,} images"
    print(f"{target}: {images}, {len(made.features):,} features of {extractor.name}, sha256 {made.sha256()[:12]}…")
