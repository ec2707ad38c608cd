"""Metrics of a run: one JSON object per line, always; TensorBoard on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heptapod.utils.files import write_atomically


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
            kept = [line for line in read_metrics(self.path) if line["step"] <= resume_step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line cut short by a kill is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
