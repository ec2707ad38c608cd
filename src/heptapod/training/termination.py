"""Signals that stop training: noted when they arrive, obeyed at the end of a step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

from heptapod.utils.interrupts import end_at_once, interrupt, is_repeated, say_at_once

SIGNALS = {
    signal.SIGINT: "Ctrl+C",
    signal.SIGTERM: "SIGTERM",  # which schedulers send to stop a job
    **({signal.SIGHUP: "SIGHUP"} if hasattr(signal, "SIGHUP") else {}),  # the terminal was closed
}


class Termination:
    """Notes SIGINT (Ctrl+C), SIGTERM and SIGHUP while it is entered; a second Ctrl+C stops at once.

    Only in the main thread, where Python delivers signals; ignored signals stay ignored.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        """The first signal that arrived."""
        self._since = 0.0
        self._before: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_command = self._before.get(signal.SIGINT) is interrupt
        if self.requested is None:
            self.requested, self._since = signal.Signals(number), time.monotonic()
            if number == signal.SIGINT and is_command:
                say_at_once("Ctrl+C: saving a checkpoint after this step (once more to stop without it)")
        elif number == signal.SIGINT and not is_repeated(self._since):
            if is_command:
                end_at_once(number, frame)
            raise KeyboardInterrupt
