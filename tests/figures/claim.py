from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator

from heptapod.tools.ablation.report import TITLES
from heptapod.tools.ablation.summary import figure_text, figures_of, over_seeds
from tests.figures import results
from tests.figures.studies import (
    CIFAR10,
    arm,
    cifar10_seconds,
    difference,
    distance,
    figure,
    likelihood,
    nats,
    probe,
    recognized,
    seconds,
    training_minutes,
)

SETTINGS = [
    r"chance level is 10%",
    r"chance: 1%",
    r"0\.004 in random order, 0\.008 in raster order",
    r"0\.125 far cells and weight 0\.1",
    r"at λ = 0\.2 and learning rate 0\.004",
    r"learning rate 0\.004 for both",
    r"near_share: 0\.5",
    r"λ = 1\b",
    r"objective\.far_cells of 0\.125",
    r"dropout 0\.2 and learning rate 0\.008",
    r"24 epochs, dropout 0\.1, learning rate 0\.008|With five times as many",
    r"model\.dropout of 0\.2",
]
BUDGETS = ("time-450", "time-1130", "time-3150")
UNIFORM = {
    "next_token-all-1": "next_token",
    "cross-all-3": "cross, all prefixes, 3 targets",
    "cross-8-all": "cross, 8 prefixes, all targets",
    "local3-8-4": "local 3×3, 8 prefixes, 4 targets",
    "global-4-4": "global, 4 prefixes, 4 targets",
}


def figures() -> Iterator[str]:
    yield f"models of 0.3M to 0.45M parameters, trained for {training_minutes()} on one CPU core"
    yield from cifar10()
    yield from far_cells()
    yield from an_hour()
    yield from plain_mean()
    yield from photos()
    yield from repeated()
    yield from more_images()
    yield from mixed()
    yield from few_images()
    yield from demonstrations()


def cifar10() -> Iterator[str]:
    distances = ("kernel_distance_at_64", "kernel_distance_at_8")
    for (order, (baseline, cross)), budget in itertools.product(CIFAR10.items(), BUDGETS):
        apart = {name: figure(budget, cross, order, name, baseline=baseline) for name in ("nll", distances[0], "probe")}
        own, other = (
            {name: figure(budget, head, order, name) for name in ("nll", *more, "probe")}
            for head, more in ((cross, distances), (baseline, distances[:1]))
        )
        time = f"|{order}|{cifar10_seconds(budget):.0f} s|"
        yield f"{time}next_token|{other['nll']}|{other[distances[0]]}|cannot|{other['probe']}|"
        yield f"{time}cross|{own['nll']}|{own[distances[0]]}|{own[distances[1]]}|{own['probe']}|"
        yield f"|||difference|{apart['nll']}|{apart[distances[0]]}||{apart['probe']}|"
    yield from differences()
    yield from few_steps()


def differences() -> Iterator[str]:
    """The differences in likelihood in words, by order."""
    for order, (baseline, cross) in CIFAR10.items():
        *apart, last = (figure(budget, cross, order, "nll", baseline=baseline) for budget in BUDGETS)
        yield f"{', '.join(apart)} and {last} nats per token in {order} order"


def few_steps() -> Iterator[str]:
    """8 and 64 steps at the temperatures that training images choose."""
    found = results("few_steps_cifar10")
    rows = [row for row in found["rows"] if row["data"] == "cifar10/test.parquet"]
    temperature = {entry["steps"]: entry["temperature"] for entry in found["chosen"]}
    few, many = ([row["kernel_distance"] for row in rows if row["steps"] == steps] for steps in (8, 64))
    assert len(few) == len(many) == 3
    time = f"{cifar10_seconds(BUDGETS[-1]):.0f} s"
    yield f"(8 steps: {temperature[8]}, 64 steps: {temperature[64]}), the three models of {time}"
    distances = [figure_text(*over_seeds(values), 3) for values in (few, many)]
    more = statistics.fmean(few) / statistics.fmean(many) - 1
    yield f"a kernel distance of {distances[0]} in 8 steps and {distances[1]} in 64, {more:.1%} more"
    yield f"({found['settings']['images']} samples each"


