"""The scheduler itself: it finds what it is for, says the same twice, and kills for good."""

from __future__ import annotations

import pytest
from tests.protocol.scheduling import Chooser, Following, Killed, Scheduler, Seeded, every_path


def lost_updates(chooser: Chooser) -> int:
    """Two tasks that read, then write: what is lost of their two increments."""
    scheduler = Scheduler(chooser)
    value = 0

    def increment() -> None:
        nonlocal value
        scheduler.point("read")
        seen = value
        scheduler.point("write")
        value = seen + 1

    scheduler.spawn("a", increment)
    scheduler.spawn("b", increment)
    while scheduler.step():
        pass
    return 2 - value


def test_without_turning_aside_tasks_run_one_after_the_other() -> None:
    assert {lost_updates(chooser) for chooser in every_path(order=0, fate=0)} == {0}


def test_one_switch_is_enough_to_lose_an_update() -> None:
    assert {lost_updates(chooser) for chooser in every_path(order=1, fate=0)} == {0, 1}


def test_every_order_of_two_tasks_of_three_steps_is_tried_once() -> None:
    paths = []
    for chooser in every_path(order=9, fate=0):
        lost_updates(chooser)
        paths.append(tuple(answer for answer, _ in chooser.taken))
    assert len(paths) == len(set(paths)) == 20  # 6 over 3


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_gives_the_same_run_again(seed: int) -> None:
    assert lost_updates(Seeded(seed)) == lost_updates(Seeded(seed))


def test_random_orders_find_it_too() -> None:
    assert any(lost_updates(Seeded(seed)) for seed in range(20))


def test_what_was_killed_does_nothing_more_and_undoes_nothing() -> None:
    scheduler = Scheduler(Following([], {"order": 0, "fate": 0}))
    done = []

    def work() -> None:
        try:
            scheduler.point("first")
            done.append("second half")
        except Exception:
            done.append("handler")
            raise

    scheduler.spawn("a", work, group="node")
    scheduler.step()
    scheduler.kill("node")
    scheduler.finish()
    assert done == []


def test_what_a_task_raises_ends_the_run() -> None:
    scheduler = Scheduler(Seeded(1))

    def work() -> None:
        raise ValueError("wrong")

    scheduler.spawn("a", work)
    with pytest.raises(ValueError, match="wrong"):
        scheduler.finish()


def test_killed_is_no_exception_that_code_may_handle() -> None:
    assert not issubclass(Killed, Exception)
