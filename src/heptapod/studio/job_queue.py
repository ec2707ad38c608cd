"""The job queue: requests wait in one bounded queue, and one worker per device runs them in turn.

A job is a generator of results. Its worker checks between two results whether the client is still connected, so that a
client who disconnects frees the device within one step.
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
from heptapod.utils.weights import NonFiniteError

log = logging.getLogger(__name__)
MAX_UNSENT = 32 << 20
"""Bytes of results that may wait for a slow client; above, the worker waits too."""
MAX_STALL = 10.0
"""Seconds that a worker waits for one client in total."""

Models = Mapping[str, Heptapod]
Work = Callable[[Models], Iterator[bytes | None]]
"""Results for the client; None between two of them is a point at which the job can be canceled."""


class QueueFullError(Exception):
    """The queue is full."""


@dataclass(frozen=True)
class Waiting:
    """The job waits in the queue."""

    ahead: int
    """Jobs that must end first."""


@dataclass(frozen=True)
class Failure:
    """The job failed."""

    detail: str
    is_server_error: bool = False
    """Whether the server is at fault, not the client."""


class Job:
    """A request in the queue. Created and read in the server's event loop, run by a worker thread."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.is_canceled = threading.Event()
        self.produced = 0
        self.sent = 0
        self.stall_left = MAX_STALL
        self._loop = asyncio.get_running_loop()
        self._results: asyncio.Queue[bytes | Waiting | Failure | None] = asyncio.Queue()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client. Each thread writes one count: the worker ``produced``, the loop ``sent``."""
        return self.produced - self.sent

    def put(self, result: bytes | Waiting | Failure | None) -> None:
        """Adds a result, from any thread; None ends the job."""
        if isinstance(result, bytes):
            self.produced += len(result)
        with contextlib.suppress(RuntimeError):  # the server is shutting down
            self._loop.call_soon_threadsafe(self._results.put_nowait, result)

    async def results(self) -> AsyncIterator[bytes | Waiting | Failure]:
        """All results until the job ends."""
        while (result := await self._results.get()) is not None:
            if isinstance(result, bytes):
                self.sent += len(result)
            yield result

    def cancel(self) -> None:
        """Cancels the job: its client no longer waits for results."""
        self.is_canceled.set()


class JobQueue:
    """The queue and its workers.

    Args:
        devices: the models by name, once per device.
        max_waiting: jobs that may wait; further ones are rejected.
    """

    def __init__(self, devices: list[Models], max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self._waiting: deque[Job] = deque()
        self._num_running = 0
        self._changed = threading.Condition()
        self._is_open = True
        self._workers = [threading.Thread(target=self._run_worker, args=(models,), daemon=True) for models in devices]
        for worker in self._workers:
            worker.start()

    def submit(self, work: Work) -> Job:
        """Adds a job at the end of the queue.

        Raises:
            QueueFullError: if the queue is full.
        """
        job = Job(work)
        with self._changed:
            self._drop_canceled()
            if len(self._waiting) >= self.max_waiting:
                raise QueueFullError(f"{len(self._waiting)} requests are waiting already, try again later")
            self._waiting.append(job)
            self._report_position(len(self._waiting) - 1)
            self._changed.notify()
        return job

    @property
    def num_waiting(self) -> int:
        """Number of jobs that wait."""
        with self._changed:
            self._drop_canceled()
            return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether no job waits or runs."""
        with self._changed:
            return not self._num_running and not self._waiting

    def close(self) -> None:
        """Stops every worker after its current step."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        for worker in self._workers:
            worker.join(timeout=10)

    def _run_worker(self, models: Models) -> None:
        while (job := self._next()) is not None:
            try:
                self._run(job, models)
            finally:
                with self._changed:
                    self._num_running -= 1
                    self._drop_canceled()
                    for position in range(len(self._waiting)):
                        self._report_position(position)
                job.put(None)
                del job  # frees its tensors while the worker waits for the next job

    def _next(self) -> Job | None:
        with self._changed:
            while self._is_open:
                self._drop_canceled()
                if self._waiting:
                    self._num_running += 1
                    return self._waiting.popleft()
                self._changed.wait()
        return None

    def _run(self, job: Job, models: Models) -> None:
        results = None
        try:
            results = job.work(models)
            for result in results:
                if result is not None and not _wait_for_client(job, len(result)):
                    job.put(Failure("results are read too slowly"))
                    break
                if job.is_canceled.is_set() or not self._is_open:
                    break
                if result is not None:
                    job.put(result)
        except NonFiniteError as error:
            job.put(Failure(str(error)))
        except Exception:
            log.exception("a request failed")
            job.put(Failure("internal server error; see the log of the server", is_server_error=True))
        finally:
            if results is not None:
                results.close()  # type: ignore[attr-defined]

    def _drop_canceled(self) -> None:
        if any(job.is_canceled.is_set() for job in self._waiting):
            self._waiting = deque(job for job in self._waiting if not job.is_canceled.is_set())

    def _report_position(self, position: int) -> None:
        ahead = self._num_running + position + 1 - len(self._workers)
        if ahead > 0:
            self._waiting[position].put(Waiting(ahead))


def _wait_for_client(job: Job, size: int) -> bool:
    """Waits until the client has read enough for ``size`` more bytes; False if it takes too long."""
    while job.unsent and job.unsent + size > MAX_UNSENT and not job.is_canceled.is_set():
        if job.stall_left <= 0:
            return False
        began = time.monotonic()
        job.is_canceled.wait(0.01)
        job.stall_left -= time.monotonic() - began
    return True