def an_hour() -> Iterator[str]:
    """A larger model, trained for an hour."""
    arms = {head: arm("long", "time-5600", f"{head}-all-1") for head in ("next_token", "cross")}
    for head, rows in arms.items():
        (row,) = rows
        figures_of_arm = (likelihood(rows), distance(rows, 64), distance(rows, 8), probe(rows))
        yield f"|{head}|{row['steps']:,}|{row['weights_step']:,}|{'|'.join(figures_of_arm)}|"
    yield f"{seconds(arms['next_token']):,.0f} s of one core for each head"
    yield f"The likelihoods differ by {difference(arms['cross'])} nats"


def repeated() -> Iterator[str]:
    """1,000 images of CIFAR-10, every arm at its best point."""
    names = ("nll", "kernel_distance_at_64", "kernel_distance_at_8", "recognised_at_64")
    budget, baseline, cross = "epochs-24", "next_token-all-1", "cross-all-1"
    for head in (baseline, cross):
        able = [None if head == baseline and name.endswith("_8") else name for name in names]
        found = [figure(budget, head, "raster", name, study="repeat") if name else "cannot" for name in able]
        (step,) = {row["weights_step"] for row in arm("repeat", budget, head)}
        yield f"|{head.partition('-')[0]}|{step}|{'|'.join(found)}|"
    apart = [figure(budget, cross, "raster", name, baseline, "repeat") for name in (names[0], names[1], names[3])]
    yield f"|difference||{apart[0]}|{apart[1]}||{apart[2]}|"


def more_images() -> Iterator[str]:
    """5,000 images of CIFAR-10, every arm at its best point."""
    arms = {head: arm("repeat_5000", "epochs-24", f"{head}-all-1") for head in ("next_token", "cross")}
    for head, rows in arms.items():
        (row,) = rows
        found = (likelihood(rows), distance(rows, 64), distance(rows, 8))
        yield f"|{head}|{row['steps']:,}|{row['weights_step']}|{'|'.join(found)}|"
    assert arms["cross"][0]["weights_step"] == arms["cross"][0]["steps"]
    yield f"The next-token head is ahead by {difference(arms['cross'])} nats"


MIXED = {
    "next_token": "next_token",
    "cross": "cross, default",
    "cross_all_far": "cross, 64 far cells per image, λ = 1",
}


def mixed() -> Iterator[str]:
    """1,000 images of CIFAR-10 in mixed order."""
    names = ("nll", "nll_orders", "kernel_distance_at_64", "kernel_distance_at_8", "recognised_at_64")

    def line(head: str, baseline: str | None = None) -> str:
        able = [name for name in names if not (name.endswith("_8") and "next_token" in (head, baseline))]
        texts = {
            name: figure("epochs-64", f"{head}-all-1", "mixed", name, baseline and f"{baseline}-all-1", "repeat_mixed")
            for name in able
        }
        return "|".join(texts.get(name, "" if baseline else "cannot") for name in names)

    for head, name in MIXED.items():
        yield f"|{name}|{len(arm('repeat_mixed', 'epochs-64', f'{head}-all-1', 'mixed'))}|{line(head)}|"
    yield f"|cross minus next_token||{line('cross', 'next_token')}|"
    without = figure("epochs-24", "next_token_no_dropout-all-1", "raster", "nll", study="repeat")
    yield f"Without dropout the next-token head reaches {without}"


FAR_CELLS = {"next_token": 0, "far_0.125": 8, "far_0.25": 16, "far_0.5": 32, "far_1": 64, "far_2": 128}
"""Arms of the study far_cells with far cells from anywhere, and their far cells per image and step."""


