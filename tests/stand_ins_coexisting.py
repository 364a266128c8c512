"""A cluster with nodes of ours and of Whereabouts, in memory, and allocations for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
from tests.stand_ins import START
from tests.stand_ins_objects import MemoryObjects, MemoryServer
from tests.stand_ins_whereabouts import WhereaboutsNode

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, Replica, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.ports import Resource
from homeport.stores.coexisting import CoexistingStore
from homeport.stores.memory import MemoryStore
from homeport.stores.whereabouts import POOLS, RESERVATIONS

NAMESPACE = "kube-system"
RANGE = "10.0.0.0/29"  # six addresses
WEB = Replica(Workload("shop", "StatefulSet", "web"), 0)


class Cluster:
    """One API server; `store` is our nodes', and `whereabouts` makes a node of the others'."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.objects = MemoryObjects(self.server)
        self.inner = MemoryStore()
        self.store = CoexistingStore(self.inner, self.objects, NAMESPACE)

    def whereabouts(self, *ranges: str, **settings: Any) -> WhereaboutsNode:
        return WhereaboutsNode(MemoryObjects(self.server), *ranges, **settings)

    def entries(self, pool: str) -> Mapping[str, Any]:
        found = self.objects.get(POOLS, pool, namespace=NAMESPACE)
        assert found is not None
        entries: Mapping[str, Any] = msgspec.json.decode(found.body)["spec"]["allocations"]
        return entries

    def reservation(self, name: str) -> Mapping[str, Any] | None:
        found = self.objects.get(RESERVATIONS, name, namespace=NAMESPACE)
        return msgspec.json.decode(found.body)["spec"] if found is not None else None

    def make(self, resource: Resource, name: str, **content: Any) -> None:
        self.objects.create(resource, {"metadata": {"name": name}, **content}, namespace=NAMESPACE)


def allocation(address: str, *, n: int = 0, scope: str = "", phase: Phase = Phase.BOUND) -> Allocation:
    """Of replica `n`, held by container c`n`."""
    holder = Holder(container_id=f"c{n}", ifname="net1", netns_path=f"/ns/{n}", node="n1", pod_uid=f"uid-{n}")
    return Allocation(
        scope=scope,
        address=ip_address(address),
        slot=Slot(Replica(WEB.workload, n), "net", "net1"),
        phase=phase,
        holder=holder if phase is Phase.BOUND else None,
        since=START + timedelta(seconds=n),
    )


def span(text: str) -> Span:
    network = ip_network(text)
    return Span(network[1], network[-2])
