"""``heptapod sample``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from heptapod.cli.distributed_command import run_distributed, warn_if_ranks_idle
from heptapod.cli.reproduce import reproduce_file
from heptapod.cli.sampling_options import OptionalModelFolder, SamplingOptions, number_pair
from heptapod.distributed import process_group
from heptapod.distributed.collectives import barrier, gather_blocks
from heptapod.distributed.device import resolve_device
from heptapod.evaluation.samples import sample_batches
from heptapod.inference.bundle import DEFAULT_BATCH
from heptapod.inference.pipeline import Heptapod
from heptapod.inference.pretrained import find_pretrained, model_sha256
from heptapod.inference.trace import save_gif, shown_steps, trace_frames, trace_picture
from heptapod.utils.config import to_dict
from heptapod.utils.files import write_json
from heptapod.utils.images import samples_picture, save_png, to_pil
from heptapod.utils.logging import Progress
from heptapod.utils.random import image_seeds

COUNT = 8
FRAMES = 60


def sample(arguments: list[str]) -> None:
    """Parses arguments and generates images."""
    run_distributed(generate, "sample", arguments)


def generate(
    sampling: tyro.conf.OmitArgPrefixes[SamplingOptions],
    model: tyro.conf.Positional[OptionalModelFolder] = None,
    labels: tuple[str, ...] = (),
    count: int = COUNT,
    seed: int = 0,
    size: str | None = None,
    from_: Annotated[str | None, tyro.conf.arg(name="from")] = None,
    batch_size: int | None = None,
    device: str = "auto",
    compile: bool = False,
    out: str = "samples.png",
    belief: str | None = None,
    trace: str | None = None,
) -> None:
    """Generates images with a trained model, without guidance.

    Writes a picture with a row for each class (a single image as it is), and a JSON file beside it that says how it was
    made and makes it again (--from). Several processes (torchrun) share the work batch by batch.

    Args:
        model: Folder of a model, or of a run (its best weights are taken). With --from it may be left out.
        sampling: How cells are drawn.
        labels: Classes by index or name, a row each; all of them if left out (the first ten of many).
        count: Images per class.
        seed: Image i is drawn with seed + i.
        size: HEIGHTxWIDTH in pixels of another size than the trained one, a multiple of the tokenizer's factor.
        from_: Make the images of this .json file again, which sample, edit or the studio wrote beside a picture. All
            that decides them is in it: only model, device and out may be given besides.
        batch_size: Images at a time; if given, batches are filled up to it and images equal bit for bit.
        device: auto, cpu, cuda, ...
        compile: Compile the model first (a CPU needs a C++ compiler), which happens while the first images are drawn.
        out: A .png file for one picture, or a folder for one file per image besides.
        belief: Also write to this .png file what the model believes while it draws the first image.
        trace: Also draw the first image again, by itself, and write how: an animation to this .gif file, a strip of
            states to the .png file of the same name.
    """
    if from_ is not None:
        decided = {"labels": labels, "size": size, "batch_size": batch_size, "belief": belief, "trace": trace}
        decided |= {"count": count != COUNT, "seed": seed, "compile": compile}
        if given := [*(name for name, value in decided.items() if value), *sampling.given()]:
            raise ValueError(f"{given[0]}: given beside --from {from_}, which decides it")
        reproduce_file(from_, model, device, *_targets(out, None, None))
        return
    if model is None:
        raise ValueError("model: none given; name the folder of a model, or --from a .json file")
    heptapod = Heptapod.from_pretrained(model, resolve_device(device))
    if size is not None:
        heptapod = heptapod.at_size(*number_pair("size", size, "x", "HEIGHTxWIDTH"))
    if belief is not None and not heptapod.model.head.reaches_grid:
        raise ValueError(f"belief: {belief} given, but the head of this model does not predict the whole grid")
    if count < 1:
        raise ValueError(f"count: {count} given, must be at least 1")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} given, must be at least 1")
    picture, one_each = _targets(out, belief, trace)
    changes = sampling.given()
    if compile:
        heptapod.model.compile_blocks()
    rows = list(labels) or heptapod.class_names[:10]
    asked = [row for row in rows for _ in range(count)] or None
    indices = heptapod.label_indices(asked, None if asked else count)
    seeds = image_seeds(seed, len(indices))
    warn_if_ranks_idle(len(indices), batch_size or DEFAULT_BATCH)
    started = time.perf_counter()
    drawn = sample_batches(heptapod, asked, len(indices), seed, batch_size, shared=True, **changes)
    own, images = _gathered(drawn, len(indices))
    seconds = time.perf_counter() - started
    if one_each is not None:
        for number, image in own.items():
            save_png(to_pil(image), one_each / f"{number:05d}.png")
    barrier()
    if not process_group.is_main_process():
        return
    save_png(samples_picture(images, indices, heptapod.class_names), picture)
    record = {
        "model": str(find_pretrained(Path(model))),
        "model_sha256": model_sha256(Path(model)),
        "labels": indices,
        "seeds": seeds,
        "sampling": to_dict(heptapod.sampling_config(**changes)),
        "image_size": list(images.shape[2:]),
        "guidance": None,
        "batch_size": batch_size,
        "compiled": compile,
        "device": str(heptapod.model.token_embedding.weight.device),
        "processes": process_group.world_size(),
        "seconds": seconds,
        "images_per_second": len(indices) / seconds,
    }
    write_json(picture.with_suffix(".json"), record)
    if belief is not None:
        save_png(heptapod.belief(asked[0] if asked else None, seed=seed, **changes), Path(belief))
    if trace is not None:
        write_trace(heptapod, Path(trace), asked[0] if asked else None, seed, changes)
    print(f"{len(indices)} images in {seconds:.1f} s: {picture}, {picture.with_suffix('.json')}")


def _gathered(drawn: Iterator[tuple[range, Tensor]], count: int) -> tuple[dict[int, Tensor], Tensor]:
    """The images that this process has drawn, by number, and in the first process all of them."""
    own: dict[int, Tensor] = {}

    def blocks() -> Iterator[dict[str, Tensor]]:
        for numbers, images in drawn:
            own.update(zip(numbers, images, strict=True))
            yield {"images": images}

    parts = []
    with Progress(f"sampling {count:,} images", count) as bar:
        for block in gather_blocks(blocks()):
            parts.append(block["images"])
            bar.advance(len(block["images"]))
    return own, torch.cat(parts) if parts else torch.empty(0)


def _targets(out: str, belief: str | None, trace: str | None) -> tuple[Path, Path | None]:
    """The picture of all images, and the folder for one file each; refuses names that would write over each other."""
    target = Path(out)
    for name, given, suffixes in (("out", out, (".png", "")), ("belief", belief, (".png",))):
        if given is not None and Path(given).suffix not in suffixes:
            raise ValueError(f"{name}: {given} given, pictures are written as .png")
    if trace is not None and Path(trace).suffix != ".gif":
        raise ValueError(f"trace: {trace} given, animations are written as .gif")
    picture = target if target.suffix else target / "samples.png"
    taken = {picture.resolve(): "out"}
    strip = None if trace is None else Path(trace).with_suffix(".png")
    for name, file in (("belief", belief and Path(belief)), ("trace", strip)):
        if not file:
            continue
        path = file.resolve()
        if path in taken or (not target.suffix and path.parent == target.resolve() and path.stem.isdigit()):
            raise ValueError(f"{name}: {file} would be written over {taken.get(path, 'out')}'s picture; name another")
        taken[path] = name
    return picture, None if target.suffix else target


def write_trace(heptapod: Heptapod, path: Path, label: str | None, seed: int, changes: dict[str, Any]) -> None:
    """How one image is drawn: an animation of at most ``FRAMES`` states, and a strip of six beside it."""
    states = heptapod.trace(label, seed=seed, most=FRAMES, **changes)
    save_gif(trace_frames(heptapod, states), path)
    strip = [states[i] for i in shown_steps(len(states) - 1, 6)]
    save_png(trace_picture(heptapod, strip), path.with_suffix(".png"))
