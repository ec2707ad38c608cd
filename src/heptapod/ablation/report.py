"""The report of a study: JSON, CSV, pictures and a page, all from the rows of its runs and nothing else."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heptapod.ablation.plots import curves_picture, samples_picture, steps_picture
from heptapod.ablation.study import Arm, Budget, Study, arm_recipe
from heptapod.config import to_dict
from heptapod.files import read_json, read_tensors, write_atomically, write_json

Row = dict[str, Any]


def write_report(study: Study, rows: Sequence[Row]) -> list[Path]:
    """Writes ``results.json``, ``results.csv``, the pictures and ``report.md`` into the study's folder.

    Raises:
        ValueError: if no run is finished.
    """
    if not rows:
        raise ValueError(f"out: no run of the study in {study.out} is finished; there is nothing to report")
    folder = Path(study.out)
    plan = read_json(folder / "plan.json")
    write_json(folder / "results.json", {"study": to_dict(study), "plan": plan, "rows": list(rows)})
    write_atomically(folder / "results.csv", lambda file: _write_csv(file, rows))
    pictures = [
        curves_picture(study, rows, folder),
        steps_picture(study, rows, folder),
        samples_picture(study, rows, folder),
    ]
    drawn = [picture for picture in pictures if picture is not None]
    text = page(study, rows, plan, [picture.name for picture in drawn])
    write_atomically(folder / "report.md", lambda file: file.write_text(text, encoding="utf-8"))
    return [folder / "report.md", folder / "results.json", folder / "results.csv", *drawn]


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
        f"Recipe `{study.recipe}` with the changes in `results.json`. Time is counted as the training steps of an arm "
        f"times the seconds of one, timed for all arms in turn on {hardware['processor']}, {hardware['threads']} "
        f"thread(s), device {hardware['device']}, torch {hardware['torch']}; loading, evaluation and checkpoints are "
        "not counted. Likelihoods (NLL) are of held-out images, by the chain rule in the order of training, in nats "
        "per token, so that they compare across heads and orders; Δ is the difference from the first arm of the table "
        "on the same images, and its standard error (of several seeds: of the first). No guidance.",
    ]
    if measures.samples and measures.reference:
        parts.append(_about_samples(study, rows))
    parts.append("± is the standard deviation over seeds where there are several, else the standard error.")
    for budget in _budgets(study):
        own = [row for row in rows if row["budget"] == f"{budget.equal}-{budget.steps}"]
        if own:
            parts += [f"## {_title(budget, plan)}", *_tables(study, own)]
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in pictures]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about_samples(study: Study, rows: Sequence[Row]) -> str:
    measures = study.measures
    judged = [
        found["judge_accuracy_on_real"] for row in rows for found in _samples(row).values() if "recognised" in found
    ]
    text = (
        f"Samples: {measures.samples} per number of steps, classes in equal numbers, seeds 0 to "
        f"{measures.samples - 1}, temperature {_temperature(study)}. KD: kernel distance in EfficientNet-Lite0 "
        f"features (not KID) to {measures.reference_images:,} real images of `{measures.reference}`, lower is better."
    )
    if judged:
        text += (
            " Recognised: the share taken for its label by a logistic regression on those features of real images, "
            f"which takes {judged[0]:.0%} of real images for theirs."
        )
    if measures.probe_images:
        text += (
            f" Linear probe: of mean-pooled hidden states without the label, {measures.probe_images:,} training and "
            "half as many held-out images, the layer chosen on training images."
        )
    return text


def _budgets(study: Study) -> list[Budget]:
    """One of each kind and length."""
    return list({(budget.equal, budget.steps): budget for budget in study.budgets}.values())


def _title(budget: Budget, plan: dict[str, Any]) -> str:
    if budget.equal == "steps":
        return f"Equal steps: {budget.steps:,} each"
    seconds = budget.steps * plan["arms"][plan["first"]]["seconds_per_step"]
    return f"Equal time: {seconds:,.0f} s each, as the first arm needs for {budget.steps:,} steps"


def _temperature(study: Study) -> str:
    given = study.measures.temperature
    return str(arm_recipe(study, study.arms()[0]).sampling.temperature if given is None else given)


def _tables(study: Study, rows: Sequence[Row]) -> list[str]:
    """A table per order and distribution, each arm compared with the first of its table."""
    tables = []
    for kind in study.distributions:
        for order in study.token_orders:
            arms = [arm for arm in study.arms() if (arm.distribution, arm.token_order) == (kind, order)]
            groups = [(arm, [row for row in rows if row["arm"] == arm.name]) for arm in arms]
            groups = [(arm, group) for arm, group in groups if group]
            if groups:
                heading = f"{order} order" + (f", {kind}" if len(study.distributions) > 1 else "")
                tables.append(f"**{heading[0].upper()}{heading[1:]}**\n\n{_table(groups, Path(study.out))}")
    return tables


def _table(groups: Sequence[tuple[Arm, list[Row]]], folder: Path) -> str:
    steps = sorted({int(s) for _, group in groups for row in group for s in _samples(row)}, reverse=True)
    probed = any(_found(row, "probe_") for _, group in groups for row in group)
    header = ["arm", "parameters", "steps", "seeds", "NLL", "Δ"]
    header += [f"KD, {count} steps" for count in steps] + [f"recognised, {count}" for count in steps]
    header += ["linear probe", "layer"] if probed else []
    lines = [header, ["---"] * len(header)]
    for arm, group in groups:
        first = group[0]
        cells = [arm.label, f"{first['parameters']:,}", f"{first['steps']:,}", str(len(group))]
        cells += [_mean(group, _likelihood, 3), _difference(first, groups[0][1][0], folder)]
        for count in steps:
            cells.append(_mean(group, lambda row, n=count: _sample(row, n, "kernel_distance"), 3))
        for count in steps:
            cells.append(_mean(group, lambda row, n=count: _sample(row, n, "recognised"), 1, percent=True))
        if probed:
            cells += [_mean(group, _probe, 1, percent=True), (_found(first, "probe_") or {}).get("best_layer", "–")]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


Value = tuple[float, float | None] | None


def _mean(rows: Sequence[Row], value: Any, digits: int, percent: bool = False) -> str:
    """Mean over seeds ± their standard deviation; of one seed the value ± its own error."""
    values: list[tuple[float, float | None]] = [v for row in rows if (v := value(row)) is not None]
    if not values:
        return "–"
    mean = statistics.fmean(v for v, _ in values)
    spread = statistics.stdev(v for v, _ in values) if len(values) > 1 else values[0][1]
    scale, unit = (100, "%") if percent else (1, "")
    error = "" if spread is None else f" ± {spread * scale:.{digits}f}"
    return f"{mean * scale:.{digits}f}{error}{unit}"


def _difference(row: Row, baseline: Row, folder: Path) -> str:
    """Mean difference of the held-out likelihoods of the same images, and its standard error."""
    if row is baseline:
        return "–"
    values, others = (read_tensors(folder / r["run"] / "nll.safetensors")["values"] for r in (row, baseline))
    paired = values - others
    return f"{float(paired.mean()):+.3f} ± {float(paired.std()) / len(paired) ** 0.5:.3f}"


def _found(row: Row, prefix: str) -> dict[str, Any] | None:
    """What was measured under a name that begins so."""
    return next((value for key, value in row.items() if key.startswith(prefix)), None)


def _likelihood(row: Row) -> Value:
    found = _found(row, "nll_")
    if found is None:
        return None
    value: float = found["nats_per_token"] if "nats_per_token" in found else found["loss"]
    return value, found["standard_error"]


def _samples(row: Row) -> dict[int, dict[str, Any]]:
    """What was measured of samples, by number of steps."""
    return {int(key.rpartition("_")[2]): value for key, value in row.items() if key.startswith("samples_")}


def _sample(row: Row, steps: int, name: str) -> Value:
    found = _samples(row).get(steps, {})
    if name not in found:
        return None
    return found[name], found.get("standard_error") if name == "kernel_distance" else None


def _probe(row: Row) -> Value:
    found = _found(row, "probe_")
    return (found["accuracy"], None) if found else None
