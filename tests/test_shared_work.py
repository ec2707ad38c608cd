"""Counts that processes keep together and errors that one of them tells; the test plays the other processes."""

from __future__ import annotations

import threading
import time

import pytest
from torch.distributed import HashStore

from heptapod import parallel, shared_work
from heptapod.errors import LostProcessError, OtherFailedError
from heptapod.progress import Progress
from heptapod.shared_work import SharedCount, check_others, one_voice, tell, told


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> HashStore:
    """The store of two processes, of which this is the first."""
    shared = HashStore()
    monkeypatch.setattr(shared_work, "_store", lambda: shared)
    monkeypatch.setattr(shared_work, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(shared_work, "SECONDS_TO_SPEAK", 0.01)
    play(monkeypatch, 0)
    return shared


def play(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(parallel, "is_parallel", lambda: True)
    monkeypatch.setattr(parallel, "rank", lambda: rank)
    monkeypatch.setattr(parallel, "is_main", lambda: rank == 0)
    monkeypatch.setattr(parallel, "world_size", lambda: 2)


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
    count = SharedCount("images", shown)
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
    count = SharedCount("images", shown)
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
    other = SharedCount("crops", Shown())
    other.advance(3)
    other.finish()
    assert (store.add("heptapod/crops", 0), store.add("heptapod/crops/finished", 0)) == (3, 1)


def test_who_does_nothing_is_given_up(store: HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "STALLED", 0.1)
    with pytest.raises(ValueError, match=r"1 of 2 processes have done nothing for 0 minutes; give the same command"):
        SharedCount("images", Shown()).finish()


def test_values_are_told(store: HashStore) -> None:
    threading.Timer(0.05, tell, ("plan", [1, {"a": None}])).start()
    assert told("plan") == [1, {"a": None}]


@pytest.mark.parametrize("where", ["advance", "finish", "told", "check_others"])
def test_a_failure_of_another_process_stops_this_one(store: HashStore, where: str) -> None:
    count = SharedCount("images", Shown())
    store.add("heptapod/failed", 1)
    time.sleep(0.02)
    actions = {
        "advance": lambda: count.advance(1),
        "finish": count.finish,
        "told": lambda: told("plan"),
        "check_others": check_others,
    }
    with pytest.raises(OtherFailedError):
        actions[where]()
    with pytest.raises(SystemExit) as stopped, one_voice():
        actions[where]()
    assert stopped.value.code == 2


def test_a_process_that_fails_alone_speaks(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    play(monkeypatch, 1)
    with pytest.raises(SystemExit) as stopped, one_voice():
        raise ValueError("mine alone")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "heptapod: error in process 1 of 2: mine alone\n"
    play(monkeypatch, 0)
    with pytest.raises(SystemExit), one_voice():  # because of the other
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def test_the_first_to_fail_speaks_and_the_second_does_not(
    store: HashStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="the same for all"), one_voice():
        raise ValueError("the same for all")
    play(monkeypatch, 1)
    with pytest.raises(SystemExit) as stopped, one_voice():
        raise ValueError("the same for all")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as stopped, one_voice():
        raise KeyboardInterrupt
    assert stopped.value.code == 130


def test_a_store_that_is_gone_is_another_process_that_failed(store: HashStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> HashStore:
        raise RuntimeError("connection reset by peer")

    monkeypatch.setattr(shared_work, "_store", gone)
    with pytest.raises(OtherFailedError):
        check_others()
    with pytest.raises(SystemExit), one_voice():
        raise ValueError("because of it")
    with pytest.raises(LostProcessError, match="another process is gone, or did not answer in time"), one_voice():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")


def test_alone_it_is_the_plain_thing() -> None:
    shown = Shown()
    count = SharedCount("images", shown)
    count.advance(3)
    assert shown.total_shown == 3
    count.finish()
    check_others()
    tell("plan", 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"), one_voice():
            raise ValueError("mine")
