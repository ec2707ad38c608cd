"""``heptapod sample``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import tyro

from heptapod.config import to_dict
from heptapod.distributions.base import Solver
from heptapod.files import write_json
from heptapod.model_folder import find_pretrained
from heptapod.pictures import image_grid, save_png, to_pil
from heptapod.pipeline import Heptapod
from heptapod.recipe import resolve_device


def sample(arguments: list[str]) -> None:
    """Parses arguments and generates images."""
    tyro.cli(generate, prog="heptapod sample", args=arguments, use_underscores=True)


def generate(
    model: tyro.conf.Positional[str],
    labels: tuple[str, ...] = (),
    count: int = 8,
    steps: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    token_order: Literal["raster", "random"] | None = None,
    schedule: Literal["cosine", "constant"] | None = None,
    preset: Literal["default", "fast"] | None = None,
    cell_solver: Solver | None = None,
    cell_steps: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    out: str = "samples.png",
    belief: str | None = None,
) -> None:
    """Generates images with a trained model, without guidance.

    Writes a picture with a row for each class and a JSON file beside it that says how it was made.

    Args:
        model: Folder of a model, or of a run (its best weights are taken).
        labels: Classes by index or name, a row each; all of them if left out (the first ten of many).
        count: Images per class.
        steps: Sampling steps; the model's default if left out (usually one cell per step).
        temperature: Below 1 sharpens the distribution of every cell; 0 takes the most likely code. Of a continuous
            model it scales the noise.
        top_k: Keep only the k most likely codes of each cell.
        top_p: Keep only the most likely codes that together have this probability.
        token_order: Order in which cells are filled; the trained one if left out.
        schedule: Cells per step: few at first and many at the end (cosine), or constant.
        preset: How a continuous model draws its vectors: default, or fast for some loss of quality.
        cell_solver: Instead of the preset's: ancestral or ddim for diffusion, euler or heun for a flow.
        cell_steps: Instead of the preset's: steps in which each vector is drawn.
        seed: Image i is drawn with seed + i.
        batch_size: Images at a time; if given, batches are filled up to it and images equal bit for bit.
        device: auto, cpu, cuda, ...
        out: A .png file for one picture, or a folder for one file per image besides.
        belief: Also write to this .png file what the model believes while it draws the first image.
    """
    heptapod = Heptapod.from_pretrained(model, resolve_device(device))
    if belief is not None and not heptapod.model.head.reaches_grid:
        raise ValueError(f"belief: {belief} given, but the head of this model does not predict the whole grid")
    if count < 1:
        raise ValueError(f"count: {count} given, must be at least 1")
    target = Path(out)
    for name, file in (("out", target), ("belief", Path(belief or "x.png"))):
        if file.suffix != ".png" and (file.suffix or name == "belief"):
            raise ValueError(f"{name}: {file} given, pictures are written as .png")
    picture = target if target.suffix else target / "samples.png"
    given: dict[str, Any] = {
        "steps": steps,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "token_order": token_order,
        "schedule": schedule,
        "preset": preset,
        "cell_solver": cell_solver,
        "cell_steps": cell_steps,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    rows = list(labels) or heptapod.class_names[:10]
    asked = [row for row in rows for _ in range(count)] or None
    indices = heptapod.label_indices(asked, None if asked else count)
    started = time.perf_counter()
    tokens = heptapod.generate_tokens(
        asked, count=None if asked else count, seed=seed, batch_size=batch_size, progress=True, **changes
    )
    images = heptapod.decode(tokens, batch_size)
    seconds = time.perf_counter() - started
    names = [heptapod.class_names[i] for i in indices[::count]] if heptapod.class_names else None
    grid = image_grid(images, count, names)
    save_png(grid, picture)
    if not target.suffix:
        for number, image in enumerate(images):
            save_png(to_pil(image), target / f"{number:05d}.png")
    record = {
        "model": str(find_pretrained(Path(model))),
        "labels": indices,
        "seeds": [seed + i for i in range(len(indices))],
        "sampling": to_dict(heptapod.sampling_config(**changes)),
        "guidance": None,
        "batch_size": batch_size,
        "device": str(heptapod.model.token_embedding.weight.device),
        "seconds": seconds,
        "images_per_second": len(indices) / seconds,
    }
    write_json(picture.with_suffix(".json"), record)
    if belief is not None:
        save_png(heptapod.belief(asked[0] if asked else None, seed=seed, **changes), Path(belief))
    print(f"{len(indices)} images in {seconds:.1f} s: {picture}, {picture.with_suffix('.json')}")
