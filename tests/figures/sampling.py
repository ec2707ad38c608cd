from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from tests.figures import results, row

SETTINGS = [
    r"0\.6, no guidance",
    r"at temperature 0\.3",
    r"above 0 it must be at least 0\.0001",
    r"at least 1\.2 times faster",
]
ORDERS = ("raster", "random", "spiral", "confidence")
MIB = 1 << 20


def figures() -> Iterator[str]:
    yield from orders("orders_digits", (4, 8, 16, 24, 49), lambda found: f"{found['accuracy']:.1%}")
    yield from orders("orders_cifar10", (8, 16, 64), lambda found: f"{found['kernel_distance']:.3f}")
    yield from orders_in_words()
    yield from pairs()
    yield from editing()
    yield from approximate()
    yield from precision()
    yield from speed()
    yield from growth()


def orders(name: str, steps: tuple[int, ...], show: Callable[[dict[str, Any]], str]) -> Iterator[str]:
    rows = results(name)["rows"]
    for order in ORDERS:
        for schedule in ("cosine", "constant"):
            cells = []
            for count in steps:
                found = [one for one in rows if (one["token_order"], one["steps"]) == (order, count)]
                both = count < steps[-1]
                found = [one for one in found if one["schedule"] == schedule] if both else found
                cells.append(show(found[0]) if both or schedule == "cosine" else "")
            yield f"|{order}, {schedule}|{'|'.join(cells)}|"


def orders_in_words() -> Iterator[str]:
    digits, photos = results("orders_digits")["rows"], results("orders_cifar10")["rows"]
    yield f"recognizes as their label ({digits[0]['accuracy_on_real']:.1%} of real held-out digits)"
    points = statistics.fmean((one["accuracy"] * (1 - one["accuracy"]) / 1000) ** 0.5 for one in digits) * 100
    yield f"One standard error is {points:.1f} points."
    few = results("demo")["results"][1]
    assert few["sampling"]["temperature"] == 0.3
    yield f"at temperature 0.3, of which {few['accuracy']:.1%} are recognized"
    errors = [one["kernel_distance_error"] for one in photos]
    yield f"standard errors {min(errors):.3f} to {max(errors):.3f}"
    slow, fast = (row(photos, token_order=order, steps=64)["seconds_per_image"] for order in ("confidence", "raster"))
    yield f"This took {slow / fast:.1f} times as long per image here ({slow:.2f} against {fast:.3f} s at 64 steps)"


def pairs() -> Iterator[str]:
    found = results("pairs")

    def shown(errors: dict[str, float]) -> str:
        return f"{errors['mean']:.3f} ({errors['neighbors']:.3f})"

    for head, one in found["heads"].items():
        for order in ("random", "spread"):
            cells = [shown(row(one["rows"], order=order, steps=steps)) for steps in (4, 8, 16)]
            yield f"|{head}, {order}|{'|'.join(cells)}|"
    yield f"As many true samples have an error of {shown(found['true_samples'])}."


def editing() -> Iterator[str]:
    found = results("editing")
    yield f"The classifier recognizes {found['accuracy']['real']:.1%} of the original digits."
    names = {"lower half": "lower half", "right half": "right half", "random": "random half of the cells"}
    for mask, name in names.items():
        cells = [
            row(found["rows"], mask=mask, token_order=order, label=label)
            for label in ("own", "next class")
            for order in ("random", "confidence")
        ]
        identical, worst = {one["identical"] for one in cells}, {one["largest_difference"] for one in cells}
        assert len(identical) == len(worst) == 1
        kept = f"{cells[0]['kept_share']:.0%}|{identical.pop()} of {found['settings']['images']}|{worst.pop()}"
        accuracy = "|".join(f"{one['accuracy']:.1%}" for one in cells)
        yield f"|{name}|{kept}|{accuracy}|"


