"""Independent work that processes share: who has done how much, and which of them says what went wrong.

All of it goes through the key-value store of the process group. Nothing here is a collective that all must enter at
about the same time, so shares that take longer than others run into no timeout; and whoever looks at the store also
sees that another process has failed. In a single process every function does the plain thing.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from heptapod.distributed import process_group
from heptapod.distributed.errors import (
    REPORTED_ERRORS,
    LostProcessError,
    OtherProcessFailedError,
    TerminatedError,
    as_lost_process_error,
    one_line,
)

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

POLL_SECONDS = 0.5
REPORT_SECONDS = 3.0
STALL_SECONDS = 1800.0
"""Seconds without any work done after which processes that have not finished are given up."""

T = TypeVar("T")


@contextmanager
def report_failure_once() -> Iterator[None]:
    """Of processes that fail together, or because of each other, one says why; others exit without a word.

    Raises:
        SystemExit: in the others, after a while: torchrun ends all when one has ended, and the first is to speak.
        LostProcessError: if another process is gone.
    """
    try:
        yield
    except TerminatedError:
        raise
    except (Exception, KeyboardInterrupt) as raised:
        error = as_lost_process_error(raised) if isinstance(raised, Exception) else raised
        if isinstance(error, OtherProcessFailedError) or not _is_reporter(error):
            time.sleep(REPORT_SECONDS)
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        if (
            process_group.is_distributed() and process_group.is_main_process()
        ):  # it may keep the store, which the others still look at
            time.sleep(2 * POLL_SECONDS)
        elif process_group.is_distributed() and isinstance(error, REPORTED_ERRORS):
            who = f"in process {process_group.rank()} of {process_group.world_size()}"
            print(f"heptapod: error {who}: {one_line(error)}", file=sys.stderr)
            raise SystemExit(2) from None
        raise error from (None if error is raised else raised)
    except SystemExit as stop:  # the first process tells what is wrong with the arguments
        if stop.code and not process_group.is_main_process():
            time.sleep(REPORT_SECONDS)
        raise


def publish(name: str, value: Any) -> None:
    """Lets the other processes know a value (of what JSON can hold)."""
    if process_group.is_distributed():
        _store().set(_key(name), json.dumps(value))


def wait_for_value(name: str) -> Any:
    """A value that another process tells; waits for it.

    Raises:
        OtherProcessFailedError: if a process fails meanwhile.
    """
    while not _asked(lambda store: store.check([_key(name)])):
        raise_if_other_failed()
        time.sleep(POLL_SECONDS / 5)
    return json.loads(_asked(lambda store: store.get(_key(name))))


def raise_if_other_failed() -> None:
    """Stops where another process has failed.

    Raises:
        OtherProcessFailedError: if one has.
    """
    if process_group.is_distributed() and _asked(lambda store: store.add(_key("failed"), 0)):
        raise OtherProcessFailedError("another process has failed")


class ProgressBar(Protocol):
    """What shows progress."""

    def advance(self, count: int) -> None:
        """Counts work done."""


class SharedProgress:
    """Counts work on the progress bar of the first process, whichever process does it.

    Args:
        name: what is counted, the same for all processes.
        progress: where it is shown.
    """

    def __init__(self, name: str, progress: ProgressBar) -> None:
        self.progress = progress
        self._name = name
        self._own = self._shown = 0  # not yet known to the others; of all, shown
        self._looked = time.monotonic()

    def advance(self, count: int) -> None:
        """Counts work done by this process.

        Raises:
            OtherProcessFailedError: if another process has failed.
        """
        if not process_group.is_distributed():
            self.progress.advance(count)
            return
        self._own += count
        if time.monotonic() - self._looked > POLL_SECONDS:
            self._look()

    def finish(self) -> None:
        """Says that this process has done its share. The first process waits for the others, the others go on.

        Raises:
            OtherProcessFailedError: if another process fails meanwhile.
            ValueError: if nothing is done for too long, as when a process was killed and nobody stopped the others.
        """
        if not process_group.is_distributed():
            return
        self._look()
        _add(f"{self._name}/finished", 1)
        since, before = time.monotonic(), self._shown
        while (
            process_group.is_main_process()
            and (finished := _add(f"{self._name}/finished", 0)) < process_group.world_size()
        ):
            time.sleep(POLL_SECONDS)
            self._look()
            if self._shown != before:
                since, before = time.monotonic(), self._shown
            elif time.monotonic() - since > STALL_SECONDS:
                raise ValueError(
                    f"{process_group.world_size() - finished} of {process_group.world_size()} processes have made no "
                    f"progress for {STALL_SECONDS / 60:.0f} minutes; run the same command again to resume"
                )
        self._look()

    def _look(self) -> None:
        """Tells the others of the work done here, and shows that of all."""
        raise_if_other_failed()
        self._own, own = 0, self._own
        total = _add(self._name, own)
        self.progress.advance(total - self._shown)
        self._shown, self._looked = total, time.monotonic()


def _is_reporter(error: BaseException) -> bool:
    """Counts this process among those that have failed; whether it is the one to say why.

    That is the first process where it fails by itself, else the first to fail. Where the network is gone the store does
    not answer, nor keep a time limit: it is asked in a thread.
    """
    if not process_group.is_distributed():
        return True
    answers: list[bool] = []

    def ask() -> None:
        with suppress(OtherProcessFailedError):
            is_first = _add("failed", 1) == 1
            if process_group.is_main_process():
                by_itself = not isinstance(error, LostProcessError)
                _add("failed/main", int(by_itself))
                answers.append(is_first or by_itself)
                return
            for _ in range(10):  # the same mistake may be met by the first process a moment later
                if _add("failed/main", 0):
                    answers.append(False)
                    return
                time.sleep(POLL_SECONDS / 5)
            answers.append(is_first)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(REPORT_SECONDS + 4 * POLL_SECONDS)
    return answers == [True] or (not answers and isinstance(error, LostProcessError))


def _add(name: str, count: int) -> int:
    return int(_asked(lambda store: store.add(_key(name), count)))


def _asked(question: Callable[[Store], T]) -> T:
    """What the store answers; it is gone only if the process that kept it has failed."""
    try:
        return question(_store())
    except RuntimeError:  # torch's own errors of the network and the store among them
        raise OtherProcessFailedError("the store of the processes is gone") from None


def _store() -> Store:
    return process_group.shared_store()


def _key(name: str) -> str:
    return f"heptapod/{name}"
