"""Operations by themselves: order, nesting, threads, errors while undoing."""

from __future__ import annotations

import threading

import pytest

from homeport.host.undoing import Inverse, Operations
from homeport.model.errors import InvalidNetns, KernelRefused, MissingLink


class Failed(Exception):
    pass


def fail(operations: Operations, *inverses: Inverse, undo_on_error: bool = True) -> None:
    """An operation that records `inverses` and then fails."""
    with operations.operation(undo_on_error=undo_on_error):
        for inverse in inverses:
            operations.record(inverse)
        raise Failed


def test_undoes_newest_first() -> None:
    undone = list[int]()
    with pytest.raises(Failed):
        fail(Operations(), lambda: undone.append(1), lambda: undone.append(2), lambda: undone.append(3))
    assert undone == [3, 2, 1]


def test_success_undoes_nothing_and_forgets() -> None:
    operations, undone = Operations(), list[int]()
    with operations.operation(undo_on_error=True):
        operations.record(lambda: undone.append(1))
    with pytest.raises(Failed):
        fail(operations)
    assert undone == []


def test_outside_an_operation_nothing_is_recorded() -> None:
    operations, undone = Operations(), list[int]()
    operations.record(lambda: undone.append(1))
    with pytest.raises(Failed):
        fail(operations)
    assert undone == []


def test_inner_success_is_undone_by_outer_failure() -> None:
    operations, undone = Operations(), list[str]()

    def run() -> None:
        with operations.operation(undo_on_error=True):
            operations.record(lambda: undone.append("outer"))
            with operations.operation(undo_on_error=True):
                operations.record(lambda: undone.append("inner"))
            raise Failed

    with pytest.raises(Failed):
        run()
    assert undone == ["inner", "outer"]


def test_inner_failure_that_is_caught_undoes_only_the_inner() -> None:
    operations, undone = Operations(), list[str]()
    with operations.operation(undo_on_error=True):
        operations.record(lambda: undone.append("outer"))
        with pytest.raises(Failed):
            fail(operations, lambda: undone.append("inner"))
    assert undone == ["inner"]


def test_without_undo_what_was_done_stays() -> None:
    undone = list[int]()
    with pytest.raises(Failed):
        fail(Operations(), lambda: undone.append(1), undo_on_error=False)
    assert undone == []


def test_what_was_done_without_undo_stays_whatever_fails_outside() -> None:
    operations, undone = Operations(), list[str]()

    def run() -> None:
        with operations.operation(undo_on_error=True):
            operations.record(lambda: undone.append("outer"))
            with operations.operation(undo_on_error=False):
                assert not operations.recording
                with operations.operation(undo_on_error=True):
                    operations.record(lambda: undone.append("inner"))
            assert operations.recording
            raise Failed

    with pytest.raises(Failed):
        run()
    assert undone == ["outer"]


def test_errors_of_the_undoing_are_notes_and_do_not_stop_it() -> None:
    undone = list[int]()

    def refuse() -> None:
        raise KernelRefused("delete link 7: device or resource busy", "EBUSY")

    with pytest.raises(Failed) as failed:
        fail(Operations(), lambda: undone.append(1), refuse)
    assert undone == [1]
    assert failed.value.__notes__ == ["while undoing: delete link 7: device or resource busy (EBUSY)"]


@pytest.mark.parametrize("gone", [InvalidNetns("gone"), MissingLink("gone")])
def test_what_is_gone_needs_no_undoing(gone: Exception) -> None:
    def vanished() -> None:
        raise gone

    with pytest.raises(Failed) as failed:
        fail(Operations(), vanished)
    assert not hasattr(failed.value, "__notes__")


def test_a_bug_in_an_inverse_shows_after_all_others_ran() -> None:
    undone = list[int]()
    with pytest.raises(ZeroDivisionError) as bug:
        fail(Operations(), lambda: undone.append(1), lambda: 1 // 0)
    assert undone == [1]
    assert isinstance(bug.value.__cause__, Failed)


def test_what_an_inverse_does_is_not_undone_in_turn() -> None:
    operations, undone = Operations(), list[str]()

    def inverse() -> None:
        assert not operations.recording
        operations.record(lambda: undone.append("never"))
        undone.append("inverse")

    def run() -> None:
        with operations.operation(undo_on_error=True):
            fail(operations, inverse)

    with pytest.raises(Failed):
        run()
    assert undone == ["inverse"]
    assert not operations.recording


def test_threads_have_operations_of_their_own() -> None:
    operations, undone = Operations(), list[str]()

    def elsewhere() -> None:
        operations.record(lambda: undone.append("other"))
        assert not operations.running

    def run() -> None:
        with operations.operation(undo_on_error=True):
            other = threading.Thread(target=elsewhere)
            other.start()
            other.join()
            raise Failed

    with pytest.raises(Failed):
        run()
    assert undone == []
