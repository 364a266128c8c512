"""What the API server says of a run's pods and addresses, as values. No I/O.

Addresses are those of the annotation `k8s.v1.cni.cncf.io/network-status`, which every meta-plugin writes: so the same
rows can be run whoever attaches the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, TypeVar

import msgspec

from homeport.model.addresses import IPAddress
from homeport.model.errors import DecodeFailure
from homeport.multinet.statuses import ANNOTATION
from homeport.ports import ApiObject

T = TypeVar("T")

Addresses = Mapping[str, tuple[IPAddress, ...]]
"""Of one pod: interface to addresses, IPv4 before IPv6."""
Seen = Mapping[str, Addresses]
"""By pod."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One pod. `addresses` and `macs` are by interface, without the cluster's own network."""

    name: str
    uid: str
    node: str
    workload: str  # the label by which its workload selects it
    phase: str
    going: bool
    owned: bool  # by a controller
    addresses: Addresses
    macs: Mapping[str, str]

    @property
    def is_up(self) -> bool:
        """It runs, and its networks have been told of."""
        return self.phase == "Running" and not self.going and bool(self.addresses)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An IPAllocation, as far as a row looks at it. `name` is the object's."""

    name: str
    namespace: str
    pod: str
    address: IPAddress
    phase: str
    cause: str


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An event: of which object it tells what."""

    name: str
    uid: str
    reason: str
    message: str


class _NodeSpec(msgspec.Struct):
    unschedulable: bool = False
    taints: list[dict[str, Any]] | None = None


class _Node(msgspec.Struct):
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)


class _Involved(msgspec.Struct):
    name: str = ""
    uid: str = ""


class _Event(msgspec.Struct, rename="camel"):
    involved_object: _Involved = msgspec.field(default_factory=_Involved)
    reason: str = ""
    message: str = ""


class _Owner(msgspec.Struct):
    kind: str = ""
    controller: bool = False


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    uid: str = ""
    annotations: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None
    deletion_timestamp: str | None = None


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _Status(msgspec.Struct):
    phase: str = "Pending"


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _Network(msgspec.Struct):
    interface: str = ""
    ips: list[str] | None = None
    mac: str = ""
    default: bool = False


class _AllocationOwner(msgspec.Struct):
    namespace: str = ""
    name: str = ""


class _AllocationSpec(msgspec.Struct):
    address: str
    owner: _AllocationOwner


class _AllocationStatus(msgspec.Struct):
    phase: str
    cause: str = ""


class _Allocation(msgspec.Struct):
    spec: _AllocationSpec
    status: _AllocationStatus


_pods = msgspec.json.Decoder(_Pod)
_networks = msgspec.json.Decoder(list[_Network])
_allocations = msgspec.json.Decoder(_Allocation)
_events = msgspec.json.Decoder(_Event)
_nodes = msgspec.json.Decoder(_Node)


def view_of(stored: ApiObject, label: str) -> View:
    """`label` is the key of the label that names the workload."""
    try:
        pod = _pods.decode(stored.body)
        text = (pod.metadata.annotations or {}).get(ANNOTATION, "")
        attached = [n for n in (_networks.decode(text) if text else ()) if not n.default and n.interface]
        addresses = {n.interface: ordered(ip_address(ip) for ip in n.ips or ()) for n in attached}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as e:
        raise DecodeFailure(f"decode pod {stored.name}: {e}") from e
    meta = pod.metadata
    return View(
        name=meta.name,
        uid=meta.uid,
        node=pod.spec.node_name,
        workload=(meta.labels or {}).get(label, ""),
        phase=pod.status.phase,
        going=meta.deletion_timestamp is not None,
        owned=any(owner.controller for owner in meta.owner_references or ()),
        addresses=addresses,
        macs={n.interface: n.mac.lower() for n in attached},
    )


def kept_of(stored: ApiObject) -> Kept:
    """Of an IPAllocation."""
    try:
        found = _allocations.decode(stored.body)
        address = ip_address(found.spec.address)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as e:
        raise DecodeFailure(f"decode ipallocations {stored.name}: {e}") from e
    return Kept(
        name=stored.name,
        namespace=found.spec.owner.namespace,
        pod=found.spec.owner.name,
        address=address,
        phase=found.status.phase,
        cause=found.status.cause,
    )


def event_of(stored: ApiObject) -> Told:
    """Of an Event."""
    found = _decode(_events.decode, stored, "event")
    involved = found.involved_object
    return Told(name=involved.name, uid=involved.uid, reason=found.reason, message=found.message)


def is_open(stored: ApiObject) -> bool:
    """Whether the scheduler puts pods on the node that tolerate nothing."""
    spec = _decode(_nodes.decode, stored, "node").spec
    return not spec.unschedulable and all(t.get("effect") == "PreferNoSchedule" for t in spec.taints or ())


def _decode(decode: Callable[[bytes], T], stored: ApiObject, what: str) -> T:
    try:
        return decode(stored.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise DecodeFailure(f"decode {what} {stored.name}: {e}") from e


def ordered(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    """IPv4 first, each family ascending."""
    return tuple(sorted(addresses, key=lambda a: (a.version, int(a))))


def flat(seen: Seen) -> frozenset[IPAddress]:
    """Every address in it."""
    return frozenset(a for pod in seen.values() for addresses in pod.values() for a in addresses)


def twice(views: Iterable[View]) -> str:
    """Which address two pods that run have at once; "" where none is. One that ends may still be told of."""
    holders: dict[IPAddress, str] = {}
    for view in views:
        if not view.going and view.phase in ("Pending", "Running"):
            for address in (a for addresses in view.addresses.values() for a in addresses):
                if address in holders:
                    return f"{holders[address]} and {view.name} both have {address}"
                holders[address] = view.name
    return ""


def difference(found: Seen, expected: Seen) -> str:
    """What is other than expected, a pod each; "" where nothing is."""
    wrong = []
    for pod in sorted(found.keys() | expected.keys()):
        is_, should = told(found.get(pod)), told(expected.get(pod))
        if is_ != should:
            wrong.append(f"{pod}: found {is_}, expected {should}")
    return "; ".join(wrong)


def told(addresses: Addresses | None) -> str:
    """`10.9.0.12`; with its interface where that is not the only one."""
    if addresses is None:
        return "no running pod"
    if not addresses:
        return "no address"
    texts = {ifname: " and ".join(map(str, found)) or "no address" for ifname, found in sorted(addresses.items())}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{ifname} {text}" for ifname, text in texts.items())
