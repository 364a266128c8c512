"""The same configuration through both: the same result, the same kernel, the same files, after ADD and after DEL."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from tests.differential.allowances import EVERYWHERE, allow
from tests.differential.cases import CASES, IPVLANS, VERSIONS, Case
from tests.differential.sides import Answer, Call
from tests.differential.twins import differences

if TYPE_CHECKING:
    from tests.differential.twins import Twins

pytestmark = pytest.mark.root


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_in_process(twins: Twins, case: Case, version: str) -> None:
    live_and_die(twins, case, version)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_executables(executables: Twins, case: Case) -> None:
    live_and_die(executables, case, VERSIONS[-1])


@pytest.mark.parametrize("case", IPVLANS, ids=lambda case: case.name)
def test_ipvlan(twins: Twins, case: Case, has_ipvlan: None) -> None:
    live_and_die(twins, case, VERSIONS[-1])


def live_and_die(twins: Twins, case: Case, version: str) -> None:
    """The life of an attachment: ADD, CHECK, DEL and DEL again."""
    for place, command in case.prepare:
        twins.inside(place, *command.split())
    call = Call(case.plugins, version=version, args=case.args)
    expected = allow((*EVERYWHERE, *case.differs))

    made = twins.add(call)
    assert [a.code for a in made] == [0, 0], made
    assert_same(twins, call, made, expected)
    if version != "0.3.1":  # CHECK came with 0.4.0
        checked = twins.theirs.check(call, made[0].value), twins.ours.check(call, made[1].value)
        assert [bool(a.code) for a in checked] == [case.false_alarm, False], checked
    gone = twins.theirs.delete(call, made[0].value), twins.ours.delete(call, made[1].value)
    assert [a.code for a in gone] == [0, 0], gone
    assert_same(twins, call, gone, expected)
    again = twins.theirs.delete(call, made[0].value), twins.ours.delete(call, made[1].value)
    assert [bool(a.code) for a in again] == [case.has_sbr, False], again  # "sbr-second-del"
    assert_same(twins, call, gone, expected)


def assert_same(twins: Twins, call: Call, answers: tuple[Answer, Answer], expected: Callable[[Any], Any]) -> None:
    told = differences(*twins.settle(call, answers, expected))
    assert not told, "\n".join(told)
