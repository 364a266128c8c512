"""A node with its store, its reconciliation and its look for strangers, in memory; time passes by hand."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import msgspec
from tests.stand_ins import START, Neighbourhood, StandingClock, World
from tests.stand_ins_objects import MemoryObjects, MemoryServer

from homeport.daemon.holding import Holding, Repair, recorded_addresses, recorded_netns
from homeport.daemon.squatting import Squatters
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.objects import Pod
from homeport.model.addresses import IPAddress, parse_mac
from homeport.ports import Event
from homeport.runtime.caching import ResultCache
from homeport.stores.claims import Claims
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.nodes import NodeStore

A1, A2 = IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")
WEB = Workload("ns", "StatefulSet", "web")
MAC = parse_mac("02:00:00:00:00:99")


class Machine:
    """The node `n1`, and beside it an operator and another node. Time passes by hand."""

    def __init__(self, folder: Path) -> None:
        self.server, self.clock, self.world, self.probe = MemoryServer(), StandingClock(), World(), Neighbourhood()
        self.objects, self.operator = MemoryObjects(self.server, threaded=False), MemoryObjects(self.server)
        self.elsewhere = KubernetesStore(self.operator, now=self.clock.now, monotonic=self.clock.monotonic)
        self.remote = KubernetesStore(self.objects, now=self.clock.now, monotonic=self.clock.monotonic)
        self.claims = Claims(folder / "claims.db")
        self.results = ResultCache(folder / "cni")
        self.store = NodeStore(self.remote, self.claims, node="n1", now=self.clock.now, monotonic=self.clock.monotonic)
        self.namespaces: set[str] = set()
        self.events: list[Event] = []
        self.repairs: list[Repair] = []
        self.woken = 0
        self.holding = Holding(
            self.store,
            self.objects,
            self.world,
            node="n1",
            netns_exists=self.namespaces.__contains__,
            recorded=lambda: recorded_addresses(self.results, self.namespaces.__contains__),
            netns_of=partial(recorded_netns, self.results),
            emit=self.events.append,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            count=self.repairs.append,
        )
        self.holding.wake = self._wake
        self.links: dict[str, str] = {"net": "eth1"}
        self.squatters = Squatters(
            self.remote,
            self.holding.seen,
            self.probe,
            node="n1",
            link_of=self.links.get,
            emit=self.events.append,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            count=self.repairs.append,
        )
        self.world.scale("web", 3)
        self.holding.start()

    def _wake(self) -> None:
        self.woken += 1

    def attach(self, pod: Pod, container: str, address: IPAddress = A1, *, owner: Owner | None = None) -> Allocation:
        """As an ADD of this node leaves it, some time ago."""
        return self._attached(allocation_of(owner or owner_of(pod), address, holder_of(pod, container, "n1")))

    def _attached(self, wanted: Allocation) -> Allocation:
        assert wanted.holder is not None
        self.namespaces.add(wanted.holder.netns_path)
        made = self.store.create(wanted, cause="allocated")
        self.clock.advance(seconds=6)
        self.look()
        return made

    def look(self) -> None:
        """A round, after the watch has told all there is; then what it decided is told."""
        self.objects.deliver()
        self.round()

    def round(self) -> None:
        self.holding.go_through()
        self.clock.advance(seconds=20)  # past any pause after an outage
        self.store.deliver()

    def stored(self, address: IPAddress = A1) -> Allocation | None:
        return self.elsewhere.get("", address)

    def told(self) -> list[tuple[str, str]]:
        """Reasons of the events since the last call, and whose they are."""
        events = [(e.reason, str(e.pod)) for e in self.events]
        self.events.clear()
        return events

    def probe_for(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.objects.deliver()
            self.squatters.step()
            self.clock.advance(seconds=1)

    def close(self) -> None:
        self.claims.close()
        for client in (self.objects, self.operator):
            client.close()


def owner_of(pod: Pod) -> Owner:
    if pod.owner is None:
        return PodOwner(pod.ref.namespace, pod.ref.name, pod.uid)
    return Replica(WEB, int(pod.ref.name.rpartition("-")[2]))


def holder_of(pod: Pod, container: str, node: str) -> Holder:
    return Holder(container_id=container, ifname="net1", netns_path=f"/ns/{container}", node=node, pod_uid=pod.uid)


def allocation_of(owner: Owner, address: IPAddress, holder: Holder | None, **changes: Any) -> Allocation:
    whole = Allocation(
        scope="",
        address=address,
        slot=Slot(owner, "net", "net1"),
        phase=Phase.BOUND if holder is not None else Phase.RETAINED,
        holder=holder,
        since=START,
        workload_uid="w-uid",
    )
    return msgspec.structs.replace(whole, **changes)


def held_by(allocation: Allocation | None) -> str | None:
    return allocation.holder.container_id if allocation is not None and allocation.holder is not None else None
