"""Which address a slot gets: the decision table of docs/identity.md R2-R5 and R7."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.deciding import (
    AlreadyHeld,
    Create,
    Decision,
    Examine,
    Exhausted,
    Facts,
    Search,
    Take,
    Taken,
    Want,
    decide,
)
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.moving import Move, Wait
from homeport.ipam.ranges import RangeKeys, Span, parse_range
from homeport.model.addresses import IPAddress, MacAddress

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WEB = Workload("ns", "StatefulSet", "web")
RANGE = parse_range(RangeKeys(range="10.0.0.10-10.0.0.20/24"), at="ipam")
OURS = Slot(Replica(WEB, 0), "net", "net1")
SIBLING = Slot(Replica(WEB, 1), "net", "net1")
STRANGER = Slot(PodOwner("ns", "p", "u"), "net", "net1")


def at(number: int) -> IPAddress:
    return ip_address(f"10.0.0.{number}")


def holder(container_id: str, ifname: str = "net1") -> Holder:
    return Holder(container_id=container_id, ifname=ifname, netns_path="/x", node="n1", pod_uid="u")


def want(**changes: Any) -> Want:
    base = Want(slot=OURS, holder=holder("new"), scope="", range=RANGE, preferred=at(10))
    return msgspec.structs.replace(base, **changes)


def allocation(
    number: int, slot: Slot = OURS, phase: Phase = Phase.RETAINED, *, container_id: str = "old", **changes: Any
) -> Allocation:
    base = Allocation(
        scope="",
        address=at(number),
        slot=slot,
        phase=phase,
        holder=holder(container_id) if phase is Phase.BOUND else None,
        since=NOW,
        version=7,
    )
    return msgspec.structs.replace(base, **changes)


def present(*allocations: Allocation) -> dict[IPAddress, Allocation]:
    return {a.address: a for a in allocations}


HELD = allocation(17)
BOUND = allocation(17, phase=Phase.BOUND)


@pytest.mark.parametrize(
    ("rule", "wanted", "facts", "expected"),
    [
        ("R4: first start at the address of its number", want(), Facts(), Create(at(10), "allocated")),
        ("R4: that one is taken: the lowest free", want(), Facts(present=present(allocation(10, STRANGER))), Search()),
        (
            "R4: the lowest free",
            want(),
            Facts(present=present(allocation(10, STRANGER)), free=(at(11), at(12))),
            Create(at(11), "allocated"),
        ),
        (
            "R4: somebody was faster there too",
            want(),
            Facts(present=present(allocation(10, STRANGER), allocation(11, STRANGER)), free=(at(11), at(12))),
            Create(at(12), "allocated"),
        ),
        (
            "R4: all candidates went meanwhile",
            want(),
            Facts(present=present(allocation(10, STRANGER), allocation(11, STRANGER)), free=(at(11),)),
            Search(),
        ),
        ("R4: nothing is free", want(), Facts(present=present(allocation(10, STRANGER)), free=()), Exhausted()),
        ("R4: order lowest, and every other pod", want(preferred=None), Facts(), Search()),
        ("R4: no address of that number", want(preferred=None), Facts(free=(at(10),)), Create(at(10), "allocated")),
        ("R5: its number is kept for another", want(withheld=(Span(at(10), at(10)),)), Facts(), Search()),
        ("R2: what it has, not what its number is", want(), Facts(held=HELD), Take(HELD, "returned")),
        ("R2: what was reserved for it", want(), Facts(held=allocation(17, phase=Phase.RESERVED)), None),
        ("R7: the same interface again", want(holder=holder("old")), Facts(held=BOUND), AlreadyHeld(BOUND)),
        ("R8: another holder is looked into", want(), Facts(held=BOUND), Examine(BOUND)),
        (
            "R8: another interface of the same container",
            want(holder=holder("old", "net2")),
            Facts(held=BOUND),
            Examine(BOUND),
        ),
        ("R8: proven gone", want(), Facts(held=BOUND, move=Move("proof")), Take(BOUND, "moved: proof")),
        ("R8: not proven gone", want(), Facts(held=BOUND, move=Wait("why")), Wait("why")),
        ("R3: the mapped address", want(mapped=at(15)), Facts(), Create(at(15), "allocated as mapped")),
        (
            "R3: never another",
            want(mapped=at(15)),
            Facts(present=present(allocation(15, STRANGER, Phase.BOUND)), free=(at(11),)),
            Taken(allocation(15, STRANGER, Phase.BOUND)),
        ),
        (
            "R3: retained for a stranger is taken",
            want(mapped=at(15)),
            Facts(
                present=present(allocation(15, Slot(Replica(Workload("ns", "StatefulSet", "db"), 0), "net", "net1")))
            ),
            Taken(allocation(15, Slot(Replica(Workload("ns", "StatefulSet", "db"), 0), "net", "net1"))),
        ),
        (
            "R3: in use by a sibling",
            want(mapped=at(15)),
            Facts(present=present(allocation(15, SIBLING, Phase.BOUND))),
            Taken(allocation(15, SIBLING, Phase.BOUND)),
        ),
        (
            "E14, E17: the map took it from a sibling that does not use it",
            want(mapped=at(15)),
            Facts(present=present(allocation(15, SIBLING))),
            Take(allocation(15, SIBLING), "the map gives it to ns/web-0 instead of ns/web-1"),
        ),
        ("E17: the map changed", want(mapped=at(15)), Facts(held=HELD), Create(at(15), "allocated as mapped")),
        (
            "E17: reserved for it since",
            want(mapped=at(15)),
            Facts(held=HELD, present=present(allocation(15, phase=Phase.RESERVED))),
            Take(allocation(15, phase=Phase.RESERVED), "allocated as reserved"),
        ),
        ("E17: and it has that one already", want(mapped=at(17)), Facts(held=HELD), Take(HELD, "returned")),
        (
            "R11: adopt Never inherits nothing",
            want(adopt_uid="w2"),
            Facts(held=allocation(17, workload_uid="w1")),
            None,
        ),
        (
            "R11: but what is its own",
            want(adopt_uid="w2"),
            Facts(held=allocation(17, workload_uid="w2")),
            Take(allocation(17, workload_uid="w2"), "returned"),
        ),
        (
            "R11: its number again is no inheritance",
            want(adopt_uid="w2"),
            Facts(held=allocation(10, workload_uid="w1"), present=present(allocation(10, workload_uid="w1"))),
            Take(allocation(10, workload_uid="w1"), "returned"),
        ),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_decision(rule: str, wanted: Want, facts: Facts, expected: Decision | None) -> None:
    decision = decide(wanted, facts)
    if expected is not None:
        assert decision == expected
    elif rule.startswith("R2"):
        assert decision == Take(facts.held, "allocated as reserved")  # type: ignore[arg-type]
    else:
        assert decision == Create(at(10), "allocated")


def test_a_quarantined_address_is_its_own_slots_once_the_stranger_is_silent() -> None:
    """R5, E25."""
    own = allocation(17, phase=Phase.QUARANTINED)
    assert decide(want(), Facts(held=own)) == Examine(own)
    assert decide(want(), Facts(held=own, move=Wait("why"))) == Wait("why")
    assert decide(want(), Facts(held=own, move=Move("silence"))) == Take(own, "returned: silence")
    others = allocation(15, SIBLING, Phase.QUARANTINED)
    assert decide(want(mapped=at(15)), Facts(present=present(others))) == Taken(others)


def test_binding_keeps_the_mac_of_the_slot_and_of_no_other() -> None:
    """R9."""
    mac = MacAddress("0a:58:0a:00:00:01")
    assert want().bound(allocation(17, mac=mac), at(17), NOW).mac == mac
    assert want().bound(allocation(17, SIBLING, mac=mac), at(17), NOW).mac is None
    fresh = want().bound(None, at(17), NOW)
    assert (fresh.phase, fresh.holder, fresh.version, fresh.slot) == (Phase.BOUND, holder("new"), 0, OURS)


@pytest.mark.parametrize("owner", [PodOwner("ns", "p", "u"), ContainerOwner("c")])
def test_only_a_replica_keeps_what_its_holder_lets_go(owner: Owner) -> None:
    """R14."""
    assert released(allocation(17, Slot(owner, "net", "net1"), Phase.BOUND), at=NOW) is None
    kept = released(allocation(17, phase=Phase.BOUND), at=NOW)
    assert kept is not None
    assert (kept.phase, kept.holder, kept.slot, kept.version) == (Phase.RETAINED, None, OURS, 7)
