"""Work in the background: at once, again, when woken, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from homeport.daemon.repeating import Repeating
from homeport.model.errors import TryAgainLater

SECONDS = 10.0
NEVER = 3600.0


class Rounds:
    """Counts rounds; each waits for `may_end`."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.may_end.set()
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.begun.release()
        assert self.may_end.wait(SECONDS)
        if self.error is not None:
            raise self.error

    def await_one(self) -> None:
        assert self.begun.acquire(timeout=SECONDS)

    def has_another(self) -> bool:
        return self.begun.acquire(blocking=False)


@pytest.fixture
def begin() -> Iterator[Callable[..., tuple[Repeating, Rounds]]]:
    made: list[Repeating] = []

    def start(*, seconds: float = NEVER, gather_seconds: float = 0.0) -> tuple[Repeating, Rounds]:
        rounds = Rounds()
        work = Repeating("test", rounds, seconds=seconds, gather_seconds=gather_seconds)
        made.append(work)
        work.start()
        rounds.await_one()
        return work, rounds

    yield start
    for work in made:
        work.stop()
        work.join(SECONDS)


Begin = Callable[..., tuple[Repeating, Rounds]]


def test_it_is_done_at_once_and_again(begin: Begin) -> None:
    _, rounds = begin(seconds=0.001)
    rounds.await_one()
    rounds.await_one()


def test_it_is_done_when_woken(begin: Begin) -> None:
    work, rounds = begin()
    work.wake()
    rounds.await_one()


def test_a_wish_that_comes_during_a_round_is_not_lost(begin: Begin) -> None:
    work, rounds = begin()
    rounds.may_end.clear()
    work.wake()
    rounds.await_one()
    work.wake()
    work.wake()
    rounds.may_end.set()
    rounds.await_one()


def test_an_error_is_no_end(begin: Begin) -> None:
    work, rounds = begin()
    rounds.error = TryAgainLater("away")
    work.wake()
    rounds.await_one()
    rounds.error = RuntimeError("a bug")
    work.wake()
    rounds.await_one()
    work.wake()
    rounds.await_one()


def test_the_end_is_awaited_and_nothing_follows(begin: Begin) -> None:
    work, rounds = begin()
    work.stop()
    work.join(SECONDS)
    work.wake()
    assert not rounds.has_another()


def test_a_woken_one_that_gathers_ends_at_once(begin: Begin) -> None:
    work, rounds = begin(gather_seconds=NEVER)
    work.wake()
    work.stop()
    work.join(SECONDS)
    assert not rounds.has_another()
