"""How an attach is counted (docs/identity.md R16)."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.attaches import Attach
from homeport.ipam.identities import Replica, Slot, Workload

SLOT = Slot(Replica(Workload("ns", "StatefulSet", "web"), 0), "net", "net1")


def allocation(text: str, phase: Phase) -> Allocation:
    return Allocation(
        scope="", address=ip_address(text), slot=SLOT, phase=phase, since=datetime(2026, 1, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], ["10.0.0.1"], "first"),
        ([("10.0.0.1", Phase.RESERVED)], ["10.0.0.1"], "first"),
        ([("10.0.0.1", Phase.RETAINED)], ["10.0.0.1"], "kept"),
        ([("10.0.0.1", Phase.BOUND), ("fd00::1", Phase.RETAINED)], ["10.0.0.1", "fd00::1"], "kept"),
        ([("10.0.0.1", Phase.RETAINED), ("10.0.0.9", Phase.RETAINED)], ["10.0.0.1"], "kept"),
        ([("10.0.0.1", Phase.RETAINED)], ["10.0.0.2"], "changed"),
        ([("10.0.0.1", Phase.RETAINED)], ["10.0.0.1", "fd00::1"], "changed"),
        ([("10.0.0.1", Phase.RETAINED), ("10.0.0.2", Phase.RESERVED)], ["10.0.0.2"], "changed"),
    ],
)
def test_the_result(before: list[tuple[str, Phase]], after: list[str], expected: str) -> None:
    had = tuple(allocation(text, phase) for text, phase in before)
    has = tuple(allocation(text, Phase.BOUND) for text in after)
    assert Attach(slot=SLOT, before=had, after=has).result == expected
