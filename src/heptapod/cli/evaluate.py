"""``heptapod evaluate``."""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from heptapod import __version__
from heptapod.cli.distributed_command import run_distributed, warn_if_ranks_idle
from heptapod.cli.reference import open_extractor
from heptapod.cli.sampling_options import OptionalModelFolder, SamplingOptions
from heptapod.distributed import process_group
from heptapod.distributed.collectives import main_process_first
from heptapod.distributed.device import resolve_device
from heptapod.evaluation.collect import See, collect_shared
from heptapod.evaluation.generation import Metric, measure, plan_metrics
from heptapod.evaluation.labels import LabelPolicy
from heptapod.evaluation.reference import SUFFIX, open_reference
from heptapod.evaluation.samples import ModelSamples
from heptapod.evaluation.streams import npz_writer, open_images
from heptapod.inference.bundle import DEFAULT_BATCH
from heptapod.inference.pipeline import Heptapod
from heptapod.utils.files import check_folder, write_json
from heptapod.utils.images import image_grid, save_png

SAMPLES = 5000
SHOWN = 64
COLUMNS = 8


def evaluate(arguments: list[str]) -> None:
    """Parses arguments and evaluates generated images."""
    run_distributed(evaluate_generation, "evaluate", arguments)


def evaluate_generation(
    sampling: tyro.conf.OmitArgPrefixes[SamplingOptions],
    reference: str,
    model: tyro.conf.Positional[OptionalModelFolder] = None,
    samples: str | None = None,
    count: int | None = None,
    label_policy: LabelPolicy | None = None,
    labels: tuple[str, ...] = (),
    metrics: tuple[Metric, ...] = (),
    image_size: int | None = None,
    inception: str | None = None,
    npz: str | None = None,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
    device: str = "auto",
    out: str = "evaluation",
) -> None:
    """Measures how good generated images are, against real ones.

    Samples a model, without guidance, or takes samples that are there already. Fréchet and kernel distance, precision,
    recall, density and coverage, and a classifier's score, in features of EfficientNet-Lite0 (works offline; they are
    not FID, KID and IS, and compare with no published number) or, where you give its weights, of Inception (FID, KID
    and inception score). Writes evaluation.json and samples.png. Several processes (torchrun) share the work, and find
    what one would.

    Args:
        sampling: How cells are drawn.
        reference: A file that heptapod reference wrote, or what it takes: a folder of images, parquet file(s), .tar
            shards, mnist5k, a token cache, an .npz file.
        model: Folder of a model, or of a run (its best weights are taken).
        samples: Instead of a model: samples of an .npz file or a folder of images.
        count: How many samples, 5000 by default; of samples that are there all, or so many drawn at random.
        label_policy: Classes of the samples: balanced (the default: each equally often), random, reference (as often as
            there), none (no label).
        labels: Instead of a policy: these classes in turn, by index or name.
        metrics: frechet, kernel, score, precision_recall, density_coverage; what is named must be measurable. By
            default all that the number of samples allows.
        image_size: Side of the reference's images, where it is made now; the model's if left out, 0 keeps them.
        inception: torch-fidelity's Inception weights, the file or download to fetch it once, for FID and KID.
        npz: Also write the samples to this file, in ADM's layout; give it as --samples to evaluate them again.
        seed: Image i is drawn with seed + i. It also keys the blocks of the kernel distance and the splits of the
            score.
        batch_size: Images at a time; batches are filled up to it, so that an image does not depend on how many there
            are.
        device: auto, cpu, cuda, ...
        out: Folder to write.
    """
    options = sampling.given()
    _check(model, samples, npz, batch_size, seed)
    check_folder(Path(out))
    if npz is not None:
        check_folder(Path(npz).parent, "npz")
    if image_size is not None and Path(reference).suffix == SUFFIX:
        raise ValueError(f"image_size: {image_size} given, but {reference} is made already")
    if samples is not None and (options or labels or label_policy):
        named = next(iter(options), "labels" if labels else "label_policy")
        raise ValueError(f"{named}: given beside --samples, which are sampled already")
    started = time.perf_counter()
    place = resolve_device(device)
    drawn, stream = None, None
    if model is not None:
        heptapod = Heptapod.from_pretrained(model, place)
        total = SAMPLES if count is None else count
        drawn = ModelSamples(heptapod, Path(model), total, label_policy, labels, seed, batch_size, options)
    else:
        stream = open_images(samples or "", "samples", 0, count, seed, place)
        total = stream.count
    extractor = main_process_first(lambda: open_extractor(inception, place))
    if image_size is None:
        image_size = drawn.image_size[0] if drawn is not None and len(set(drawn.image_size)) == 1 else 0
    plan_metrics(extractor, None, total, metrics or None)  # refused before the reference is read
    warn_if_ranks_idle(total, batch_size)
    against = open_reference(reference, extractor, image_size, batch_size, shared=True)
    planned, _ = plan_metrics(extractor, against, total, metrics or None)  # refused before minutes of sampling
    if drawn is not None:
        title, batches = "sampling {} images", drawn.batches(drawn.indices(against.class_counts), shared=True)
    else:
        assert stream is not None
        title, batches = "samples: features of {} images", stream.batches(batch_size, shared=True)
    shown: list[Tensor] = []
    with _kept(npz, drawn, shown) as see:
        found = collect_shared(batches, extractor, total, with_logits="score" in planned, title=title, see=see)
    if found is None:
        return  # the first process does the rest
    results = measure(found, against, extractor, metrics or None, seed)
    _warn_of_sizes(results)
    results["samples"]["source"] = None if stream is None else stream.record
    figures: dict[str, Any] = {
        **results,
        "generation": drawn.record() if drawn is not None else stream and stream.made,
        "versions": {"heptapod": __version__, "torch": torch.__version__},
        "device": str(extractor.device),
        "processes": process_group.world_size(),
        "seconds": time.perf_counter() - started,
    }
    write_json(Path(out) / "evaluation.json", figures)
    save_png(image_grid(torch.cat(shown)[:SHOWN], COLUMNS), Path(out) / "samples.png")
    print(json.dumps({name: results[name] for name in ("metrics", "left_out")}, indent=2))
    print(f"{Path(out) / 'evaluation.json'}, {Path(out) / 'samples.png'}")


