from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.figures import results, row

SETTINGS = [r"utilization of 40%", r"peak of a GPU"]
CELLS = (64, 256, 1024, 4096)
MODELS = ("cross", "next_token", "masked")
GIB = 1 << 30


def figures() -> Iterator[str]:
    found = results("growth")
    for phase in ("training", "sampling"):
        for model in MODELS:
            yield from lines(
                found[phase], model, *(("GiB", 1 << 30, 2) if phase == "training" else ("MiB", 1 << 20, 0))
            )
    for phase in ("training", "sampling"):
        for model in MODELS:
            yield from by_batch(found[phase]["rows"], phase, model)
    yield from large_image(found)


def value(rows: list[dict[str, Any]], model: str, cells: int, quantity: str, batch: int = 1) -> float | None:
    there = [one for one in rows if (one["model"], one["cells"], one["batch"]) == (model, cells, batch)]
    return there[0][quantity] if there else None


def lines(found: dict[str, Any], model: str, unit: str, size: int, digits: int) -> Iterator[str]:
    """Seconds and peak memory of a model against N, with the fitted power."""
    for quantity, show in (
        ("seconds_per_image", lambda seconds: f"{seconds:.3g} s"),
        ("peak_bytes", lambda peak: f"{peak / size:.{digits}f} {unit}"),
    ):
        values = [value(found["rows"], model, cells, quantity) for cells in CELLS]
        if not any(values):
            continue
        fit = row(found["exponents"], model=model, quantity=quantity)
        cells = ["–" if one is None else show(one) for one in values]
        yield f"|{model}|{'|'.join(cells)}|N^{fit['exponent']:.2f}|N^{fit['by_quadrupling'][-1]:.2f}|"


def by_batch(rows: list[dict[str, Any]], phase: str, model: str) -> Iterator[str]:
    """Seconds per image at batch 1 and at batch 4."""
    pairs = [[value(rows, model, cells, "seconds_per_image", batch) for batch in (1, 4)] for cells in CELLS[:3]]
    if all(None not in pair for pair in pairs):
        yield f"|{phase}, {model}|{'|'.join(f'{a:.3g} and {b:.3g} s' for a, b in pairs)}|"


def large_image(found: dict[str, Any]) -> Iterator[str]:
    """What an image of 4,096 cells costs beside one of 256."""
    small, large = (found["plans"][cells] for cells in ("256", "4096"))
    for name, show in (
        ("FLOPs of a training image", lambda plan: f"{plan['flops']['per_image']['total'] / 1e12:.2f} · 10¹²"),
        ("images per second of eight H100s", lambda plan: f"{plan['time']['images_per_second']:,.0f}"),
        ("activations of one image", lambda plan: f"{plan['memory']['activations'] / per_gpu(plan) / GIB:.2f} GiB"),
        ("FLOPs of a sampled image", lambda plan: f"{plan['sampling']['flops']['total'] / 1e12:.2f} · 10¹²"),
    ):
        yield f"|{name}|{show(small)}|{show(large)}|"
    ratio = large["flops"]["per_image"]["total"] / small["flops"]["per_image"]["total"]
    yield f"{ratio:.0f} times the FLOPs of training for 16 times the cells"
    training = found["training"]["rows"]
    seconds = {model: value(training, model, 4096, "seconds_per_image") for model in MODELS}
    assert all(seconds.values())
    yield f"a training step of one image takes {seconds['cross']:.0f} s here, and {seconds['next_token']:.0f} s with"
    sampling = found["sampling"]["rows"]
    cross, masked = (value(sampling, model, 4096, "seconds_per_image") for model in ("cross", "masked"))
    assert cross is not None
    assert masked is not None
    yield f"Sampling takes {cross:.0f} s in 64 steps, and {masked / 60:.0f} minutes with the masked model"
    cache = value(sampling, "cross", 4096, "cache_bytes")
    assert cache is not None
    yield f"the caches of one image take {cache / (1 << 20):.0f} MiB"


def per_gpu(plan: dict[str, Any]) -> int:
    """Images of a micro-batch."""
    images: int = plan["memory"]["micro_batch"]
    return images
