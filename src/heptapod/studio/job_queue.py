"""The desk: requests wait in one bounded line, one worker per device serves them in turn.

A piece of work is a generator: the worker takes one value after another from it and looks in between whether its client
is still there, so that a client who leaves frees the device within one step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

from heptapod.inference.pipeline import Heptapod

log = logging.getLogger(__name__)
MOST_UNSENT = 32 << 20
"""Bytes of results that may wait for a slow client; before more is made for it, the worker waits too."""
PATIENCE = 10.0
"""Seconds that a worker waits for one client in all."""

Models = Mapping[str, Heptapod]
Work = Callable[[Models], Iterator[bytes | None]]
"""Results for the client; None between two of them is a moment at which it may be given up."""


class FullError(Exception):
    """The line is full."""


class RefusedError(ValueError):
    """What was asked for turns out to be impossible while it is done."""


@dataclass(frozen=True)
class Ahead:
    """So many requests must end first."""

    count: int


@dataclass(frozen=True)
class Failure:
    """The work was given up."""

    detail: str
    is_ours: bool = False
    """Not the client's doing."""


class Ticket:
    """A request's place in the line. Made and read in the server's event loop, served by a worker's thread."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.has_left = threading.Event()
        self.made = 0
        self.sent = 0
        self.patience = PATIENCE
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Queue[bytes | Ahead | Failure | None] = asyncio.Queue()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client. Each thread has a count of its own: the worker adds, the loop takes away."""
        return self.made - self.sent

    def put(self, result: bytes | Ahead | Failure | None) -> None:
        """Hands a result over, from any thread; None ends."""
        if isinstance(result, bytes):
            self.made += len(result)
        with contextlib.suppress(RuntimeError):  # the server is being stopped, and nobody reads
            self._loop.call_soon_threadsafe(self._results.put_nowait, result)

    async def results(self) -> AsyncIterator[bytes | Ahead | Failure]:
        """What comes of it, to the end."""
        while (result := await self._results.get()) is not None:
            if isinstance(result, bytes):
                self.sent += len(result)
            yield result

    def leave(self) -> None:
        """Says that nobody waits for results any more."""
        self.has_left.set()


class JobQueue:
    """The line and its workers.

    Args:
        devices: the models by name, once for every device.
        most_waiting: requests that may wait; more are refused.
    """

    def __init__(self, devices: list[Models], most_waiting: int) -> None:
        self.most_waiting = most_waiting
        self._waiting: deque[Ticket] = deque()
        self._being_served = 0
        self._changed = threading.Condition()
        self._is_open = True
        self._workers = [threading.Thread(target=self._serve, args=(models,), daemon=True) for models in devices]
        for worker in self._workers:
            worker.start()

    def enter(self, work: Work) -> Ticket:
        """Takes a place at the end of the line.

        Raises:
            FullError: if it is full.
        """
        ticket = Ticket(work)
        with self._changed:
            self._forget_those_who_left()
            if len(self._waiting) >= self.most_waiting:
                raise FullError(f"{len(self._waiting)} requests are waiting already, try again later")
            self._waiting.append(ticket)
            self._tell_place(len(self._waiting) - 1)
            self._changed.notify()
        return ticket

    @property
    def num_waiting(self) -> int:
        """Requests in the line."""
        with self._changed:
            self._forget_those_who_left()
            return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether no worker has anything to do."""
        with self._changed:
            return not self._being_served and not self._waiting

    def close(self) -> None:
        """Stops after the steps that are being made."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        for worker in self._workers:
            worker.join(timeout=10)

    def _serve(self, models: Models) -> None:
        while (ticket := self._next()) is not None:
            try:
                self._do(ticket, models)
            finally:
                with self._changed:
                    self._being_served -= 1
                    self._forget_those_who_left()
                    for place in range(len(self._waiting)):
                        self._tell_place(place)
                ticket.put(None)
                del ticket  # and with it what it holds, while waiting for the next

    def _next(self) -> Ticket | None:
        with self._changed:
            while self._is_open:
                self._forget_those_who_left()
                if self._waiting:
                    self._being_served += 1
                    return self._waiting.popleft()
                self._changed.wait()
        return None

    def _do(self, ticket: Ticket, models: Models) -> None:
        results = None
        try:
            results = ticket.work(models)
            for result in results:
                if result is not None and not _waits_for(ticket, len(result)):
                    ticket.put(Failure("results are read too slowly"))
                    break
                if ticket.has_left.is_set() or not self._is_open:
                    break
                if result is not None:
                    ticket.put(result)
        except RefusedError as error:
            ticket.put(Failure(str(error)))
        except Exception:
            log.exception("a request failed")
            ticket.put(Failure("the server failed at this; its log says how", is_ours=True))
        finally:
            if results is not None:
                results.close()  # type: ignore[attr-defined]

    def _forget_those_who_left(self) -> None:
        if any(ticket.has_left.is_set() for ticket in self._waiting):
            self._waiting = deque(ticket for ticket in self._waiting if not ticket.has_left.is_set())

    def _tell_place(self, place: int) -> None:
        must_end_first = self._being_served + place + 1 - len(self._workers)
        if must_end_first > 0:
            self._waiting[place].put(Ahead(must_end_first))


def _waits_for(ticket: Ticket, size: int) -> bool:
    """Waits until a client has read enough for so many bytes more; False if it takes too long."""
    while ticket.unsent and ticket.unsent + size > MOST_UNSENT and not ticket.has_left.is_set():
        if ticket.patience <= 0:
            return False
        began = time.monotonic()
        ticket.has_left.wait(0.01)
        ticket.patience -= time.monotonic() - began
    return True