def _check(model: str | None, samples: str | None, npz: str | None, batch_size: int, seed: int) -> None:
    """Refuses arguments that do not belong together."""
    if (model is None) == (samples is None):
        raise ValueError("model: give either the folder of a model or --samples")
    if npz is not None and Path(npz).suffix != ".npz":
        raise ValueError(f"npz: {npz} given, must end in .npz")
    if npz is not None and samples is not None:
        raise ValueError(f"npz: {npz} given beside --samples, which are in a file already")
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, must be at least 1")
    if seed < 0:
        raise ValueError(f"seed: {seed} given, must be at least 0")


@contextlib.contextmanager
def _kept(npz: str | None, drawn: ModelSamples | None, shown: list[Tensor]) -> Iterator[See]:
    """Is shown all samples: puts the first ones aside and, if that is asked for, writes all to a file."""
    with contextlib.ExitStack() as stack:
        keep: See | None = None
        if npz is not None and drawn is not None and process_group.is_main_process():
            keep = stack.enter_context(npz_writer(Path(npz), drawn.count, drawn.image_size, drawn.record()))

        def see(images: Tensor, labels: Tensor) -> None:
            if sum(map(len, shown)) < SHOWN:
                shown.append(images[:SHOWN].clone())
            if keep is not None:
                keep(images, labels)

        yield see


def _warn_of_sizes(results: dict[str, Any]) -> None:
    size, other = results["samples"]["image_size"], results["reference"]["image_size"]
    if other is not None and size != other:
        warnings.warn(
            f"reference: its images are {other[0]}×{other[1]} pixels, the samples {size[0]}×{size[1]}; the difference "
            "in sharpness counts in every metric",
            stacklevel=2,
        )
