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
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist

from heptapod import parallel
from heptapod.errors import TOLD, LostProcessError, OtherFailedError, TerminatedError, in_a_line, named
from heptapod.progress import Progress

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_SPEAK = 3.0
STALLED = 1800.0
"""Seconds without any work done after which processes that have not finished are given up."""

T = TypeVar("T")


@contextmanager
def one_voice() -> Iterator[None]:
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
        error = named(raised) if isinstance(raised, Exception) else raised
        if isinstance(error, OtherFailedError) or not _speaks(error):
            time.sleep(SECONDS_TO_SPEAK)
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        if parallel.is_parallel() and parallel.is_main():  # it may keep the store, which the others still look at
            time.sleep(2 * SECONDS_BETWEEN_LOOKS)
        elif parallel.is_parallel() and isinstance(error, TOLD):
            who = f"in process {parallel.rank()} of {parallel.world_size()}"
            print(f"heptapod: error {who}: {in_a_line(error)}", file=sys.stderr)
            raise SystemExit(2) from None
        raise error from (None if error is raised else raised)
    except SystemExit as stop:  # the first process tells what is wrong with the arguments
        if stop.code and not parallel.is_main():
            time.sleep(SECONDS_TO_SPEAK)
        raise


def tell(name: str, value: Any) -> None:
    """Lets the other processes know a value (of what JSON can hold)."""
    if parallel.is_parallel():
        _store().set(_key(name), json.dumps(value))


def told(name: str) -> Any:
    """A value that another process tells; waits for it.

    Raises:
        OtherFailedError: if a process fails meanwhile.
    """
    while not _asked(lambda store: store.check([_key(name)])):
        check_others()
        time.sleep(SECONDS_BETWEEN_LOOKS / 5)
    return json.loads(_asked(lambda store: store.get(_key(name))))


def check_others() -> None:
    """Stops where another process has failed.

    Raises:
        OtherFailedError: if one has.
    """
    if parallel.is_parallel() and _asked(lambda store: store.add(_key("failed"), 0)):
        raise OtherFailedError("another process has failed")


class SharedCount:
    """Counts work on the progress bar of the first process, whichever process does it.

    Args:
        name: what is counted, the same for all processes.
        progress: where it is shown.
    """

    def __init__(self, name: str, progress: Progress) -> None:
        self.progress = progress
        self._name = name
        self._own = self._shown = 0  # not yet known to the others; of all, shown
        self._looked = time.monotonic()

    def advance(self, count: int) -> None:
        """Counts work done by this process.

        Raises:
            OtherFailedError: if another process has failed.
        """
        if not parallel.is_parallel():
            self.progress.advance(count)
            return
        self._own += count
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self._look()

    def finish(self) -> None:
        """Says that this process has done its share. The first process waits for the others, the others go on.

        Raises:
            OtherFailedError: if another process fails meanwhile.
            ValueError: if nothing is done for too long, as when a process was killed and nobody stopped the others.
        """
        if not parallel.is_parallel():
            return
        self._look()
        _add(f"{self._name}/finished", 1)
        since, before = time.monotonic(), self._shown
        while parallel.is_main() and (finished := _add(f"{self._name}/finished", 0)) < parallel.world_size():
            time.sleep(SECONDS_BETWEEN_LOOKS)
            self._look()
            if self._shown != before:
                since, before = time.monotonic(), self._shown
            elif time.monotonic() - since > STALLED:
                raise ValueError(
                    f"{parallel.world_size() - finished} of {parallel.world_size()} processes have done nothing for "
                    f"{STALLED / 60:.0f} minutes; give the same command again, what is done stays done"
                )
        self._look()

    def _look(self) -> None:
        """Tells the others of the work done here, and shows that of all."""
        check_others()
        self._own, own = 0, self._own
        total = _add(self._name, own)
        self.progress.advance(total - self._shown)
        self._shown, self._looked = total, time.monotonic()


def _speaks(error: BaseException) -> bool:
    """Counts this process among those that have failed; whether it is the one to say why.

    That is the first process where it fails by itself, else the first to fail. Where the network is gone the store does
    not answer, nor keep a time limit: it is asked in a thread.
    """
    if not parallel.is_parallel():
        return True
    answers: list[bool] = []

    def ask() -> None:
        with suppress(OtherFailedError):
            is_first = _add("failed", 1) == 1
            if parallel.is_main():
                by_itself = not isinstance(error, LostProcessError)
                _add("failed/main", int(by_itself))
                answers.append(is_first or by_itself)
                return
            for _ in range(10):  # the same mistake may be met by the first process a moment later
                if _add("failed/main", 0):
                    answers.append(False)
                    return
                time.sleep(SECONDS_BETWEEN_LOOKS / 5)
            answers.append(is_first)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS_TO_SPEAK + 4 * SECONDS_BETWEEN_LOOKS)
    return answers == [True] or (not answers and isinstance(error, LostProcessError))


def _add(name: str, count: int) -> int:
    return int(_asked(lambda store: store.add(_key(name), count)))


def _asked(question: Callable[[Store], T]) -> T:
    """What the store answers; it is gone only if the process that kept it has failed."""
    try:
        return question(_store())
    except RuntimeError:  # torch's own errors of the network and the store among them
        raise OtherFailedError("the store of the processes is gone") from None


def _store() -> Store:
    return dist.distributed_c10d._get_default_store()


def _key(name: str) -> str:
    return f"heptapod/{name}"
