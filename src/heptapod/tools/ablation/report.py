"""The report of a study: JSON, CSV, figures and a page, all from the rows of its runs."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from heptapod import __version__
from heptapod.tools.ablation.plan import read_plan
from heptapod.tools.ablation.plots import curves_picture, samples_picture, steps_picture
from heptapod.tools.ablation.study import Arm, Budget, Study, arm_recipe
from heptapod.tools.bench.results import Column, describe_hardware, markdown_table
from heptapod.utils.config import to_dict
from heptapod.utils.files import read_tensors, write_atomically, write_json

Row = dict[str, Any]


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
    figures = [draw(study, rows, folder) for draw in (curves_picture, steps_picture, samples_picture)]
    written = [figure for figure in figures if figure is not None]
    text = page(study, rows, plan, [figure.name for figure in written])
    about = {"heptapod": __version__, "study": to_dict(study), "plan": plan}
    write_json(folder / "results.json", {**about, "rows": list(rows)})
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
        "evaluation and checkpoints. All measures use the final weights (EMA). NLL: negative log-likelihood of "
        "held-out images by the chain rule in the trained order, in nats per token, comparable across heads and "
        "orders. Δ: difference from the first arm of the table on the same images. No guidance.",
    ]
    if measures.samples and measures.reference:
        parts.append(_about_samples(study, rows))
    parts.append(
        "±: standard deviation over seeds if there are several, otherwise the standard error over images of one "
        "trained model, which does not include the variation between trainings."
    )
    for budget in _budgets(study):
        own = [row for row in rows if row["budget"] == f"{budget.equal}-{budget.steps}"]
        if own:
            parts += [f"## {_title(budget, plan)}", *_tables(study, own)]
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in pictures]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about_samples(study: Study, rows: Sequence[Row]) -> str:
    measures = study.measures
    judged = [
        measured["judge_accuracy_on_real"]
        for row in rows
        for measured in _samples(row).values()
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
    if measures.probe_images:
        text += (
            " Linear probe: on mean-pooled hidden states without the label, with "
            f"{max(row['probe']['train_images'] for row in rows):,} training and "
            f"{max(row['probe']['test_images'] for row in rows):,} held-out images; the layer is chosen on the "
            "training images."
        )
    return text


def _budgets(study: Study) -> list[Budget]:
    """The budgets without duplicates."""
    return list({(budget.equal, budget.steps): budget for budget in study.budgets}.values())


def _title(budget: Budget, plan: dict[str, Any]) -> str:
    if budget.equal == "steps":
        return f"Equal steps: {budget.steps:,} each"
    seconds = budget.steps * plan["arms"][plan["first"]]["seconds_per_step"]
    return f"Equal time: {seconds:,.0f} s each, the time of {budget.steps:,} steps of the first arm"


def _temperature(study: Study) -> str:
    given = study.measures.temperature
    return str(arm_recipe(study, study.arms()[0]).sampling.temperature if given is None else given)


def _tables(study: Study, rows: Sequence[Row]) -> list[str]:
    """A table per order and distribution; each arm is compared with the first one of its table."""
    tables = []
    for kind in study.distributions:
        for order in study.token_orders:
            arms = [arm for arm in study.arms() if (arm.distribution, arm.token_order) == (kind, order)]
            groups = [(arm, [row for row in rows if row["arm"] == arm.name]) for arm in arms]
            groups = [(arm, group) for arm, group in groups if group]
            if groups:
                heading = f"{order} order" + (f", {kind}" if len(study.distributions) > 1 else "")
                tables.append(f"**{heading[0].upper()}{heading[1:]}**\n\n{_table(groups)}")
    return tables


def _table(groups: Sequence[tuple[Arm, list[Row]]]) -> str:
    steps = sorted({int(s) for _, group in groups for row in group for s in _samples(row)}, reverse=True)
    name = "NLL" if "nats_per_token" in groups[0][1][0]["nll"] else "training loss, held out"

    def samples(key: str, count: int, digits: int, percent: bool) -> Column:
        return lambda group: _mean(group[1], lambda row: _sample(row, count, key), digits, percent)

    columns: dict[str, Column] = {
        "arm": lambda group: group[0].label,
        "parameters": lambda group: group[1][0]["parameters"],
        "steps": lambda group: group[1][0]["steps"],
        "seeds": lambda group: len(group[1]),
        name: lambda group: _mean(group[1], _likelihood, 3),
        "Δ": lambda group: _mean(group[1], _difference, 3, sign="+"),
    }
    columns |= {f"KD, {count} steps": samples("kernel_distance", count, 3, False) for count in steps}
    columns |= {f"recognized, {count}": samples("recognised", count, 1, True) for count in steps}
    if any("probe" in row for _, group in groups for row in group):
        columns["linear probe"] = lambda group: _mean(group[1], _probe, 1, percent=True)
        columns["layer"] = lambda group: group[1][0].get("probe", {}).get("best_layer", "–")
    return markdown_table(columns, groups)


Value = tuple[float, float | None] | None


def _mean(rows: Sequence[Row], value: Any, digits: int, percent: bool = False, sign: str = "") -> str:
    """Mean over seeds ± their standard deviation, or the value of a single seed ± its error."""
    values: list[tuple[float, float | None]] = [v for row in rows if (v := value(row)) is not None]
    if not values:
        return "–"
    mean = statistics.fmean(v for v, _ in values)
    spread = statistics.stdev(v for v, _ in values) if len(values) > 1 else values[0][1]
    scale, unit = (100, "%") if percent else (1, "")
    error = "" if spread is None else f" ± {spread * scale:.{digits}f}"
    return f"{mean * scale:{sign}.{digits}f}{error}{unit}"


def _nats(row: Row, folder: Path) -> Tensor:
    """Nats per token (M,) of the held-out images."""
    return read_tensors(folder / row["run"] / "nll.safetensors")["values"]


def _likelihood(row: Row) -> Value:
    nll = row["nll"]
    value: float = nll["nats_per_token"] if "nats_per_token" in nll else nll["loss"]
    return value, nll["standard_error"]


def _difference(row: Row) -> Value:
    found = row.get("difference")
    return None if found is None else (found["mean"], found["standard_error"])


def _samples(row: Row) -> dict[int, dict[str, Any]]:
    """The measures of samples, by number of steps."""
    return {int(key.rpartition("_")[2]): value for key, value in row.items() if key.startswith("samples_at_")}


def _sample(row: Row, steps: int, name: str) -> Value:
    measured = _samples(row).get(steps, {})
    if name not in measured:
        return None
    return measured[name], measured.get("standard_error") if name == "kernel_distance" else None


def _probe(row: Row) -> Value:
    return (row["probe"]["accuracy"], None) if "probe" in row else None
