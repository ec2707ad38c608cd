from __future__ import annotations

import statistics
from collections.abc import Iterator

from tests.figures import results
from tests.figures.studies import (
    Rows,
    arm,
    difference,
    distance,
    gap,
    likelihood,
    nats,
    probe,
    recognized,
    seconds,
)

SETTINGS = [r"chance level is 10%", r"chance: 1%", "one to nine minutes on one CPU core", r"^\|the six others$"]
HEADS = {
    "next_token-all-1": "next_token",
    "cross-all-3": "cross, all prefixes, 3 targets",
    "cross-8-all": "cross, 8 prefixes, all targets",
    "local3-8-4": "local 3×3, 8 prefixes, 4 targets",
    "local3-8-all": "local 3×3, 8 prefixes, all targets",
    "local5-8-all": "local 5×5, 8 prefixes, all targets",
    "global-4-4": "global, 4 prefixes, 4 targets",
    "global-4-all": "global, 4 prefixes, all targets",
}


def figures() -> Iterator[str]:
    yield from cifar10_equal_time()
    yield from cifar10_budgets()
    yield from cifar10_findings()
    yield from photos()
    yield from few_images()
    yield from demonstrations()


def brief(rows: Rows, text: str) -> str:
    """Without the standard error over images, which the table of several seeds leaves out."""
    return text if len(rows) > 1 else text.partition(" ± ")[0]


