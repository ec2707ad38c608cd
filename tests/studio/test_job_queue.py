"""The line: in turn, bounded, and a client who leaves frees its place within one step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from heptapod.studio import job_queue
from heptapod.studio.job_queue import Ahead, Failure, FullError, JobQueue, Models, RefusedError, Ticket

Work = Callable[[Models], Iterator[bytes]]


def run(test: Callable[[JobQueue], Coroutine[Any, Any, None]], workers: int = 1, most_waiting: int = 8) -> None:
    async def main() -> None:
        queue = JobQueue([{} for _ in range(workers)], most_waiting)
        try:
            await asyncio.wait_for(test(queue), 20)
        finally:
            queue.close()

    asyncio.run(main())


async def collected(ticket: Ticket) -> list[bytes | Ahead | Failure]:
    return [result async for result in ticket.results()]


def steps(count: int, done: list[str], name: str) -> Work:
    def work(_: Models) -> Iterator[bytes]:
        for step in range(count):
            done.append(name)
            yield f"{name}{step}".encode()

    return work


def test_requests_are_served_in_turn() -> None:
    done: list[str] = []

    async def test(queue: JobQueue) -> None:
        tickets = [queue.enter(steps(3, done, name)) for name in "abcdef"]
        results = await asyncio.gather(*map(collected, tickets))
        for name, found in zip("abcdef", results, strict=True):
            assert [one for one in found if isinstance(one, bytes)] == [f"{name}{step}".encode() for step in range(3)]
        ahead = [one.count for one in results[5] if isinstance(one, Ahead)]
        assert ahead == sorted(ahead, reverse=True), "it comes nearer and nearer"
        assert ahead[-1] == 1

    run(test)
    assert done == [name for name in "abcdef" for _ in range(3)]


def test_two_workers_serve_two_at_a_time() -> None:
    together = threading.Barrier(2, timeout=10)

    def work(_: Models) -> Iterator[bytes]:
        together.wait()
        yield b"met"

    async def test(queue: JobQueue) -> None:
        tickets = [queue.enter(work) for _ in range(3)]
        found = await asyncio.gather(*map(collected, tickets[:2]))
        assert found == [[b"met"], [b"met"]]
        tickets.append(queue.enter(work))
        assert await collected(tickets[3]) == [b"met"]

    run(test, workers=2)


def test_a_full_line_takes_no_more() -> None:
    hold = threading.Event()

    def held(_: Models) -> Iterator[bytes]:
        hold.wait(10)
        yield b""

    async def test(queue: JobQueue) -> None:
        first = queue.enter(held)
        while queue.num_waiting:
            await asyncio.sleep(0.001)
        waiting = [queue.enter(held) for _ in range(2)]
        with pytest.raises(FullError, match="2 requests are waiting already"):
            queue.enter(held)
        waiting[0].leave()
        waiting.append(queue.enter(held))
        hold.set()
        assert await collected(waiting[2]) == [Ahead(2), Ahead(1), b""]
        assert await collected(first) == [b""]

    run(test, most_waiting=2)


def test_who_leaves_frees_the_worker_within_one_step() -> None:
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
        ticket = queue.enter(endless)
        seen: AsyncIterator[Any] = ticket.results()
        for _ in range(3):
            await anext(seen)
        ticket.leave()
        before = len(done)
        await asyncio.to_thread(closed.wait, 5)
        assert closed.is_set()
        assert len(done) <= before + 1
        assert await collected(queue.enter(steps(1, [], "next"))) == [b"next0"]

    run(test)


def test_who_leaves_the_line_is_never_served() -> None:
    served: list[str] = []
    hold = threading.Event()

    def held(_: Models) -> Iterator[bytes]:
        hold.wait(10)
        yield b""

    async def test(queue: JobQueue) -> None:
        first, gone, last = (
            queue.enter(held),
            queue.enter(steps(1, served, "gone")),
            queue.enter(steps(1, served, "last")),
        )
        gone.leave()
        hold.set()
        await collected(first)
        await collected(last)
        assert queue.num_waiting == 0

    run(test)
    assert served == ["last"]


def test_failures_are_told_and_the_worker_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(_: Models) -> Iterator[bytes]:
        yield b"begun"
        raise RefusedError("steps: 9 given")

    def wrong_by_itself(_: Models) -> Iterator[bytes]:
        raise ValueError("not the client's doing")
        yield b""

    def broken(_: Models) -> Iterator[bytes]:
        raise RuntimeError("a bug")
        yield b""

    async def test(queue: JobQueue) -> None:
        assert await collected(queue.enter(wrong)) == [b"begun", Failure("steps: 9 given")]
        for work in (broken, wrong_by_itself):
            (failure,) = await collected(queue.enter(work))
            assert failure == Failure("the server failed at this; its log says how", is_ours=True)
        assert await collected(queue.enter(steps(1, [], "next"))) == [b"next0"]

    run(test)
    assert "a bug" in caplog.text


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "MOST_UNSENT", 1000)
    monkeypatch.setattr(job_queue, "PATIENCE", 0.1)

    def much(_: Models) -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    async def test(queue: JobQueue) -> None:
        ticket = queue.enter(much)
        while not queue.is_idle:
            await asyncio.sleep(0.001)
        found = await collected(ticket)
        assert found[-1] == Failure("results are read too slowly")
        assert len(found) == 11


def test_the_worker_waits_for_a_client_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queue, "MOST_UNSENT", 1000)

    async def test(queue: JobQueue) -> None:
        ticket = queue.enter(lambda _: (b"x" * 600 for _ in range(20)))
        found = 0
        async for result in ticket.results():
            assert ticket.unsent <= 1200
            assert result == b"x" * 600
            found += 1
            await asyncio.sleep(0.005)
        assert found == 20

    run(test)
