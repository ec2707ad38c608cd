"""``heptapod sample``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from heptapod.cli.sampling_options import OptionalModelFolder, SamplingOptions, number_pair
from heptapod.configs.sampling import DEFAULT_BATCH, Precision
from heptapod.utils.checks import BatchSize, Count, Seed, check_at_least

if TYPE_CHECKING:
    from torch import Tensor

    from heptapod.cli.output_files import OutputFiles
    from heptapod.inference.pipeline import Heptapod
    from heptapod.inference.request import GenerationRequest

logger = logging.getLogger(__name__)

COUNT = 8
FRAMES = 60


def sample(arguments: list[str]) -> None:
    """Parses arguments and generates images."""
    from heptapod.cli.distributed_command import run_distributed

    run_distributed(generate, "sample", arguments)


def generate(
    sampling: tyro.conf.OmitArgPrefixes[SamplingOptions],
    model: tyro.conf.Positional[OptionalModelFolder] = None,
    labels: tuple[str, ...] = (),
    count: Count = COUNT,
    seed: Seed = 0,
    size: str | None = None,
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None,
    batch_size: BatchSize | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    compile: bool = False,
    out: str = "samples.png",
    belief: str | None = None,
    trace: str | None = None,
) -> None:
    """Generates images with a trained model, without guidance.

    Writes a picture with a row for each class (a single image as it is), and next to it a JSON record from which --from
    makes the same images again. Several processes (torchrun) share the work batch by batch.

    Args:
        model: Folder of a model, or of a run (its best weights are used). With --from it may be left out.
        sampling: Sampling config.
        labels: Classes by name, or by index where no name is a number, a row each; all of them if left out (the first
            ten of many).
        count: Images per class.
        seed: Image i has the seed SEED + i.
        size: HEIGHTxWIDTH in pixels of another size than the trained one, a multiple of the tokenizer's factor.
        from_: Reproduce the images of this .json record, which sample, edit or the studio wrote next to a picture. It
            determines the images: only model, device and out may be given too.
        batch_size: Images at a time; if given, batches are padded to it and images equal bit for bit.
        device: auto, cpu, cuda, ...
        precision: Precision of the model: float32, bfloat16, float16, or auto: bfloat16 on a GPU, and on a CPU
            where it is measured to be faster.
        compile: Compile the model first (a CPU needs a C++ compiler), which happens while the first images are sampled.
        out: A .png file for one picture, or a folder for the picture and one file per image.
        belief: Also write to this .png file the predictions of the whole grid while the first image is sampled.
        trace: Also sample the first image again and show its steps: an animation in this .gif file, a strip of states
            in the .png file of the same name.
    """
    from heptapod.cli.distributed_command import warn_if_ranks_idle
    from heptapod.cli.output_files import output_files
    from heptapod.cli.reproduce import reproduce_file
    from heptapod.distributed import process_group
    from heptapod.distributed.device import resolve_device
    from heptapod.inference.pipeline import Heptapod
    from heptapod.inference.record import model_fields, record_fields
    from heptapod.inference.request import numeric_names_note
    from heptapod.utils.files import write_json
    from heptapod.utils.images import samples_picture, save_png

    if from_ is not None:
        fixed = {"labels": labels, "size": size, "batch_size": batch_size, "belief": belief, "trace": trace}
        fixed |= {"count": count != COUNT, "seed": seed, "compile": compile, "precision": precision != "auto"}
        if given := [*(name for name, value in fixed.items() if value), *sampling.given()]:
            raise ValueError(f"{given[0]}: given together with --from {from_}, which decides it")
        reproduce_file(from_, model, device, output_files(out, "samples.png"))
        return
    if model is None:
        raise ValueError("model: none given; name the folder of a model, or --from a .json file")
    files = output_files(out, "samples.png")
    heptapod = Heptapod.from_pretrained(model, resolve_device(device), precision)
    if size is not None:
        heptapod = heptapod.at_size(*number_pair("size", size, "x", "HEIGHTxWIDTH"))
    if belief is not None and not heptapod.model.head.reaches_grid:
        raise ValueError(f"belief: {belief} given, but the head of this model does not predict the whole grid")
    check_at_least(1, count=count, batch_size=batch_size)
    _check_pictures(files, belief, trace)
    changes = sampling.given()
    if compile:
        heptapod.model.compile_blocks()
    rows = list(labels) or heptapod.class_names[:10]
    repeated = [row for row in rows for _ in range(count)] or None
    options: dict[str, Any] = {"count": None if repeated else count, "seed": seed, "batch_size": batch_size}
    request = heptapod.request(repeated, **options, **changes)
    warn_if_ranks_idle(len(request), batch_size or DEFAULT_BATCH)
    started = time.perf_counter()
    own, images = _gathered(heptapod, request)
    seconds = time.perf_counter() - started
    files.save_each(own.items())
    process_group.barrier()
    if not process_group.is_main_process():
        return
    save_png(samples_picture(images, request.labels, heptapod.class_names), files.picture)
    record = {
        **model_fields(Path(model)),
        **record_fields(heptapod, request.labels, request.plan.seeds, request.plan.config, batch_size),
        "compiled": compile,
        "processes": process_group.world_size(),
        "seconds": seconds,
        "images_per_second": len(request) / seconds,
    }
    write_json(files.record, record)
    if note := numeric_names_note(request.labels, heptapod.class_names):
        logger.info(f"labels: {note}")
    first = repeated[0] if repeated else None
    if belief is not None:
        save_png(heptapod.belief(first, seed=seed, **changes), Path(belief))
    if trace is not None:
        write_trace(heptapod, Path(trace), first, seed, changes)
    print(f"{len(request)} images in {seconds:.1f} s: {files.picture}, {files.record}")


def _gathered(heptapod: Heptapod, request: GenerationRequest) -> tuple[dict[int, Tensor], Tensor]:
    """Samples the images of all ranks: those of this rank by number and, on rank 0, all of them."""
    import torch

    from heptapod.distributed.collectives import gather_blocks
    from heptapod.evaluation.samples import sample_batches
    from heptapod.utils.logging import Progress

    own: dict[int, Tensor] = {}

    def blocks() -> Iterator[dict[str, Tensor]]:
        for numbers, images in sample_batches(heptapod, request, shared=True):
            own.update(zip(numbers, images, strict=True))
            yield {"images": images}

    parts = []
    with Progress(f"sampling {len(request):,} images", len(request)) as bar:
        for block in gather_blocks(blocks()):
            parts.append(block["images"])
            bar.advance(len(block["images"]))
    return own, torch.cat(parts) if parts else torch.empty(0)


def _check_pictures(files: OutputFiles, belief: str | None, trace: str | None) -> None:
    """Raises ValueError for pictures of another format, or that would overwrite each other."""
    from heptapod.utils.files import check_folder

    if belief is not None and Path(belief).suffix != ".png":
        raise ValueError(f"belief: {belief} given, pictures are written as .png")
    if trace is not None and Path(trace).suffix != ".gif":
        raise ValueError(f"trace: {trace} given, animations are written as .gif")
    strip = None if trace is None else Path(trace).with_suffix(".png")
    pictures = {"belief": belief and Path(belief), "trace": strip}
    for name, file in pictures.items():
        if file:
            check_folder(file.parent, name)
        if file and files.includes(file):
            raise ValueError(f"{name}: {file} would be written over out's picture; name another")
    if belief is not None and strip is not None and Path(belief).resolve() == strip.resolve():
        raise ValueError(f"trace: {strip} would be written over belief's picture; name another")


def write_trace(heptapod: Heptapod, path: Path, label: str | None, seed: int, changes: dict[str, Any]) -> None:
    """Writes how one image is sampled: an animation of at most ``FRAMES`` states, and a strip of six next to it."""
    from heptapod.inference.trace import save_gif, shown_steps, trace_frames, trace_picture
    from heptapod.utils.images import save_png

    states = heptapod.trace(label, seed=seed, most=FRAMES, **changes)
    save_gif(trace_frames(heptapod, states), path)
    strip = [states[i] for i in shown_steps(len(states) - 1, 6)]
    save_png(trace_picture(heptapod, strip), path.with_suffix(".png"))