def approximate() -> Iterator[str]:
    rows = results("approximate_head")["rows"]
    kl = [one["mean_kl"] for one in rows]
    exact, cached = ([one[f"{kind}_accuracy"] for one in rows] for kind in ("exact", "approximate"))
    points = statistics.fmean((p * (1 - p) / 300) ** 0.5 for p in [*exact, *cached]) * 100
    ratios = [one["approximate_seconds"] / one["exact_seconds"] for one in rows if one["steps"] == 49]
    yield (
        f"has a mean of {min(kl):.5f} to {max(kl):.5f} nats per cell, and a mean per image of at most "
        f"{max(one['largest_kl'] for one in rows):.4f}"
    )
    yield (
        f"{min(exact) * 100:.0f} to {max(exact):.0%} of the digits are recognized with exact sampling and "
        f"{min(cached) * 100:.0f} to {max(cached):.0%} with approximate sampling; one standard error is "
        f"{points:.1f} points."
    )
    large = results("sampling_global")["rows"]
    at_b = [
        row(large, model="global_approximate", steps=steps)["seconds"]
        / row(large, model="global", steps=steps)["seconds"]
        for steps in (16, 64)
    ]
    yield (
        f"the time is {min(ratios):.1f} to {max(ratios):.1f} of the exact time (at size B {at_b[0]:.2f} with 16 and "
        f"{at_b[1]:.2f} with 64 steps, below)"
    )
    seconds = {(one["model"], one["steps"]): one["seconds_per_image"] for one in large}
    yield (
        f"cross {seconds['cross', 16]:.2f} s per image in 16 steps and {seconds['cross', 64]:.1f} s in 64, global "
        f"{seconds['global', 16]:.1f} and {seconds['global', 64]:.0f} s, global with --approximate-head True "
        f"{seconds['global_approximate', 16]:.1f} and {seconds['global_approximate', 64]:.1f} s."
    )


def precision() -> Iterator[str]:
    found = results("precision")
    distances = [
        f"{one['kernel_distance']['mean']:.3f} ± {one['kernel_distance']['standard_error']:.3f} in {one['precision']}"
        for one in found["rows"]
    ]
    yield f"{found['samples']} samples in {found['steps']} steps and {found['images']:,} test images"
    yield f"kernel distance {' and '.join(distances)}"
    yield f"the likelihood of the images differs by {found['nll_difference']:+.5f} nats per token"


def speed() -> Iterator[str]:
    found = results("sampling_baselines")

    def ratio(what: str, batch: int) -> float:
        return float(row(found["ratios"], what=what, batch=batch)["value"])

    def images(model: str, steps: int, batch: int) -> str:
        return f"{row(found['rows'], model=model, steps=steps, batch=batch)['images_per_second']:.2f}"

    few = [
        f"{ratio('images/s of cross, 16 steps / next_token', batch):.1f} times "
        f"({images('cross', 16, batch)} and {images('next_token', 256, batch)})"
        for batch in (1, 8)
    ]
    yield f"|16 steps against next_token (256 steps), images/s|{'|'.join(few)}|"
    for name, what, digits in (
        ("64 steps against next_token", "images/s of cross, 64 steps / next_token", 1),
        ("64 steps against masked with 64 steps", "images/s of cross, 64 steps / masked at equal steps", 0),
        ("one cell per step, time of next_token", "time of cross, one cell per step / next_token", 2),
    ):
        yield f"|{name}|{'|'.join(f'{ratio(what, batch):.{digits}f} times' for batch in (1, 8))}|"


def growth() -> Iterator[str]:
    found = results("sampling_growth")

    def line(name: str, batch: int, key: str, show: str, scale: float = 1.0) -> str:
        cells = [f"{row(found['rows'], cells=n, batch=batch)[key] / scale:{show}}" for n in (64, 256, 1024)]
        return f"|{name}|{'|'.join(cells)}|"

    def power(quantity: str, batch: int) -> str:
        return f"N^{row(found['exponents'], quantity=quantity, batch=batch)['exponent']:.2f}|"

    for batch in (1, 8):
        yield line(f"seconds per image, batch {batch}", batch, "seconds_per_image", ".2f") + power(
            "seconds_per_image", batch
        )
    for name, key in (("peak memory above the weights, batch 8", "peak_bytes"), ("of which caches", "cache_bytes")):
        cells = [f"{row(found['rows'], cells=n, batch=8)[key] / MIB:,.0f} MiB" for n in (64, 256, 1024)]
        yield f"|{name}|{'|'.join(cells)}|" + (power("peak_bytes", 8) if key == "peak_bytes" else "N|")
