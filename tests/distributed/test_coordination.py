"""Counts that processes keep together and errors that one of them tells; the test plays the other processes."""

from __future__ import annotations

import threading
import time

import pytest
from torch.distributed import HashStore

from heptapod.distributed import coordination, process_group
from heptapod.distributed.coordination import (
    SharedProgress,
    publish,
    raise_if_other_failed,
    report_failure_once,
    wait_for_value,
)
from heptapod.distributed.errors import LostProcessError, OtherProcessFailedError
from heptapod.utils.logging import Progress


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> HashStore:
    """The store of two processes, of which this is the first."""
    shared = HashStore()
    monkeypatch.setattr(coordination, "_store", lambda: shared)
    monkeypatch.setattr(coordination, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(coordination, "REPORT_SECONDS", 0.01)
    play(monkeypatch, 0)
    return shared


def play(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(process_group, "is_distributed", lambda: True)
    monkeypatch.setattr(process_group, "rank", lambda: rank)
    monkeypatch.setattr(process_group, "is_main_process", lambda: rank == 0)
    monkeypatch.setattr(process_group, "world_size", lambda: 2)


class Shown(Progress):
    """A progress bar that remembers what it shows."""

    def __init__(self) -> None:
        super().__init__("work", 100)
        self.total_shown = 0

    def advance(self, count: int, note: str | None = None, rate_factor: int = 1) -> None:
        super().advance(count, note, rate_factor)
        self.total_shown += count


def test_the_first_process_shows_the_work_of_all(store: HashStore) -> None:
    shown = Shown()
    count = SharedProgress("images", shown)
    store.add("heptapod/images", 5)  # of the other process
    time.sleep(0.02)
    count.advance(2)
    assert shown.total_shown == 7
    for _ in range(3):
        count.advance(1)
    store.add("heptapod/images", 10)
    store.add("heptapod/images/finished", 1)
    count.finish()
    assert shown.total_shown == 20
    assert store.add("heptapod/images", 0) == 20, "the other process knows of this one's"


def test_the_first_process_waits_and_the_others_do_not(store: HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    count = SharedProgress("images", shown)
    thread = threading.Thread(target=count.finish)
    thread.start()
    for _ in range(5):
        time.sleep(0.02)
        assert thread.is_alive()
        store.add("heptapod/images", 1)
    store.add("heptapod/images/finished", 1)
    thread.join(10)
    assert not thread.is_alive()
    assert shown.total_shown == 5

    play(monkeypatch, 1)
    other = SharedProgress("crops", Shown())
    other.advance(3)
    other.finish()
    assert (store.add("heptapod/crops", 0), store.add("heptapod/crops/finished", 0)) == (3, 1)


def test_who_does_nothing_is_given_up(store: HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordination, "STALL_SECONDS", 0.1)
    with pytest.raises(
        ValueError, match=r"1 of 2 processes have made no progress for 0 minutes; run the same command again"
    ):
        SharedProgress("images", Shown()).finish()


def test_values_are_told(store: HashStore) -> None:
    threading.Timer(0.05, publish, ("plan", [1, {"a": None}])).start()
    assert wait_for_value("plan") == [1, {"a": None}]


@pytest.mark.parametrize("where", ["advance", "finish", "told", "raise_if_other_failed"])
def test_a_failure_of_another_process_stops_this_one(store: HashStore, where: str) -> None:
    count = SharedProgress("images", Shown())
    store.add("heptapod/failed", 1)
    time.sleep(0.02)
    actions = {
        "advance": lambda: count.advance(1),
        "finish": count.finish,
        "told": lambda: wait_for_value("plan"),
        "raise_if_other_failed": raise_if_other_failed,
    }
    with pytest.raises(OtherProcessFailedError):
        actions[where]()
    with pytest.raises(SystemExit) as stopped, report_failure_once():
        actions[where]()
    assert stopped.value.code == 2


def test_a_process_that_fails_alone_speaks(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(monkeypatch, 1)
    with pytest.raises(SystemExit) as stopped, report_failure_once():
        raise ValueError("mine alone")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "heptapod: error: in process 1 of 2: mine alone\n"
    play(monkeypatch, 0)
    with pytest.raises(SystemExit), report_failure_once():  # because of the other
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def test_the_first_to_fail_speaks_and_the_second_does_not(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="the same for all"), report_failure_once():
        raise ValueError("the same for all")
    play(monkeypatch, 1)
    with pytest.raises(SystemExit) as stopped, report_failure_once():
        raise ValueError("the same for all")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as stopped, report_failure_once():
        raise KeyboardInterrupt
    assert stopped.value.code == 130


def test_a_store_that_is_gone_is_another_process_that_failed(store: HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> HashStore:
        raise RuntimeError("connection reset by peer")

    monkeypatch.setattr(coordination, "_store", gone)
    with pytest.raises(OtherProcessFailedError):
        raise_if_other_failed()
    with pytest.raises(SystemExit), report_failure_once():
        raise ValueError("because of it")
    with (
        pytest.raises(LostProcessError, match="another process is gone, or did not answer in time"),
        report_failure_once(),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def test_alone_it_is_the_plain_thing() -> None:
    shown = Shown()
    count = SharedProgress("images", shown)
    count.advance(3)
    assert shown.total_shown == 3
    count.finish()
    raise_if_other_failed()
    publish("plan", 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"), report_failure_once():
            raise ValueError("mine")
