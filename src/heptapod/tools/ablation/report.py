"""The report of a study: JSON, CSV, figures and a page, all from the rows of its runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from heptapod import __version__
from heptapod.tools.ablation.copies import AGREEMENT
from heptapod.tools.ablation.plan import read_plan
from heptapod.tools.ablation.plots import curves_picture, samples_picture, setting_picture, steps_picture
from heptapod.tools.ablation.recipes import arm_recipe
from heptapod.tools.ablation.study import Budget, Study
from heptapod.tools.ablation.summary import (
    Group,
    Row,
    difference,
    far_value,
    figure_text,
    figures_of,
    groups_of,
    knn_value,
    likelihood,
    likelihood_name,
    mean_text,
    orders_likelihood,
    over_seeds,
    paired_difference,
    probe_value,
    sample_value,
    samples_of,
    summarize,
)
from heptapod.tools.bench.results import Column, describe_hardware, markdown_table
from heptapod.utils.config import to_dict
from heptapod.utils.files import read_tensors, write_atomically, write_json


def write_report(study: Study, rows: Sequence[Row]) -> list[Path]:
    """Writes ``results.json``, ``results.csv``, the figures and ``report.md`` into the study's folder.

    Raises:
        ValueError: if no run is finished.
    """
    if not rows:
        raise ValueError(f"out: no run of the study in {study.out} is finished; there is nothing to report")
    folder = Path(study.out)
    plan = read_plan(folder)
    rows = with_differences(study, rows)
    drawings = (curves_picture, setting_picture, steps_picture, samples_picture)
    figures = [draw(study, rows, folder) for draw in drawings]
    written = [figure for figure in figures if figure is not None]
    text = page(study, rows, plan, [figure.name for figure in written])
    about = {"heptapod": __version__, "study": to_dict(study), "plan": plan}
    write_json(folder / "results.json", {**about, "rows": list(rows), "summary": summarize(study, rows)})
    write_atomically(folder / "results.csv", lambda file: _write_csv(file, rows))
    write_atomically(folder / "report.md", lambda file: file.write_text(text, encoding="utf-8"))
    return [folder / "report.md", folder / "results.json", folder / "results.csv", *written]


def with_differences(study: Study, rows: Sequence[Row]) -> list[Row]:
    """The rows with ``difference``: the likelihood minus that of the first arm of the table, image by image."""
    arms = {arm.name: arm for arm in study.arms()}

    def table(row: Row) -> tuple[Any, ...]:
        return row["budget"], arms[row["arm"]].distribution, arms[row["arm"]].token_order

    first = {table(row): row["arm"] for name in reversed(arms) for row in rows if row["arm"] == name}
    runs = {(row["budget"], row["arm"], row["seed"]): row for row in rows}
    compared = []
    for row in rows:
        baseline = runs.get((row["budget"], first[table(row)], row["seed"]))
        if baseline is not None and baseline is not row:
            values = _nats(row, Path(study.out)) - _nats(baseline, Path(study.out))
            error = float(values.std()) / len(values) ** 0.5
            row = {**row, "difference": {"mean": float(values.mean()), "standard_error": error}}
        compared.append(row)
    return compared


def _write_csv(file: Path, rows: Sequence[Row]) -> None:
    flat = [_flatten(row) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(flat)


def _flatten(row: Row, prefix: str = "") -> Row:
    flat: Row = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            flat[prefix + key] = value
    return flat


def page(study: Study, rows: Sequence[Row], plan: dict[str, Any], pictures: Sequence[str]) -> str:
    """The report as Markdown."""
    hardware = plan["hardware"]
    measures = study.measures
    parts = [
        f"# {Path(study.out).name}",
        study.description,
        f"Recipe `{study.recipe}` with the changes in `results.json`. Time: the training steps of an arm times the "
        f"seconds of one step, timed in turns with the first arm on {describe_hardware(hardware)}, without reading, "
        f"evaluation and checkpoints. {_about_weights(study)} NLL: negative log-likelihood of "
        f"{_measured(study)} images by the chain rule in the trained order{_about_orders(study)}, in nats per token, "
        f"comparable across heads and orders. Δ: difference from the first arm of the table on the same "
        f"images.{_about_far(study)} No "
        "guidance.",
    ]
    samples = _about_samples(study, rows) if measures.samples and measures.reference else ""
    parts.append(f"{samples} {_about_probe(study, rows)}".strip())
    parts.append(
        "±: standard error over seeds (standard deviation / √seeds) if there are several, otherwise the "
        "standard error over images of one trained model, which does not include the variation between trainings. "
        "Tables of differences pair runs of the same seed."
    )
    for budget in _budgets(study):
        own = [row for row in rows if row["budget"] == budget.name]
        if own:
            parts += [f"## {_title(budget, plan)}", *_tables(study, own)]
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in pictures]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about_samples(study: Study, rows: Sequence[Row]) -> str:
    measures = study.measures
    judged = [
        measured["judge_accuracy_on_real"]
        for row in rows
        for measured in samples_of(row).values()
        if "recognised" in measured
    ]
    text = (
        f"Samples: {measures.samples} per number of steps, classes in equal numbers, seeds 0 to "
        f"{measures.samples - 1}, temperature {_temperature(study)}. KD: kernel distance in EfficientNet-Lite0 "
        f"features (not KID) to {measures.reference_images:,} real images of `{measures.reference}`, lower is better."
    )
    if judged:
        text += (
            " Recognized: the share that a logistic regression on features of real images assigns to its label; its "
            f"accuracy on real images is {judged[0]:.0%}."
        )
    if measures.sampling:
        text += f" Sampling: {', '.join(f'{name} {value}' for name, value in measures.sampling.items())}."
    for head in study.heads:
        for steps, changes in head.sampling.items():
            settings = ", ".join(f"{name} {value}" for name, value in changes.items())
            text += f" {head.title} at {'one cell per' if steps == '0' else steps} step(s): {settings}."
    if measures.copies:
        text += _about_copies(rows, _measured(study))
    return text


def _about_probe(study: Study, rows: Sequence[Row]) -> str:
    if not study.measures.probe_images:
        return ""
    return (
        "Linear probe: on mean-pooled hidden states without the label, with "
        f"{max(row['probe']['train_images'] for row in rows):,} training and "
        f"{max(row['probe']['test_images'] for row in rows):,} {_measured(study)} images; the layer is chosen on "
        "the training images. k-NN: the nearest neighbors on the same layer."
    )


def _measured(study: Study) -> str:
    return "held-out" if study.measures.test is None else "test"


def _about_orders(study: Study) -> str:
    text = " (raster where it was mixed)" if "mixed" in study.token_orders else ""
    if study.measures.orders > 1 and set(study.token_orders) != {"raster"}:
        text += f", and of the mean of the probabilities over {study.measures.orders} orders (NLL, orders)"
    return text


def _about_far(study: Study) -> str:
    if not study.measures.far_images:
        return ""
    return (
        " Far cells: −log p of unread cells other than the next one, given the prefix alone, one after every prefix, "
        f"in the trained order, of {study.measures.far_images:,} {_measured(study)} images."
    )


def _about_weights(study: Study) -> str:
    if study.measures.weights == "best":
        return "All measures use the weights (EMA) with the lowest loss on the held-out images of the training."
    return "All measures use the final weights (EMA)."


def _about_copies(rows: Sequence[Row], measured: str) -> str:
    shares = [sample["copied_held_out"] for row in rows for sample in samples_of(row).values() if "copied" in sample]
    found = f"{min(shares):.1%} to {max(shares):.1%}" if min(shares) < max(shares) else f"{shares[0]:.1%}"
    return (
        f" Copies: the share whose tokens agree with those of a training image in at least {AGREEMENT:.0%} of the "
        f"cells; of {measured} images it is {found}."
    )


def _budgets(study: Study) -> list[Budget]:
    """The budgets without duplicates."""
    return list({budget.name: budget for budget in study.budgets}.values())


def _title(budget: Budget, plan: dict[str, Any]) -> str:
    if budget.equal == "epochs":
        return f"Equal epochs: {budget.epochs:,} each"
    if budget.equal == "steps":
        return f"Equal steps: {budget.steps:,} each"
    seconds = budget.steps * plan["arms"][plan["first"]]["seconds_per_step"]
    return f"Equal time: {seconds:,.0f} s each, the time of {budget.steps:,} steps of the first arm"


def _temperature(study: Study) -> str:
    given = study.measures.temperature
    given = study.measures.sampling.get("temperature", given)
    return str(arm_recipe(study, study.arms()[0]).sampling.temperature if given is None else given)


def _tables(study: Study, rows: Sequence[Row]) -> list[str]:
    """Tables per order and distribution; each arm is compared with the first one of its table."""
    tables = []
    for (kind, order), groups in groups_of(study, rows).items():
        heading = f"{order} order" + (f", {kind}" if len(study.distributions) > 1 else "")
        tables.append(f"**{heading[0].upper()}{heading[1:]}**\n\n{_table(groups)}")
        if differences := _differences(groups):
            tables.append(f"{heading[0].upper()}{heading[1:]}, differences from {groups[0][0].label}:\n\n{differences}")
    return tables


def _table(groups: Sequence[Group]) -> str:
    rows = [row for _, group in groups for row in group]
    steps = sorted({count for row in rows for count in samples_of(row)}, reverse=True)

    def samples(key: str, count: int, digits: int, percent: bool) -> Column:
        return lambda group: mean_text(group[1], lambda row: sample_value(row, count, key), digits, percent)

    columns: dict[str, Column] = {
        "arm": lambda group: group[0].label,
        "parameters": lambda group: group[1][0]["parameters"],
        "steps": lambda group: group[1][0]["steps"],
        "seeds": lambda group: len(group[1]),
        likelihood_name(rows): lambda group: mean_text(group[1], likelihood, 3),
        "Δ": lambda group: mean_text(group[1], difference, 3, sign="+"),
    }
    if any("nll_orders" in row for row in rows):
        columns["NLL, orders"] = lambda group: mean_text(group[1], orders_likelihood, 3)
    if any("far" in row for row in rows):
        columns["far cells"] = lambda group: mean_text(group[1], far_value, 3)
    if any("weights_step" in row for row in rows):
        columns["best at step"] = lambda group: ", ".join(str(row["weights_step"]) for row in group[1])
    columns |= {f"KD, {count} steps": samples("kernel_distance", count, 3, False) for count in steps}
    columns |= {f"recognized, {count}": samples("recognised", count, 1, True) for count in steps}
    copied = [count for count in steps if any("copied" in samples_of(row).get(count, {}) for row in rows)]
    columns |= {f"copies, {count}": samples("copied", count, 1, True) for count in copied}
    if any("probe" in row for row in rows):
        columns["linear probe"] = lambda group: mean_text(group[1], probe_value, 1, percent=True)
        columns["k-NN"] = lambda group: mean_text(group[1], knn_value, 1, percent=True)
        columns["layer"] = lambda group: group[1][0].get("probe", {}).get("best_layer", "–")
    return markdown_table(columns, groups)


TITLES = {
    "nll": ("NLL", 3, False),
    "nll_orders": ("NLL, orders", 3, False),
    "far": ("far cells", 3, False),
    "kernel_distance": ("KD", 3, False),
    "recognised": ("recognized", 1, True),
    "copied": ("copies", 1, True),
    "probe": ("linear probe", 1, True),
    "knn": ("k-NN", 1, True),
}
"""Header, digits and unit of each figure."""


def _differences(groups: Sequence[Group]) -> str | None:
    """Paired differences from the first arm with several seeds; None if no arm has them."""
    first = groups[0][1]
    figures = figures_of([row for _, group in groups for row in group])
    compared = [group for group in groups[1:] if len(paired_difference(group[1], first, likelihood)) > 1]
    if not compared:
        return None

    def column(name: str) -> Column:
        _, digits, percent = TITLES[name.partition("_at_")[0]]

        def text(group: Group) -> str:
            apart = paired_difference(group[1], first, figures[name])
            return figure_text(*over_seeds(apart), digits, percent, "+") if len(apart) > 1 else "–"

        return text

    columns: dict[str, Column] = {
        "arm": lambda group: group[0].label,
        "seeds": lambda group: len(paired_difference(group[1], first, likelihood)),
    }
    for name in figures:
        if not any(len(paired_difference(group, first, figures[name])) > 1 for _, group in compared):
            continue
        what, _, steps = name.partition("_at_")
        title = TITLES[what][0] if what != "nll" else likelihood_name(first)
        columns[title + (f", {steps}" if steps else "")] = column(name)
    return markdown_table(columns, compared)


def _nats(row: Row, folder: Path) -> Tensor:
    """Nats per token (M,) of the held-out images."""
    return read_tensors(folder / row["run"] / "nll.safetensors")["values"]
