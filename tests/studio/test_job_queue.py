"""The job queue: in turn, bounded; a canceled job frees its worker within one step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from heptapod.studio import job_queue
from heptapod.studio.job_queue import Failure, Job, JobQueue, Models, QueueFullError, Waiting
from heptapod.utils.weights import NonFiniteError

Work = Callable[[Models], Iterator[bytes]]


def run(test: Callable[[JobQueue], Coroutine[Any, Any, None]], workers: int = 1, max_waiting: int = 8) -> None:
    async def main() -> None:
        queue = JobQueue([{} for _ in range(workers)], max_waiting)
        try:
            await asyncio.wait_for(test(queue), 20)
        finally:
            queue.close()

    asyncio.run(main())


async def collected(job: Job) -> list[bytes | Waiting | Failure]:
    return [result async for result in job.results()]


def steps(count: int, done: list[str], name: str) -> Work:
    def work(_: Models) -> Iterator[bytes]:
        for step in range(count):
            done.append(name)
            yield f"{name}{step}".encode()

    return work


def test_requests_are_served_in_turn() -> None:
    done: list[str] = []
    all_submitted = threading.Event()

    def first(models: Models) -> Iterator[bytes]:
        assert all_submitted.wait(10)
        yield from steps(3, done, "a")(models)

    async def test(queue: JobQueue) -> None:
        jobs = [queue.submit(first), *(queue.submit(steps(3, done, name)) for name in "bcdef")]
        all_submitted.set()
        results = await asyncio.gather(*map(collected, jobs))
        for name, found in zip("abcdef", results, strict=True):
            assert [one for one in found if isinstance(one, bytes)] == [f"{name}{step}".encode() for step in range(3)]
        ahead = [one.ahead for one in results[5] if isinstance(one, Waiting)]
        assert ahead == [5, 4, 3, 2, 1], "fewer and fewer jobs are ahead"

    run(test)
    assert done == [name for name in "abcdef" for _ in range(3)]


def test_two_workers_serve_two_at_a_time() -> None:
    together = threading.Barrier(2, timeout=10)

    def work(_: Models) -> Iterator[bytes]:
        together.wait()
        yield b"done"

    async def test(queue: JobQueue) -> None:
        jobs = [queue.submit(work) for _ in range(3)]
        found = await asyncio.gather(*map(collected, jobs[:2]))
        assert found == [[b"done"], [b"done"]]
        jobs.append(queue.submit(work))
        assert await collected(jobs[3]) == [b"done"]

    run(test, workers=2)


def test_a_full_queue_takes_no_more() -> None:
    hold = threading.Event()

    def held(_: Models) -> Iterator[bytes]:
        hold.wait(10)
        yield b""

    async def test(queue: JobQueue) -> None:
        first = queue.submit(held)
        while queue.num_waiting:
            await asyncio.sleep(0.001)
        waiting = [queue.submit(held) for _ in range(2)]
        with pytest.raises(QueueFullError, match="2 requests are waiting already"):
            queue.submit(held)
        waiting[0].cancel()
        waiting.append(queue.submit(held))
        hold.set()
        assert await collected(waiting[2]) == [Waiting(2), Waiting(1), b""]
        assert await collected(first) == [b""]

    run(test, max_waiting=2)


def test_a_canceled_job_frees_the_worker_within_one_step() -> None:
    done: list[str] = []
    closed = threading.Event()

    def endless(_: Models) -> Iterator[bytes]:
        try:
            while True:
                done.append("step")
                time.sleep(0.01)
                yield None if len(done) > 3 else b""
        finally:
            closed.set()

    async def test(queue: JobQueue) -> None:
        job = queue.submit(endless)
        seen: AsyncIterator[Any] = job.results()
        for _ in range(3):
            await anext(seen)
        job.cancel()
        before = len(done)
        await asyncio.to_thread(closed.wait, 5)
        assert closed.is_set()
        assert len(done) <= before + 1
        assert await collected(queue.submit(steps(1, [], "next"))) == [b"next0"]

    run(test)


def test_a_canceled_job_never_runs() -> None:
    served: list[str] = []
    hold = threading.Event()

    def held(_: Models) -> Iterator[bytes]:
        hold.wait(10)
        yield b""

    async def test(queue: JobQueue) -> None:
        first, gone, last = (
            queue.submit(held),
            queue.submit(steps(1, served, "gone")),
            queue.submit(steps(1, served, "last")),
        )
        gone.cancel()
        hold.set()
        await collected(first)
        await collected(last)
        assert queue.num_waiting == 0

    run(test)
    assert served == ["last"]


def test_failures_are_reported_and_the_worker_continues(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(_: Models) -> Iterator[bytes]:
        yield b"begun"
        raise NonFiniteError("steps: 9 given")

    def server_error(_: Models) -> Iterator[bytes]:
        raise ValueError("not the client's doing")
        yield b""

    def broken(_: Models) -> Iterator[bytes]:
        raise RuntimeError("a bug")
        yield b""

    async def test(queue: JobQueue) -> None:
        assert await collected(queue.submit(wrong)) == [b"begun", Failure("steps: 9 given")]
        for work in (broken, server_error):
            (failure,) = await collected(queue.submit(work))
            assert failure == Failure("internal server error; see the log of the server", is_server_error=True)
        assert await collected(queue.submit(steps(1, [], "next"))) == [b"next0"]

    run(test)
    assert "a bug" in caplog.text


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "MAX_UNSENT", 1000)
    monkeypatch.setattr(job_queue, "MAX_STALL", 0.1)

    def much(_: Models) -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    async def test(queue: JobQueue) -> None:
        job = queue.submit(much)
        while not queue.is_idle:
            await asyncio.sleep(0.001)
        found = await collected(job)
        assert found[-1] == Failure("results are read too slowly")
        assert len(found) == 11


def test_the_worker_waits_for_a_client_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "MAX_UNSENT", 1000)

    async def test(queue: JobQueue) -> None:
        job = queue.submit(lambda _: (b"x" * 600 for _ in range(20)))
        found = 0
        async for result in job.results():
            assert job.unsent <= 1200
            assert result == b"x" * 600
            found += 1
            await asyncio.sleep(0.005)
        assert found == 20

    run(test)