def spread(values: list[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def cifar10_equal_time() -> Iterator[str]:
    first = arm("cifar10", "time-400", "next_token-all-1")
    yield f"Equal time, {seconds(first):.0f} s of one core each ({first[0]['steps']} steps of the next-token head):"
    table = [("raster", head) for head in HEADS] + [("random", "next_token-all-1"), ("random", "cross-all-3")]
    for order, head in table:
        rows = arm("cifar10", "time-400", head, order)
        quality = "|".join(brief(rows, text) for text in (likelihood(rows), distance(rows, 64), distance(rows, 8)))
        yield f"|{order}|{HEADS[head]}|{rows[0]['steps']}|{len(rows)}|{quality}|{probe(rows)}|"
    six = [arm("cifar10", "time-400", head, "random")[0] for head in list(HEADS)[2:]]
    few = [one["samples_at_8"]["kernel_distance"] for one in six if "samples_at_8" in one]
    steps = [one["steps"] for one in six]
    yield (
        f"|random|the six others|{min(steps)} to {max(steps)}|1|{spread([nats([one]) for one in six], 3)}|"
        f"{spread([one['samples_at_64']['kernel_distance'] for one in six], 3)}|{spread(few, 3)}|"
        f"{spread([one['probe']['accuracy'] * 100 for one in six], 1)}%|"
    )
    single = [rows[0] for order, head in table if len(rows := arm("cifar10", "time-400", head, order)) == 1]
    points = statistics.fmean(
        (one["probe"]["accuracy"] * (1 - one["probe"]["accuracy"]) / 500) ** 0.5 for one in single
    )
    yield (
        f"The standard errors of a single seed are {spread([one['nll']['standard_error'] for one in single], 3)} nats, "
        f"{spread([one['samples_at_64']['standard_error'] for one in single], 3)} in kernel distance and "
        f"{points * 100:.0f} points in accuracy."
    )


def cifar10_budgets() -> Iterator[str]:
    def nll(budget: str, *heads: str) -> str:
        return ", ".join(f"{nats(arm('cifar10', budget, head)):.3f}" for head in heads)

    for budget, local, grid in (
        ("time-400", ("local3-8-4", "local3-8-all"), ("global-4-all",)),
        ("time-1000", ("local3-8-4", "local3-8-all"), ()),
        ("steps-400", (), ("global-4-all",)),
    ):
        baseline = arm("cifar10", budget, "next_token-all-1")
        name = "400 steps each" if budget == "steps-400" else f"{seconds(baseline):.0f} s each"
        cross = f"{nll(budget, 'cross-all-3')} ({difference(arm('cifar10', budget, 'cross-all-3'))})"
        yield (
            f"|{name}|{nll(budget, 'next_token-all-1')}|{cross}|"
            f"{nll(budget, *local) or '–'}|{nll(budget, *grid) or '–'}|"
        )


def cifar10_findings() -> Iterator[str]:
    short, long, steps = (gap("cifar10", budget) for budget in ("time-400", "time-1000", "steps-400"))
    random = gap("cifar10", "time-400", order="random")
    times = [seconds(arm("cifar10", budget, "next_token-all-1")) for budget in ("time-400", "time-1000")]
    yield f"by {short:.2f} nats per token in raster order and by {random:.2f} in random order"
    yield f"at equal steps it is {steps:.2f} instead of {short:.2f} nats"
    yield f"{short:.2f} nats after {times[0]:.0f} s, {long:.2f} after {times[1]:.0f} s."
    yield f"falls from {short:.2f} to {long:.2f} nats between {times[0]:.0f} and {times[1]:.0f} s"
    apart = []
    for budget in ("time-400", "time-1000"):
        cross, baseline = (
            statistics.fmean(one["samples_at_64"]["kernel_distance"] for one in arm("cifar10", budget, head))
            for head in ("cross-all-3", "next_token-all-1")
        )
        apart.append(cross - baseline)
    yield f"In kernel distance it falls from {apart[0]:.3f} to {apart[1]:.3f}, which is within the error."
    every, few = (nats(arm("cifar10", "time-400", head)) for head in ("cross-all-3", "cross-8-all"))
    yield f"({every:.2f} against {few:.2f})"
    cross, baseline = (probe(arm("cifar10", "time-400", head)) for head in ("cross-all-3", "next_token-all-1"))
    ahead = float(cross.split()[0]) - float(baseline.split()[0])
    yield (
        f"the probe of the cross head is {ahead:.0f} points ahead in raster order ({cross.removesuffix('%')} against "
        f"{baseline}, three seeds)"
    )


def photos() -> Iterator[str]:
    baseline, cross = (arm("imagenet64", "time-1000", head) for head in ("next_token-all-1", "cross-all-2"))
    yield f"{seconds(baseline):.0f} s of one core each, raster order, one seed"
    for name, rows, more in (
        ("next_token", baseline, ""),
        ("cross, all prefixes, 2 targets", cross, f" ({difference(cross)})"),
    ):
        distances = f"{distance(rows, 256)}|{distance(rows, 16)}"
        yield f"|{name}|{rows[0]['steps']:,}|{nats(rows):.3f}{more}|{distances}|{probe(rows)}|"
    shares = {recognized(rows, 256) for rows in (baseline, cross)}
    assert len(shares) == 1
    yield f"Neither generates recognizable images ({shares.pop()})"


def few_images() -> Iterator[str]:
    arms = {head: arm("digits", "time-2000", head) for head in ("next_token-all-1", "global-4-all", "cross-all-3")}
    for head, rows in arms.items():
        few = "cannot" if head == "next_token-all-1" else recognized(rows, 8)
        yield (
            f"|{HEADS[head]}|{rows[0]['steps']:,}|{nats(rows):.2f}|{rows[0]['best_val_loss']:.2f}|"
            f"{recognized(rows, 49)}|{few}|{probe(rows)}|"
        )
    baseline, cross = arms["next_token-all-1"], arms["cross-all-3"]
    points = (cross[0]["probe"]["accuracy"] - baseline[0]["probe"]["accuracy"]) * 100
    yield f"its held-out loss ends at {nats(baseline):.2f}."
    yield f"ends {nats(baseline) - nats(cross):.1f} nats better, and its linear probe is {points:.0f} points better"
    lowest = cross[0]["best_val_loss"] - baseline[0]["best_val_loss"]
    yield f"the lowest values of the two curves are {lowest:.2f} nats apart"


def demonstrations() -> Iterator[str]:
    demo = results("demo")
    few = next(one for one in demo["results"] if one["sampling"]["steps"] == 8)
    yield f"The demo's model generates {few['accuracy']:.0%} recognizable digits in 8 steps"
    yield f"This is the cheapest convincing difference: {demo['seconds']['this_command'] / 60:.0f} minutes on one core."
