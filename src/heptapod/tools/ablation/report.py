"""The report of a study: JSON, CSV, pictures and a page, all from the rows of its runs and nothing else."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from heptapod import __version__
from heptapod.tools.ablation.plots import curves_picture, samples_picture, steps_picture
from heptapod.tools.ablation.study import Arm, Budget, Study, arm_recipe
from heptapod.utils.config import to_dict
from heptapod.utils.files import read_json, read_tensors, write_atomically, write_json

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
    drawn = [
        picture
        for draw in (curves_picture, steps_picture, samples_picture)
        if (picture := draw(study, rows, folder)) is not None
    ]
    text = page(study, rows, plan, [picture.name for picture in drawn])
    about = {"heptapod": __version__, "study": to_dict(study), "plan": plan}
    write_json(folder / "results.json", {**about, "rows": list(rows)})
    write_atomically(folder / "results.csv", lambda file: _write_csv(file, rows))
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
        f"times the seconds of one, each arm timed in turn with the first one on {hardware['processor']}, "
        f"{hardware['threads']} thread(s), device {hardware['device']}, torch {hardware['torch']}; reading, evaluation "
        "and checkpoints are not counted. What is measured are the final weights (their moving average). Likelihoods "
        "(NLL) are of held-out images, by the chain rule in the order of training, in nats per token, so that they "
        "compare across heads and orders; Δ is the difference from the first arm of the table on the same images. "
        "No guidance.",
    ]
    if measures.samples and measures.reference:
        parts.append(_about_samples(study, rows))
    parts.append(
        "± is the standard deviation over seeds where there are several; else it is the standard error over images of "
        "one trained model, which does not tell how much another training would differ."
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
            " Linear probe: of mean-pooled hidden states without the label, "
            f"{max(row['probe']['train_images'] for row in rows):,} training and "
            f"{max(row['probe']['test_images'] for row in rows):,} held-out images, the layer chosen on training ones."
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
    probed = any("probe" in row for _, group in groups for row in group)
    name = "NLL" if "nats_per_token" in groups[0][1][0]["nll"] else "training loss, held out"
    header = ["arm", "parameters", "steps", "seeds", name, "Δ"]
    header += [f"KD, {count} steps" for count in steps] + [f"recognized, {count}" for count in steps]
    header += ["linear probe", "layer"] if probed else []
    lines = [header, ["---"] * len(header)]
    for arm, group in groups:
        first = group[0]
        cells = [arm.label, f"{first['parameters']:,}", f"{first['steps']:,}", str(len(group))]
        cells += [_mean(group, _likelihood, 3), _difference(group, groups[0][1], folder)]
        for count in steps:
            cells.append(_mean(group, lambda row, n=count: _sample(row, n, "kernel_distance"), 3))
        for count in steps:
            cells.append(_mean(group, lambda row, n=count: _sample(row, n, "recognised"), 1, percent=True))
        if probed:
            cells += [_mean(group, _probe, 1, percent=True), first.get("probe", {}).get("best_layer", "–")]
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


def _difference(group: Sequence[Row], baseline: Sequence[Row], folder: Path) -> str:
    """Mean difference of the held-out likelihoods of the same images: over seeds that both have, ± their deviation."""
    if group is baseline:
        return "–"
    others = {row["seed"]: row for row in baseline}
    paired = [_nats(row, folder) - _nats(others[row["seed"]], folder) for row in group if row["seed"] in others]
    if not paired:
        return "–"
    means = [float(values.mean()) for values in paired]
    spread = statistics.stdev(means) if len(means) > 1 else float(paired[0].std()) / len(paired[0]) ** 0.5
    return f"{statistics.fmean(means):+.3f} ± {spread:.3f}"


def _nats(row: Row, folder: Path) -> Tensor:
    """(M,) of every held-out image."""
    return read_tensors(folder / row["run"] / "nll.safetensors")["values"]


def _likelihood(row: Row) -> Value:
    found = row["nll"]
    value: float = found["nats_per_token"] if "nats_per_token" in found else found["loss"]
    return value, found["standard_error"]


def _samples(row: Row) -> dict[int, dict[str, Any]]:
    """What was measured of samples, by number of steps."""
    return {int(key.rpartition("_")[2]): value for key, value in row.items() if key.startswith("samples_at_")}


def _sample(row: Row, steps: int, name: str) -> Value:
    found = _samples(row).get(steps, {})
    if name not in found:
        return None
    return found[name], found.get("standard_error") if name == "kernel_distance" else None


def _probe(row: Row) -> Value:
    return (row["probe"]["accuracy"], None) if "probe" in row else None
