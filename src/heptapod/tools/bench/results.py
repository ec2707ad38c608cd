"""Results of a benchmark: settings, hardware and rows as JSON; Markdown tables; figures."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from heptapod.inference.pipeline import Heptapod
from heptapod.inference.pretrained import find_pretrained
from heptapod.tokenizers import tokenizer_hash
from heptapod.utils.config import to_dict
from heptapod.utils.files import read_json, sha256, write_atomically, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CPU = torch.device("cpu")
MIB = 1 << 20


def hardware(device: torch.device = CPU) -> dict[str, Any]:
    """Processor, cores, threads, device and torch version: what timings depend on. Nothing names the machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": name or platform.processor() or "unknown",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
    }


def describe_hardware(values: Mapping[str, Any]) -> str:
    """The values of :func:`hardware` in one sentence without its period."""
    return (
        f"{values['processor']}, {values['cores']} cores, {values['threads']} thread(s), device {values['device']}, "
        f"torch {values['torch']}"
    )


def describe_model(model: Heptapod, folder: Path) -> dict[str, Any]:
    """Distribution, sampling config and hashes of a model, for the settings of a benchmark."""
    files = [find_pretrained(folder) / name for name in ("config.json", "model.safetensors")]
    return {
        "distribution": to_dict(model.model.config.distribution),
        "sampling": to_dict(model.sampling),
        "sha256": {file.name: sha256(file) for file in files},
        "tokenizer_sha256": tokenizer_hash(model.tokenizer),
    }


def write_rows(out: Path, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Writes the settings, the hardware and the rows of a benchmark on the CPU as JSON; ``more`` adds entries."""
    write_json(out, {"settings": settings, **more, **hardware(), "rows": rows})


def resume_rows(out: Path, settings: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The results in a file, or empty ones with these settings and further entries ``more``.

    Raises:
        SystemExit: if the file has other settings, so that its rows are not comparable.
    """
    if not out.exists():
        return {"settings": dict(settings), **more, "rows": []}
    results = read_json(out)
    if differing := [name for name, value in settings.items() if results["settings"].get(name) != value]:
        raise SystemExit(f"{out}: has other settings ({', '.join(differing)}); choose another --out")
    return results


def save_figure(figure: Figure, path: Path, dpi: int = 130) -> Path:
    """Saves a figure as PNG, whole or not at all; returns the path."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=dpi))
    return path


def short_number(value: float) -> str:
    """Three digits, without powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


Column = str | Callable[[Any], Any]


def markdown_table(columns: Mapping[str, Column], rows: Sequence[Any]) -> str:
    """A Markdown table that also reads well as plain text.

    Args:
        columns: by header, the key of a value in a row, or a function of the row. Integers are written with thousands
            separators, None as an empty cell.
        rows: mappings, or whatever the functions accept.
    """
    values = [[column(row) if callable(column) else row[column] for column in columns.values()] for row in rows]
    cells = [[f"{v:,}" if isinstance(v, int) else "" if v is None else str(v) for v in line] for line in values]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [list(columns), ["-" * width for width in widths], *cells]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
