"""The output of commands on standard error: log records as plain lines, and progress bars.

The library logs to ``logging.getLogger("heptapod....")`` and prints nothing. A command shows these records, and the
progress of whatever runs inside it; other programs see warnings only, unless they configure logging.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import rich.progress
from rich.console import Console

from heptapod.distributed import process_group

logger = logging.getLogger("heptapod")
SECONDS_BETWEEN_LINES = 20.0
_console = Console(stderr=True)
_in_command = False


@contextmanager
def command_output() -> Iterator[None]:
    """Shows log records and progress on standard error while a command runs."""
    global _in_command
    handler, level, before = _Lines(), logger.level, _in_command
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    _in_command = True
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        _in_command = before


class _Lines(logging.Handler):
    """Prints messages as they are, of rank 0 or where ``extra={"all_ranks": True}``."""

    def emit(self, record: logging.LogRecord) -> None:
        if process_group.is_main_process() or getattr(record, "all_ranks", False):
            prefix = "warning: " if record.levelno >= logging.WARNING else ""
            _print(f"{prefix}{record.getMessage()}")


class Progress:
    """A progress bar with the rate and the time left in a terminal; a line now and then in a log file.

    Args:
        title: describes the work.
        total: units of work.
        unit: name of a unit, for the rate.
        done: units done before.
        shown: whether to show it; None shows it in commands only. Ranks other than 0 show nothing.
    """

    def __init__(self, title: str, total: int, unit: str = "images", done: int = 0, shown: bool | None = None) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self._start_done = self._done = done
        self._is_shown = (_in_command if shown is None else shown) and process_group.is_main_process()
        self._started = self._last_line = time.monotonic()
        self._note = ""
        self._bar = rich.progress.Progress(
            "[bold]{task.description}",
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TaskProgressColumn(),
            "{task.fields[rate]}",
            rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            "{task.fields[note]}",
            console=_console,
            disable=not (self._is_shown and _console.is_terminal),
        )
        self._task = self._bar.add_task(title, total=total, completed=done, rate="", note="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def done(self) -> int:
        """Units of work done."""
        return self._done

    def advance(self, count: int, note: str | None = None, rate_factor: float = 1) -> None:
        """Counts work done; ``note`` stays next to the bar, ``rate_factor`` is the number of units per step."""
        self._done += count
        self._note = self._note if note is None else note
        if not self._is_shown:
            return
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self._done - self._start_done) * rate_factor / elapsed
        rate_text = f"{rate:,.0f} {self.unit}/s"
        if _console.is_terminal:
            self._bar.update(self._task, advance=count, rate=rate_text, note=self._note)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            left = (self.total - self._done) * elapsed / max(self._done - self._start_done, 1)
            _print(f"{self.title}: {self._done:,}/{self.total:,}, {rate_text}, {left:,.0f} s left {self._note}")


def _print(line: str) -> None:
    _console.print(line, highlight=False, soft_wrap=True, markup=False)
