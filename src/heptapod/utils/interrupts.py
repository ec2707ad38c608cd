"""Ctrl+C in commands: the first interrupts the command, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

INTERRUPTED = 130
"""Exit code of a process that Ctrl+C ended."""
REPEAT_SECONDS = 2.0
"""A second SIGINT this soon is no second Ctrl+C under torchrun, which passes the terminal's signal on once more."""
SHOW_CURSOR = "\x1b[?25h"


def end_quietly_during_imports() -> None:
    """Until :func:`interrupt_command`, Ctrl+C ends the process with one line: there is nothing to save or clean up.

    A program that ignores SIGINT, as a shell's background jobs do, continues to ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)


def interrupt_command() -> None:
    """From now on Ctrl+C is a KeyboardInterrupt, after :func:`end_quietly_during_imports`."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt; the next Ctrl+C ends the process at once."""
    since = time.monotonic()

    def again(number: int, frame: FrameType | None) -> None:
        if not is_repeated(since):
            end_at_once(number, frame)

    signal.signal(signal.SIGINT, again)
    raise KeyboardInterrupt


def is_repeated(since: float) -> bool:
    """Whether a SIGINT now is the one of some time ago (time.monotonic), which torchrun has passed on."""
    return "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - since < REPEAT_SECONDS


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Ends the process without cleaning up, with one line."""
    say_at_once("interrupted")
    os._exit(INTERRUPTED)


def say_at_once(line: str) -> None:
    """Writes a line to standard error from a signal handler, on rank 0 only, where a log record would not be safe."""
    if os.environ.get("RANK", "0") == "0":
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        os.write(2, f"{SHOW_CURSOR if is_terminal else ''}{line}\n".encode())
