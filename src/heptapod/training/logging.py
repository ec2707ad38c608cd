"""Metrics of a run: one JSON object per line, always; TensorBoard on request."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pydantic

from heptapod.utils.files import write_atomically

logger = logging.getLogger(__name__)
_LINE = pydantic.TypeAdapter(dict[str, int | float])


class MetricsLog:
    """Appends metrics to ``metrics.jsonl`` (and to TensorBoard event files).

    Args:
        folder: the run folder.
        resume_step: lines beyond this step, written before a kill, are removed.
        tensorboard: also write event files.
    """

    def __init__(self, folder: Path, resume_step: int, tensorboard: bool) -> None:
        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            kept = [values for values in read_metrics(self.path) if values["step"] <= resume_step]
            text = "".join(json.dumps(values) + "\n" for values in kept)
            write_atomically(self.path, lambda file: file.write_text(text, encoding="utf-8"))
        self._writer: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs values of a step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes the event files."""
        if self._writer is not None:
            self._writer.close()


def read_metrics(path: Path) -> list[dict[str, int | float]]:
    """The lines of a metrics file: ``step`` and the values logged then.

    A last line cut short by a kill is left out, damaged lines with a warning.
    """
    lines = []
    texts = path.read_bytes().splitlines()
    for number, text in enumerate(texts, 1):
        try:
            values = _LINE.validate_json(text)
            if not isinstance(values["step"], int):
                raise KeyError("step")
            lines.append(values)
        except (pydantic.ValidationError, KeyError):
            if number < len(texts):
                logger.warning(f"{path}: line {number} is damaged and left out")
    return lines
