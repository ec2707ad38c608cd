"""Stub, replaced below."""

from pathlib import Path
from typing import Any

from heptapod.ablation.study import Study
from heptapod.files import write_json


def write_report(study: Study, rows: list[dict[str, Any]]) -> list[Path]:
    path = Path(study.out) / "results.json"
    write_json(path, {"rows": rows})
    return [path]
