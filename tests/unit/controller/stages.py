"""A cluster of plain objects in memory, and controllers that are stepped by hand."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any

import msgspec
from tests.stand_ins import StandingClock
from tests.stand_ins_objects import Call, MemoryObjects, MemoryServer

from homeport.controller.ledgering import Keeping
from homeport.controller.operating import Term, Tools
from homeport.controller.reporting import Reporter
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.kube import decoding
from homeport.kube.resources import DEFINITIONS, NODES, PODS, STATEFUL_SETS
from homeport.model.errors import TryAgainLater
from homeport.model.names import PodRef
from homeport.ports import ApiObject, Event, LedgerEntry, Objects, Resource
from homeport.stores.kubernetes.hints import RangeReport, decode_range
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPRANGES
from homeport.stores.kubernetes.store import KubernetesStore

NETWORKS = "k8s.v1.cni.cncf.io/networks"
WRITES = ("create", "patch", "patch_json", "delete")


class Killed(BaseException):
    """SIGKILL: nothing catches it, nothing is tidied up."""


class ObjectsCluster:
    """`ports.Cluster`, asked live, of the kinds that Kubernetes itself has."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def pod(self, ref: PodRef) -> Pod | None:
        return self.pod_now(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        found = self._objects.get(PODS, ref.name, namespace=ref.namespace)
        return decoding.decode_pod(found.body) if found is not None else None

    def workload(self, workload: Workload) -> WorkloadState | None:
        if workload.kind != STATEFUL_SETS.kind:
            raise TryAgainLater(f"get {workload}: the API server knows no such resource (404)")
        found = self._objects.get(STATEFUL_SETS, workload.name, namespace=workload.namespace)
        return decoding.decode_stateful_set(found.body) if found is not None else None

    def node(self, name: str) -> NodeState | None:
        found = self._objects.get(NODES, name)
        return decoding.decode_node(found.body) if found is not None else None


class Actor:
    """One controller that leads, as far as it knows. Its requests go through `objects`."""

    def __init__(self, stage: Stage, *, whereabouts_namespace: str = "") -> None:
        self._stage = stage
        self.objects = MemoryObjects(stage.server, threaded=False)
        self.events: list[Event] = []
        self.reporter = Reporter(self.events.append)
        self.term = Term(
            Tools(
                objects=self.objects,
                cluster=ObjectsCluster(self.objects),
                clock=stage.clock,
                reporter=self.reporter,
                fill_ipam=lambda plugin: plugin["ipam"],
                keeping=stage.keeping,
                whereabouts_namespace=whereabouts_namespace,
            )
        )

    def work(self, seconds: float = 5.0) -> None:
        """Steps until so much time has passed, and nothing was to be done at its end."""
        clock = self._stage.clock
        until = clock.monotonic() + seconds
        while True:
            wait = self.term.step()
            self.objects.deliver()
            if wait <= 0 or self.term.agenda.wait(0.0):
                continue
            if clock.monotonic() >= until:
                return
            clock.sleep(min(wait, 1.0))

    def on_write(self, number: int, action: Callable[[], object]) -> None:
        """`action` comes before the write of that number, counted from 1."""
        seen = 0

        def look(call: Call) -> None:
            nonlocal seen
            seen += call.verb in WRITES
            if seen == number and call.verb in WRITES:
                seen += 1
                action()

        self.objects.on_call = look

    def writes(self) -> int:
        return sum(call.verb in WRITES for call in self.objects.calls)

    def doubtful(self) -> float | None:
        return self.reporter.registry.get_sample_value("homeport_controller_doubtful_allocations")

    def reasons(self) -> list[str]:
        return sorted(event.reason for event in self.events)


class Stage:
    """One network `lan`, 10.0.0.0/24, in namespace `ns`; allocations are called by their last number."""

    def __init__(self, **sticky: Any) -> None:
        self.server = MemoryServer()
        self.keeping = Keeping()
        self.clock = StandingClock()
        self.people = MemoryObjects(self.server, threaded=False)
        self.store = KubernetesStore(self.people, now=self.clock.now, monotonic=self.clock.monotonic)
        self.define("lan", sticky=sticky)
        for name in ("n1", "n2"):
            self.node(name)

    def actor(self, *, whereabouts_namespace: str = "") -> Actor:
        return Actor(self, whereabouts_namespace=whereabouts_namespace)

    # --- people ---

    def define(self, name: str, *, range_: str = "10.0.0.0/24", **ipam: Any) -> None:
        config = {
            "cniVersion": "1.0.0",
            "name": name,
            "type": "macvlan",
            "ipam": {"type": "whereabouts", "range": range_, **ipam},
        }
        self.put(DEFINITIONS, name, {"spec": {"config": json.dumps(config)}})

    def workload(
        self,
        name: str,
        replicas: int,
        *,
        addresses: list[int] | None = None,
        networks: str = "lan",
        notes: Mapping[str, str] | None = None,
    ) -> Workload:
        """A StatefulSet as it shall be from now on."""
        template = {NETWORKS: networks}
        if addresses is not None:
            template["homeport.dev/addresses"] = json.dumps({"lan": [f"10.0.0.{n}" for n in addresses]})
        spec = {"replicas": replicas, "template": {"metadata": {"annotations": template}}}
        self.put(STATEFUL_SETS, name, {"metadata": {"annotations": notes or {}}, "spec": spec})
        return Workload("ns", "StatefulSet", name)

    def put(self, resource: Resource, name: str, body: Mapping[str, Any]) -> ApiObject:
        namespace = "ns" if resource.namespaced else ""
        metadata = {**body.get("metadata", {}), "name": name}
        if self.people.get(resource, name, namespace=namespace) is not None:
            return self.people.patch(resource, name, {**body, "metadata": metadata}, namespace=namespace)
        return self.people.create(resource, {**body, "metadata": metadata}, namespace=namespace)

    def remove(self, resource: Resource, name: str) -> None:
        self.people.delete(resource, name, namespace="ns" if resource.namespaced else "")

    def node(self, name: str, *, out_of_service: bool = False) -> None:
        taints = [{"key": "node.kubernetes.io/out-of-service"}] if out_of_service else []
        self.put(NODES, name, {"spec": {"taints": taints}})

    # --- pods and nodes ---

    def pod(self, name: str, *, phase: str = "Running") -> str:
        """A pod of that name; its UID."""
        return self.put(PODS, name, {"status": {"phase": phase}}).uid

    def bind(self, owner: Owner, number: int, *, node: str = "n1", uid: str = "") -> Allocation:
        """A pod for the owner, and what its ADD leaves behind."""
        match owner:
            case Replica():
                uid = uid or self.pod(owner.pod.name)
            case PodOwner(_, _, own):
                uid = uid or own
        container = secrets.token_hex(6)
        return self.store.create(
            Allocation(
                scope="",
                address=ip_address(f"10.0.0.{number}"),
                slot=Slot(owner, "lan", "net1"),
                phase=Phase.BOUND,
                holder=Holder(
                    container_id=container, ifname="net1", netns_path=f"/run/{container}", node=node, pod_uid=uid
                ),
                since=self.clock.now(),
            ),
            cause="allocated",
        )

    def stranger(self, name: str, number: int, *, node: str = "n1") -> Allocation:
        return self.bind(PodOwner("ns", name, self.pod(name)), number, node=node)

    def keep(self, allocation: Allocation, phase: Phase = Phase.RETAINED) -> Allocation:
        """The same, without a holder."""
        now = msgspec.structs.replace(allocation, phase=phase, holder=None, since=self.clock.now())
        return self.store.replace(now, cause="DEL")

    def save(self) -> Callable[[], None]:
        """A backup of the database; what restores it."""
        server = self.server
        objects, version, history = dict(server.objects), server.version, list(server.history)

        def restore() -> None:
            server.objects, server.version, server.history = objects, version, history

        return restore

    # --- looking ---

    def phases(self) -> dict[int, str]:
        return {int(a.address) & 255: a.phase.value for a in self.store.all()}

    def range(self) -> RangeReport:
        (found,) = self.people.list(IPRANGES)
        return decode_range(found)

    def ledger(self) -> list[LedgerEntry]:
        return list(self.store.ledger())

    def store_now(self, seconds: float) -> datetime:
        """The clock's time so many seconds ago (if negative)."""
        return self.clock.now() + timedelta(seconds=seconds)

    def require_whole_ledger(self) -> None:
        """Every state that an allocation ever had is in it, once, each change after the one before."""
        self.require_chain()
        ended = sum(c.key[0] == IPALLOCATIONS and c.after is None for c in self.server.history)
        assert sum(entry.after is None for entry in self.ledger()) == ended

    def require_chain(self) -> None:
        """Each change is of what the one before has left, and the last is what there is."""
        now: dict[str, Allocation] = {}
        for entry in self.ledger():
            subject = entry.after or entry.before
            assert subject is not None
            name = str(subject.address)
            assert _plain(now.get(name)) == _plain(entry.before), f"{name}: {entry.cause}"
            if entry.after is None:
                del now[name]
            else:
                now[name] = entry.after
        assert {k: _plain(a) for k, a in now.items()} == {str(a.address): _plain(a) for a in self.store.all()}

    def require_untouched(self, *kept: Allocation) -> None:
        """Nobody has ever written to these since they were made."""
        for allocation in kept:
            name = str(allocation.address)
            changes = [c for c in self.server.history if c.key[0] == IPALLOCATIONS and c.key[2] == name]
            assert [c.version for c in changes if c.version > allocation.version] == [], name


def _plain(allocation: Allocation | None) -> Allocation | None:
    """But for its version: a note of why an allocation is about to go makes a new one."""
    return None if allocation is None else msgspec.structs.replace(allocation, version=0)
