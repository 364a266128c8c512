"""The cache of allocations finds by pod, workload and node what is in it, and keeps equal parts once."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from ipaddress import ip_address

from homeport.controller.caching import AllocationCache, pod_of
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.model.names import PodRef

WORKLOADS = [Workload("ns", "StatefulSet", name) for name in ("web", "db")]
OWNERS: list[Owner] = [
    *(Replica(workload, n) for workload in WORKLOADS for n in range(3)),
    PodOwner("ns", "web-1", "uid-9"),  # a pod that only bears a replica's name
    PodOwner("ns", "s", "uid-1"),
    ContainerOwner("c"),
]


def allocation(chance: random.Random, number: int, version: int) -> Allocation:
    owner = chance.choice(OWNERS)
    bound = chance.random() < 0.6
    node = chance.choice(["n1", "n2", "n3"])
    holder = Holder(container_id=f"c{owner}", ifname="net1", netns_path=f"/run/{owner}", node=node, pod_uid="u")
    return Allocation(
        scope="",
        address=ip_address("10.0.0.0") + number,
        slot=Slot(owner, f"lan-{chance.randrange(2)}", "net1"),
        phase=Phase.BOUND if bound else Phase.RETAINED,
        holder=holder if bound else None,
        since=datetime(2026, 1, 1, tzinfo=UTC),
        version=version,
    )


def test_its_indexes_say_what_a_look_at_everything_says() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        cache, plain = AllocationCache(), dict[str, Allocation]()
        for version in range(300):
            number = chance.randrange(25)
            name = f"10.0.0.{number}"
            if chance.random() < 0.7:
                made = allocation(chance, number, version)
                assert cache.put(name, made) == plain.get(name)
                plain[name] = made
            else:
                assert cache.remove(name) == plain.pop(name, None)
        assert dict(cache.items()) == plain
        assert (len(cache), sorted(cache.names())) == (len(plain), sorted(plain))
        for ref in {PodRef("ns", f"{w.name}-{n}") for w in WORKLOADS for n in range(3)} | {PodRef("ns", "s")}:
            assert {*cache.of_pod(ref)} == {k for k, a in plain.items() if pod_of(a.slot.owner) == ref}
        for workload in WORKLOADS:
            assert {*cache.of_workload(workload)} == {k for k, a in plain.items() if a.slot.workload == workload}
        for node in ("n1", "n2", "n3"):
            held = {k for k, a in plain.items() if a.holder is not None and a.holder.node == node}
            assert {*cache.on_node(node)} == held
        for slot in {a.slot for a in plain.values() if not isinstance(a.slot.owner, ContainerOwner)}:
            found = sorted(cache.of_slot(slot), key=lambda a: int(a.address))
            assert found == sorted((a for a in plain.values() if a.slot == slot), key=lambda a: int(a.address))
        for name in list(plain):
            cache.remove(name)
        assert not any(vars(cache)[index] for index in ("_allocations", "_of_pod", "_of_workload", "_on_node"))


def test_what_is_equal_is_kept_once() -> None:
    cache = AllocationCache()
    for version in range(2):
        owner = Replica(Workload("n" + "s", "StatefulSet", "web"), 0)
        holder = Holder(container_id="c" * 64, ifname="net1", netns_path="/run/x", node="n1", pod_uid="u" * 36)
        cache.put(
            f"10.0.0.{version}",
            Allocation(
                scope="",
                address=ip_address("10.0.0.0") + version,
                slot=Slot(owner, "lan", "net1"),
                phase=Phase.BOUND,
                holder=holder,
                since=datetime(2026, 1, 1, tzinfo=UTC),
                version=version,
            ),
        )
    first, second = (a for _, a in cache.items())
    assert first.slot.owner is second.slot.owner
    assert first.retention is second.retention
    assert first.holder is not None
    assert second.holder is not None
    assert first.holder.container_id is second.holder.container_id
