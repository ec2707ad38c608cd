"""SIGTERM, which schedulers send to stop a job: noted when it arrives, obeyed at the end of a step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Termination:
    """Notes SIGTERM while it is entered; only in the main thread, where Python delivers signals."""

    def __init__(self) -> None:
        self.requested = False
        self._before: signal._HANDLER = None
        self._listens = False

    def __enter__(self) -> Termination:
        self._listens = threading.current_thread() is threading.main_thread()
        if self._listens:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listens:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
