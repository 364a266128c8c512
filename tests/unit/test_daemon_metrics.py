"""What the daemon counts of addresses (docs/identity.md R16)."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_address

from homeport.daemon.metrics import Metrics
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.attaches import Attach
from homeport.ipam.identities import Owner, PodOwner, Replica, Slot, Workload

REPLICA = Replica(Workload("ns", "StatefulSet", "web"), 0)


def attach(owner: Owner, before: list[str], after: list[str]) -> Attach:
    slot = Slot(owner, "net", "net1")

    def allocations(texts: list[str]) -> tuple[Allocation, ...]:
        since = datetime(2026, 1, 1, tzinfo=UTC)
        return tuple(
            Allocation(scope="", address=ip_address(text), slot=slot, phase=Phase.RETAINED, since=since)
            for text in texts
        )

    return Attach(slot=slot, before=allocations(before), after=allocations(after))


def test_replicas_are_counted_by_what_they_got_and_no_others() -> None:
    metrics = Metrics()
    for seen in (
        attach(REPLICA, [], ["10.0.0.1"]),
        attach(REPLICA, ["10.0.0.1"], ["10.0.0.1"]),
        attach(REPLICA, ["10.0.0.1"], ["10.0.0.1"]),
        attach(REPLICA, ["10.0.0.1"], ["10.0.0.2"]),
        attach(PodOwner("ns", "p", "u"), [], ["10.0.0.3"]),
    ):
        metrics.count_attach(seen)
    counted = {
        result: metrics.registry.get_sample_value("homeport_replica_attach_total", {"result": result})
        for result in ("first", "kept", "changed")
    }
    assert counted == {"first": 1.0, "kept": 2.0, "changed": 1.0}


def test_what_never_happened_is_counted_as_such() -> None:
    """An alert on "changed" needs its series from the start."""
    assert Metrics().registry.get_sample_value("homeport_replica_attach_total", {"result": "changed"}) == 0.0
