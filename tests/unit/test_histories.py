"""Whose an address was at a time: what the ledger proves, and where it is silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import PodOwner, Slot
from homeport.ports import LedgerEntry
from homeport.runtime.histories import at_time

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def minute(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def of(name: str, since: float, version: int) -> Allocation:
    return Allocation(
        scope="",
        address=ip_address("10.0.0.1"),
        slot=Slot(PodOwner("ns", name, "u"), "net", "net1"),
        phase=Phase.BOUND,
        since=minute(since),
        version=version,
    )


A, B = of("a", 10, 1), of("b", 30, 3)
LEDGER = [
    LedgerEntry(at=minute(10), cause="allocated", before=None, after=A),
    LedgerEntry(at=minute(20), cause="DEL", before=A, after=None),
    LedgerEntry(at=minute(30), cause="allocated", before=None, after=B),
]


@pytest.mark.parametrize(
    ("number", "expected"), [(5, None), (10, A), (19.9, A), (20, None), (29, None), (30, B), (300, B)]
)
def test_each_entry_holds_until_the_next(number: float, expected: Allocation | None) -> None:
    then = at_time(LEDGER, B, minute(number), minute(0))
    assert (then.certain, then.allocation) == (True, expected)


def test_before_the_ledger_nothing_is_known() -> None:
    then = at_time(LEDGER, B, minute(5), minute(8))
    assert not then.certain
    assert then.why == "the ledger begins at 2026-01-01T12:08:00Z, and does not reach back to then"
    assert at_time([], None, minute(5), None).why == "the ledger is empty, and does not reach back to then"


def test_a_phase_that_began_before_the_ledger_is_known_from_its_end() -> None:
    old = of("a", -60, 1)
    ledger = [LedgerEntry(at=minute(20), cause="DEL", before=old, after=None)]
    assert at_time(ledger, None, minute(-30), minute(8)).allocation == old
    assert not at_time(ledger, None, minute(-90), minute(8)).certain


def test_an_address_the_ledger_never_speaks_of_is_as_it_is_now() -> None:
    assert at_time([], A, minute(15), minute(0)).allocation == A
    assert at_time([], A, minute(15), None).allocation == A
    assert at_time([], None, minute(15), minute(0)).certain


def test_what_is_not_in_the_ledger_yet() -> None:
    newer = of("c", 40, 7)
    assert at_time(LEDGER, newer, minute(45), minute(0)).allocation == newer
    assert not at_time(LEDGER, newer, minute(35), minute(0)).certain, "b may have gone before c came"
    assert not at_time(LEDGER, None, minute(35), minute(0)).certain, "b is gone, and nobody knows since when"
    assert at_time(LEDGER, newer, minute(25), minute(0)).certain
