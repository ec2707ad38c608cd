"""Progress on standard error: a live bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from types import TracebackType

import rich.progress
from rich.console import Console

from heptapod.distributed import process_group

SECONDS_BETWEEN_LINES = 20.0


class Progress:
    """A progress bar with the rate and the time left.

    Args:
        title: what is going on.
        total: units of work.
        unit: name of a unit, for the rate.
        done: units done before.
    """

    def __init__(self, title: str, total: int, unit: str = "images", done: int = 0) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self._start_done = self._done = done
        self._console = Console(stderr=True, quiet=not process_group.is_main_process())
        self._started = self._last_line = time.monotonic()
        self._note = ""
        self._bar = rich.progress.Progress(
            "[bold]{task.description}",
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TaskProgressColumn(),
            "{task.fields[rate]}",
            rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            "{task.fields[note]}",
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, rate="", note="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, count: int, note: str | None = None, rate_factor: int = 1) -> None:
        """Counts work done; ``note`` stays beside the bar, ``rate_factor`` is how many units one step is."""
        self._done += count
        self._note = self._note if note is None else note
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self._done - self._start_done) * rate_factor / elapsed
        rate_text = f"{rate:,.0f} {self.unit}/s"
        if self._console.is_terminal:
            self._bar.update(self._task, advance=count, rate=rate_text, note=self._note)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            left = (self.total - self._done) * elapsed / max(self._done - self._start_done, 1)
            self._console.print(
                f"{self.title}: {self._done:,}/{self.total:,}, {rate_text}, {left:,.0f} s left {self._note}",
                highlight=False,
                soft_wrap=True,
            )

    def say(self, message: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(message, highlight=False, soft_wrap=True)


def say(message: str, everywhere: bool = False) -> None:
    """Prints a line to standard error; of several processes the first one does, or each that comes here."""
    Console(stderr=True, quiet=not (everywhere or process_group.is_main_process())).print(
        message, highlight=False, soft_wrap=True, markup=False
    )


class Silent:
    """Stands in for a progress bar."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def advance(self, count: int) -> None:
        """Shows nothing."""