def far_cells() -> Iterator[str]:
    """Measures against the number of far cells, seed 0; then the arms with three seeds."""
    time = seconds(arm("far_cells", "time-450", "next_token-all-1", "random"))
    yield f"for equal time ({time:.0f} s)"
    yield far_cells_later()
    names = ("nll", "far", "kernel_distance_at_64", "kernel_distance_at_8", "probe")
    for order in ("random", "raster"):
        for head, count in FAR_CELLS.items():
            rows = arm("far_cells", "time-450", f"{head}-all-1", order)
            first = [one for one in rows if one["seed"] == 0]
            found = figures_of(first)
            texts = []
            for name in names:
                value = found[name](first[0]) if name in found else None
                _, digits, percent = TITLES[name.partition("_at_")[0]]
                texts.append("–" if value is None else figure_text(value[0], None, digits, percent))
            yield f"|{order}|{count}|{first[0]['steps']}|{'|'.join(texts)}|"
        for head in ("far_0.125", "far_0.25"):
            apart = [
                figure("time-450", f"{head}-all-1", order, name, "next_token-all-1", "far_cells")
                for name in ("nll", "kernel_distance_at_64", "probe")
            ]
            yield f"|{order}|{FAR_CELLS[head]}|{'|'.join(apart)}|"


def far_cells_later() -> str:
    """The likelihood of 8 and of 16 far cells after more time, seed 0."""
    orders = ("random", "raster")
    (time,) = {f"{seconds(arm('far_cells', 'time-1130', 'next_token-all-1', order)):.0f} s" for order in orders}
    apart = {
        order: [difference(arm("far_cells", "time-1130", f"{head}-all-1", order)) for head in ("far_0.125", "far_0.25")]
        for order in orders
    }
    texts = [f"{few} and {more} nats in {order} order" for order, (few, more) in apart.items()]
    start = f"After {time} (seed 0, ± over images) 8 and 16 far cells differ from the next-token head"
    return f"{start} by {texts[0]}, {texts[1]}."


def plain_mean() -> Iterator[str]:
    first = arm("cifar10_uniform", "time-400", "next_token-all-1")
    yield f"Equal time, {seconds(first):.0f} s, raster order:"
    for head, name in UNIFORM.items():
        rows = arm("cifar10_uniform", "time-400", head)
        quality = "|".join(
            text if len(rows) > 1 else text.partition(" ± ")[0]
            for text in (likelihood(rows), distance(rows, 64), distance(rows, 8), probe(rows))
        )
        yield f"|{name}|{rows[0]['steps']}|{len(rows)}|{quality}|"


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
    names = {"next_token-all-1": "next_token", "global-4-all": "global, 4 prefixes, all targets"}
    names |= {"cross-all-3": "cross, all prefixes, 3 targets"}
    arms = {head: arm("digits", "time-2000", head) for head in names}
    for head, rows in arms.items():
        few = "cannot" if head == "next_token-all-1" else recognized(rows, 8)
        yield (
            f"|{names[head]}|{rows[0]['steps']:,}|{nats(rows):.2f}|{rows[0]['best_val_loss']:.3f}|"
            f"{recognized(rows, 49)}|{few}|{probe(rows)}|"
        )
    baseline, cross = arms["next_token-all-1"], arms["cross-all-3"]
    points = (cross[0]["probe"]["accuracy"] - baseline[0]["probe"]["accuracy"]) * 100
    yield f"its held-out loss ends at {nats(baseline):.2f}."
    yield f"ends {nats(baseline) - nats(cross):.1f} nats better, and its linear probe is {points:.0f} points better"
    lowest = cross[0]["best_val_loss"] - baseline[0]["best_val_loss"]
    yield f"the lowest values of the two curves are {lowest:.3f} nats apart"


def demonstrations() -> Iterator[str]:
    demo = results("demo")
    few = next(one for one in demo["results"] if one["sampling"]["steps"] == 8)
    yield f"The demo's model generates {few['accuracy']:.0%} recognizable digits in 8 steps"
    yield f"This is the cheapest demonstration: {demo['seconds']['this_command'] / 60:.0f} minutes on one core."
