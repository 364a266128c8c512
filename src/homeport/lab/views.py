"""What commands show of a lab: plain values for JSON and YAML, and rows for tables. Reads the lab's state only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.lab.objects import Attached, Network, NodeObject, PodObject, PodPhase, Sandbox, WorkloadObject, phase
from homeport.lab.storing import State
from homeport.model.names import PodRef


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One interface of one pod; a pod that has none yet is one entry without."""

    replica: str
    namespace: str
    node: str
    network: str
    interface: str
    addresses: tuple[str, ...]
    mac: str
    phase: PodPhase
    message: str = ""


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `get pods`."""

    name: str
    namespace: str
    phase: PodPhase
    node: str
    addresses: tuple[str, ...]
    uid: str
    container_id: str = ""
    netns: str = ""  # as the keeper's mount namespace sees it
    message: str = ""


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `get nodes`."""

    name: str
    status: str
    pods: int


class NetworkView(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `get networks`."""

    name: str
    namespace: str
    plugins: tuple[str, ...]
    config: str


class WorkloadView(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `get workloads`."""

    name: str
    namespace: str
    kind: str
    ready: int
    replicas: int
    up_to_date: int


class AllocationView(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `get allocations`."""

    address: str
    owner: str
    network: str
    interface: str
    phase: str
    node: str
    mac: str
    since: datetime
    scope: str


def pods_in_order(state: State, namespace: str | None) -> list[PodObject]:
    """By namespace and workload, replicas by ordinal (web-10 after web-9)."""
    pods = [p for p in state.all(PodObject) if namespace in (None, p.ref.namespace)]
    return sorted(pods, key=lambda p: (p.ref.namespace, str(p.workload), p.ordinal or 0, p.ref.name))


def replicas(state: State, namespace: str | None) -> list[Replica]:
    """The default view of `get`."""
    sandboxes, phases = _sandboxes(state), _phases(state)
    nothing = Attached(network="", ifname="", conflist="")
    return [
        Replica(
            replica=pod.ref.name,
            namespace=pod.ref.namespace,
            node=pod.node,
            network=one.network.partition("/")[2],
            interface=one.ifname,
            addresses=tuple(a.partition("/")[0] for a in one.addresses),
            mac=one.mac or "",
            phase=phases[pod.uid],
            message=pod.message,
        )
        for pod in pods_in_order(state, namespace)
        for one in (sandboxes[pod.uid].attachments if pod.uid in sandboxes else ()) or [nothing]
    ]


def pods(state: State, namespace: str | None) -> list[PodView]:
    """`get pods`."""
    sandboxes, phases = _sandboxes(state), _phases(state)
    nothing = Sandbox(container_id="", ref=PodRef("", ""), pod_uid="", node="", netns_path="")
    return [
        PodView(
            name=pod.ref.name,
            namespace=pod.ref.namespace,
            phase=phases[pod.uid],
            node=pod.node,
            addresses=tuple(a.partition("/")[0] for one in sandbox.attachments for a in one.addresses),
            uid=pod.uid,
            container_id=sandbox.container_id,
            netns=sandbox.netns_path,
            message=pod.message,
        )
        for pod in pods_in_order(state, namespace)
        for sandbox in [sandboxes.get(pod.uid, nothing)]
    ]


def nodes(state: State) -> list[NodeView]:
    """`get nodes`."""
    held = [p.node for p in state.all(PodObject)]
    found = sorted(state.all(NodeObject), key=lambda n: (len(n.name), n.name))
    return [NodeView(name=n.name, status=n.status, pods=held.count(n.name)) for n in found]


def networks(state: State, namespace: str | None) -> list[NetworkView]:
    """`get networks`."""
    return [
        NetworkView(name=n.name, namespace=n.namespace, plugins=_plugin_types(n), config=n.config)
        for n in state.all(Network)
        if namespace in (None, n.namespace)
    ]


def workloads(state: State, namespace: str | None) -> list[WorkloadView]:
    """`get workloads`."""
    pods = state.all(PodObject)
    found = []
    for workload in state.all(WorkloadObject):
        key, owned = workload.spec.workload, [p for p in pods if p.workload_uid == workload.uid and not p.deleting]
        if namespace in (None, key.namespace):
            found.append(
                WorkloadView(
                    name=key.name,
                    namespace=key.namespace,
                    kind=key.kind,
                    ready=sum(p.running for p in owned),
                    replicas=workload.spec.replicas,
                    up_to_date=sum(p.revision == workload.revision for p in owned),
                )
            )
    return found


def allocations(found: Iterable[Allocation], namespace: str | None) -> list[AllocationView]:
    """`get allocations`, by address."""
    ordered = sorted(found, key=lambda a: (a.scope, a.address.version, int(a.address)))
    return [
        AllocationView(
            address=str(a.address),
            owner=str(a.slot.owner),
            network=a.slot.network,
            interface=a.slot.ifname,
            phase=a.phase.value,
            node=a.holder.node if a.holder else "",
            mac=a.mac or "",
            since=a.since,
            scope=a.scope,
        )
        for a in ordered
        if namespace is None or str(a.slot.owner).startswith(f"{namespace}/")
    ]


def troubles(state: State) -> list[tuple[str, str]]:
    """(pod, why) of every pod that should run and does not, other than for its node."""
    phases = _phases(state)
    return [
        (pod.ref.name, pod.message or "not started")
        for pod in pods_in_order(state, None)
        if phases[pod.uid] in ("Pending", "ContainerCreating")
    ]


def _sandboxes(state: State) -> Mapping[str, Sandbox]:
    """Those that are ready, by their pod's UID."""
    return {s.pod_uid: s for s in state.all(Sandbox) if s.ready}


def _phases(state: State) -> Mapping[str, PodPhase]:
    by_name = {n.name: n for n in state.all(NodeObject)}
    return {p.uid: phase(p, by_name.get(p.node)) for p in state.all(PodObject)}


def _plugin_types(network: Network) -> tuple[str, ...]:
    try:
        config = msgspec.json.decode(network.config)
    except msgspec.DecodeError:
        return ()
    if not isinstance(config, dict):
        return ()
    return tuple(str(p.get("type", "")) for p in config.get("plugins", [config]) if isinstance(p, dict))
