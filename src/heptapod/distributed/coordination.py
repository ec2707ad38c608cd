"""Coordination of independent work: shared progress, published values, and one report of a failure.

Everything goes through the key-value store of the process group. Nothing here is a collective that all ranks must enter
at about the same time, so a slow rank causes no timeout; and every access also shows whether another rank has failed.
In a single process every function does the obvious.
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
    InterruptedRunError,
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
"""Seconds without progress after which unfinished ranks are given up."""

T = TypeVar("T")


@contextmanager
def report_failure_once() -> Iterator[None]:
    """Reports a failure on one rank if several fail together or because of each other; the others exit silently.

    Raises:
        SystemExit: on silent ranks, after a delay: torchrun ends all ranks when one ends, and the report comes first.
        LostProcessError: if another rank is gone.
    """
    try:
        yield
    except (TerminatedError, InterruptedRunError):
        raise
    except (Exception, KeyboardInterrupt) as raised:
        error = as_lost_process_error(raised) if isinstance(raised, Exception) else raised
        if isinstance(error, OtherProcessFailedError) or not _is_reporter(error):
            time.sleep(REPORT_SECONDS)
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        if process_group.is_distributed() and process_group.is_main_process():
            time.sleep(2 * POLL_SECONDS)  # rank 0 may host the store, which the others still read
        elif process_group.is_distributed() and isinstance(error, REPORTED_ERRORS):
            who = f"in process {process_group.rank()} of {process_group.world_size()}"
            print(f"heptapod: error: {who}: {one_line(error)}", file=sys.stderr)
            raise SystemExit(2) from None
        raise error from (None if error is raised else raised)
    except SystemExit as stop:  # rank 0 reports the error
        if stop.code and not process_group.is_main_process():
            time.sleep(REPORT_SECONDS)
        raise


def publish(name: str, value: Any) -> None:
    """Publishes a JSON value for the other ranks."""
    if process_group.is_distributed():
        _store().set(_key(name), json.dumps(value))


def wait_for_value(name: str) -> Any:
    """Waits for a value that another rank publishes.

    Raises:
        OtherProcessFailedError: if a rank fails meanwhile.
    """
    while not _query(lambda store: store.check([_key(name)])):
        raise_if_other_failed()
        time.sleep(POLL_SECONDS / 5)
    return json.loads(_query(lambda store: store.get(_key(name))))


def raise_if_other_failed() -> None:
    """Raises an error if another rank has failed.

    Raises:
        OtherProcessFailedError: if one has.
    """
    if process_group.is_distributed() and _query(lambda store: store.add(_key("failed"), 0)):
        raise OtherProcessFailedError("another process has failed")


class ProgressBar(Protocol):
    """A progress bar."""

    def advance(self, count: int) -> None:
        """Counts work done."""


class SharedProgress:
    """Counts the work of all ranks on the progress bar of rank 0.

    Args:
        name: of the counter, the same on all ranks.
        progress: the bar.
    """

    def __init__(self, name: str, progress: ProgressBar) -> None:
        self.progress = progress
        self._name = name
        self._own = self._shown = 0  # work of this rank not yet in the store; work of all ranks shown
        self._synced = time.monotonic()

    def advance(self, count: int) -> None:
        """Counts work of this rank.

        Raises:
            OtherProcessFailedError: if another rank has failed.
        """
        if not process_group.is_distributed():
            self.progress.advance(count)
            return
        self._own += count
        if time.monotonic() - self._synced > POLL_SECONDS:
            self._sync()

    def finish(self) -> None:
        """Marks the share of this rank as done. Rank 0 waits for the others; the others continue.

        Raises:
            OtherProcessFailedError: if another rank fails meanwhile.
            ValueError: if there is no progress for too long, as when a rank was killed and the others were not.
        """
        if not process_group.is_distributed():
            return
        self._sync()
        _add(f"{self._name}/finished", 1)
        since, before = time.monotonic(), self._shown
        while (
            process_group.is_main_process()
            and (finished := _add(f"{self._name}/finished", 0)) < process_group.world_size()
        ):
            time.sleep(POLL_SECONDS)
            self._sync()
            if self._shown != before:
                since, before = time.monotonic(), self._shown
            elif time.monotonic() - since > STALL_SECONDS:
                raise ValueError(
                    f"{process_group.world_size() - finished} of {process_group.world_size()} processes have made no "
                    f"progress for {STALL_SECONDS / 60:.0f} minutes; run the same command again to resume"
                )
        self._sync()

    def _sync(self) -> None:
        """Adds the work of this rank to the store, and shows the work of all ranks."""
        raise_if_other_failed()
        self._own, own = 0, self._own
        total = _add(self._name, own)
        self.progress.advance(total - self._shown)
        self._shown, self._synced = total, time.monotonic()


def _is_reporter(error: BaseException) -> bool:
    """Registers the failure of this rank; returns whether this rank reports it.

    Rank 0 reports its own failure; otherwise the first rank that failed does. If the network is gone the store neither
    answers nor keeps a time limit, so a thread reads it.
    """
    if not process_group.is_distributed():
        return True
    answers: list[bool] = []

    def register() -> None:
        with suppress(OtherProcessFailedError):
            is_first = _add("failed", 1) == 1
            if process_group.is_main_process():
                is_own = not isinstance(error, LostProcessError)
                _add("failed/main", int(is_own))
                answers.append(is_first or is_own)
                return
            for _ in range(10):  # rank 0 may fail in the same way a moment later
                if _add("failed/main", 0):
                    answers.append(False)
                    return
                time.sleep(POLL_SECONDS / 5)
            answers.append(is_first)

    thread = threading.Thread(target=register, daemon=True)
    thread.start()
    thread.join(REPORT_SECONDS + 4 * POLL_SECONDS)
    return answers == [True] or (not answers and isinstance(error, LostProcessError))


def _add(name: str, count: int) -> int:
    return int(_query(lambda store: store.add(_key(name), count)))


def _query(request: Callable[[Store], T]) -> T:
    """The result of a request to the store, which is gone only if the rank that hosts it has failed."""
    try:
        return request(_store())
    except RuntimeError:  # torch's own errors of the network and the store among them
        raise OtherProcessFailedError("the store of the processes is gone") from None


def _store() -> Store:
    return process_group.shared_store()


def _key(name: str) -> str:
    return f"heptapod/{name}"
