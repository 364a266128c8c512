"""Jobs and threads: one at a time for a key, in order, and never more than allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from homeport.daemon.workers import Workers

WaitUntil = Callable[..., None]


class Gate:
    """Jobs that note their beginning, and end when they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._open = threading.Event()

    def job(self, name: str) -> Callable[[], None]:
        def run() -> None:
            self.begun.append(name)
            assert self._open.wait(10)
            self.ended.append(name)

        return run

    def open(self) -> None:
        self._open.set()


def test_jobs_of_one_key_run_one_after_the_other_in_order() -> None:
    workers = Workers(8, backlog=100)
    running: list[int] = []
    seen: list[int] = []
    most = 0
    lock = threading.Lock()

    def job(n: int) -> None:
        nonlocal most
        with lock:
            running.append(n)
            most = max(most, len(running))
        seen.append(n)
        with lock:
            running.remove(n)

    for n in range(50):
        assert workers.submit(lambda n=n: job(n), key="c")  # type: ignore[misc]  # a lambda's default is untyped
    assert workers.drain(10)
    assert seen == list(range(50))
    assert most == 1


def test_others_go_ahead_of_a_container_that_is_stuck(wait_until: WaitUntil) -> None:
    """However many calls wait for it: they hold no thread."""
    workers, gate = Workers(2, backlog=100), Gate()
    for n in range(20):
        assert workers.submit(gate.job(f"stuck {n}"), key="stuck")
    done = threading.Event()
    assert workers.submit(done.set, key="other")
    assert done.wait(10)
    assert gate.begun == ["stuck 0"]
    gate.open()
    assert workers.drain(10)
    assert gate.ended == [f"stuck {n}" for n in range(20)]


def test_bounds(wait_until: WaitUntil) -> None:
    workers, gate = Workers(2, backlog=3), Gate()
    assert workers.submit(gate.job("a"), key="a")
    assert workers.submit(gate.job("b"))
    wait_until(lambda: workers.running == 2)
    assert [workers.submit(gate.job(f"c{n}"), key=f"c{n}") for n in range(4)] == [True, True, True, False]
    assert not workers.submit(gate.job("a again"), key="a")
    assert (workers.running, workers.waiting) == (2, 3)
    assert not workers.drain(0.05)
    gate.open()
    assert workers.drain(10)
    assert sorted(gate.ended) == ["a", "b", "c0", "c1", "c2"]
    assert workers.submit(gate.job("d"))
    assert workers.drain(10)


def test_a_free_thread_takes_a_job_though_others_wait_for_their_key(wait_until: WaitUntil) -> None:
    workers, gate = Workers(2, backlog=2), Gate()
    for n in range(4):
        assert workers.submit(gate.job(f"stuck {n}"), key="stuck")
    wait_until(lambda: workers.running == 1)
    done = threading.Event()
    assert workers.submit(done.set, key="other")
    assert done.wait(10)
    gate.open()
    assert workers.drain(10)


def test_no_more_threads_than_allowed_and_none_before_they_are_needed(wait_until: WaitUntil) -> None:
    before = threading.active_count()
    workers, gate = Workers(3, backlog=100), Gate()
    assert threading.active_count() == before
    for n in range(10):
        assert workers.submit(gate.job(str(n)), key=str(n))
    wait_until(lambda: len(gate.begun) == 3)
    assert threading.active_count() == before + 3
    gate.open()
    assert workers.drain(10)
    assert len(gate.ended) == 10


def test_a_thread_that_cannot_be_started_loses_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, done = Workers(2, backlog=10), threading.Event()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert workers.submit(done.set, key="a")
    assert not done.is_set()
    assert workers.submit(lambda: None, key="b")
    assert done.wait(10)
    assert workers.drain(10)
