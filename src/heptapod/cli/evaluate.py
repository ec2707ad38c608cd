"""``heptapod evaluate``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from heptapod import __version__
from heptapod.cli.sampling_options import OptionalModelFolder, SamplingOptions
from heptapod.configs.data import SplitName
from heptapod.configs.evaluation import SUFFIX, LabelPolicy, Metric
from heptapod.configs.sampling import DEFAULT_BATCH, Precision
from heptapod.utils.checks import BatchSize, Count, Seed, Side, check_at_least

if TYPE_CHECKING:
    from heptapod.evaluation.samples import ModelSamples
    from heptapod.evaluation.streams import ImageStream

SAMPLES = 5000
COLUMNS = 8


def evaluate(arguments: list[str]) -> None:
    """Parses arguments and evaluates generated images."""
    from heptapod.cli.distributed_command import run_distributed

    run_distributed(evaluate_generation, "evaluate", arguments)


def evaluate_generation(
    sampling: tyro.conf.OmitArgPrefixes[SamplingOptions],
    reference: str,
    split: SplitName | None = None,
    model: tyro.conf.Positional[OptionalModelFolder] = None,
    samples: str | None = None,
    count: Count | None = None,
    label_policy: LabelPolicy | None = None,
    labels: tuple[str, ...] = (),
    metrics: tuple[Metric, ...] = (),
    image_size: Side | None = None,
    inception: str | None = None,
    npz: str | None = None,
    seed: Seed = 0,
    batch_size: BatchSize = DEFAULT_BATCH,
    device: str = "auto",
    precision: Precision = "auto",
    out: str = "evaluation",
) -> None:
    """Measures how good generated images are, against real ones.

    Samples a model, without guidance, or reads existing samples. Fréchet and kernel distance, precision, recall,
    density and coverage, and a classifier's score, in features of EfficientNet-Lite0 (works offline; they are not FID,
    KID and IS, and not comparable to published figures) or, given its weights, of Inception (FID, KID and inception
    score). Writes evaluation.json and samples.png. Several processes (torchrun) share the work; the results are those
    of one process.

    Args:
        sampling: Sampling config.
        reference: A file that heptapod reference wrote, or its input: a folder of images, parquet file(s), .tar shards,
            mnist5k, a token cache, an .npz file.
        split: The split of the reference's images, if it is made now and they have several; train if left out.
        model: Folder of a model, or of a run (its best weights are used).
        samples: Instead of a model: samples of an .npz file or a folder of images.
        count: Number of samples, 5000 by default; of existing samples all, or this number chosen at random.
        label_policy: Classes of the samples: balanced (the default: each equally often), random, reference (as often as
            in the reference), none (no label).
        labels: Instead of a policy: these classes in turn, by name, or by index where no name is a number.
        metrics: frechet, kernel, score, precision_recall, density_coverage; each must be measurable. By default all
            that the number of samples allows.
        image_size: Side of the reference's images, if it is made now; the model's if left out, 0 keeps them.
        inception: torch-fidelity's Inception weights, the file or download to fetch it once, for FID and KID.
        npz: Also write the samples to this file, in ADM's layout; give it as --samples to evaluate them again.
        seed: Image i has the seed SEED + i. It also keys the blocks of the kernel distance and the splits of the score.
        batch_size: Images at a time; batches are padded to it, so that an image does not depend on their number.
        device: auto, cpu, cuda, ...
        precision: Precision of the model: float32, bfloat16, float16, or auto: bfloat16 on a GPU, and on a CPU
            where it is measured to be faster.
        out: Folder to write.
    """
    import torch

    from heptapod.cli.distributed_command import warn_if_ranks_idle
    from heptapod.distributed import process_group
    from heptapod.distributed.collectives import main_process_first
    from heptapod.distributed.device import resolve_device
    from heptapod.evaluation.features import open_extractor
    from heptapod.evaluation.generation_report import evaluate_samples
    from heptapod.evaluation.samples import ModelSamples
    from heptapod.evaluation.streams import open_images
    from heptapod.inference.pipeline import Heptapod
    from heptapod.utils.files import check_folder, write_json
    from heptapod.utils.images import image_grid, save_png

    options = sampling.given()
    _check(model, samples, npz, batch_size, seed)
    check_folder(Path(out))
    if npz is not None:
        check_folder(Path(npz).parent, "npz")
    if image_size is not None and Path(reference).suffix == SUFFIX:
        raise ValueError(f"image_size: {image_size} given, but {reference} is made already")
    if split is not None and Path(reference).suffix == SUFFIX:
        raise ValueError(f"split: {split} given, but {reference} is made already")
    if samples is not None and (options or labels or label_policy or precision != "auto"):
        named = next(iter(options), "labels" if labels else "label_policy" if label_policy else "precision")
        raise ValueError(f"{named}: given together with --samples, which are sampled already")
    started = time.perf_counter()
    place = resolve_device(device)
    evaluated: ModelSamples | ImageStream
    if model is not None:
        heptapod = Heptapod.from_pretrained(model, place, precision)
        total = SAMPLES if count is None else count
        evaluated = ModelSamples(heptapod, Path(model), total, label_policy, labels, seed, batch_size, options)
    else:
        evaluated = open_images(samples or "", "samples", 0, count, seed, place)
    extractor = main_process_first(lambda: open_extractor(inception, place))
    warn_if_ranks_idle(evaluated.count, batch_size)
    report = evaluate_samples(
        evaluated, reference, extractor, image_size=image_size, batch_size=batch_size, metrics=metrics or None,
        seed=seed, npz=None if npz is None else Path(npz), split=split,
    )  # fmt: skip
    if report is None:
        return
    figures: dict[str, Any] = {
        **report.figures,
        "versions": {"heptapod": __version__, "torch": torch.__version__},
        "device": str(extractor.device),
        "processes": process_group.world_size(),
        "seconds": time.perf_counter() - started,
    }
    write_json(Path(out) / "evaluation.json", figures)
    save_png(image_grid(report.first_images, COLUMNS), Path(out) / "samples.png")
    print(json.dumps({name: figures[name] for name in ("metrics", "left_out")}, indent=2))
    print(f"{Path(out) / 'evaluation.json'}, {Path(out) / 'samples.png'}")


def _check(model: str | None, samples: str | None, npz: str | None, batch_size: int, seed: int) -> None:
    """Raises ValueError for arguments that do not go together."""
    if (model is None) == (samples is None):
        raise ValueError("model: give either the folder of a model or --samples")
    if npz is not None and Path(npz).suffix != ".npz":
        raise ValueError(f"npz: {npz} given, must end in .npz")
    if npz is not None and samples is not None:
        raise ValueError(f"npz: {npz} given together with --samples, which are in a file already")
    check_at_least(1, batch_size=batch_size)
    check_at_least(0, seed=seed)
