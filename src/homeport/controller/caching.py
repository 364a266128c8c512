"""Every allocation of the cluster, as the watch tells of them: small, and found by pod, workload and node. No I/O.

What is equal is kept once: the owner of a pod's six addresses, the words of their holder. Safe for one writer and any
number of readers.
"""

from __future__ import annotations

import sys
import threading
from typing import TypeVar

import msgspec

from homeport.ipam.allocations import Allocation, Retention
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import MacAddress
from homeport.model.names import PodRef

K = TypeVar("K")

_MOST_RETENTIONS = 1000  # that are kept once; whoever writes a new one for each workload has them kept each


class AllocationCache:
    """By the names of their objects."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._allocations: dict[str, Allocation] = {}
        self._of_pod: dict[PodRef, tuple[str, ...]] = {}
        self._of_workload: dict[Workload, set[str]] = {}
        self._on_node: dict[str, set[str]] = {}
        self._retentions: dict[Retention, Retention] = {}

    def __len__(self) -> int:
        return len(self._allocations)

    def get(self, name: str) -> Allocation | None:
        """None says nothing about the API server's side."""
        return self._allocations.get(name)

    def names(self) -> list[str]:
        """Of all, in no order."""
        with self._lock:
            return list(self._allocations)

    def items(self) -> list[tuple[str, Allocation]]:
        """All, in no order."""
        with self._lock:
            return list(self._allocations.items())

    def of_pod(self, ref: PodRef) -> tuple[str, ...]:
        """The names of what belongs to a pod of that name, a replica's or its own."""
        return self._of_pod.get(ref, ())

    def of_workload(self, workload: Workload) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._of_workload.get(workload, ()))

    def on_node(self, node: str) -> tuple[str, ...]:
        """The names of what holders on that node have."""
        with self._lock:
            return tuple(self._on_node.get(node, ()))

    def of_slot(self, slot: Slot) -> tuple[Allocation, ...]:
        """A replica's or pod's."""
        ref = pod_of(slot.owner)
        found = (self._allocations.get(name) for name in self._of_pod.get(ref, ())) if ref is not None else ()
        return tuple(a for a in found if a is not None and a.slot == slot)

    def put(self, name: str, allocation: Allocation) -> Allocation | None:
        """What was known of it before; None when it is new."""
        with self._lock:
            before = self._allocations.get(name)
            small = self._small(allocation)
            if before is not None:
                self._unindex(name, before)
            self._allocations[sys.intern(name)] = small
            self._index(name, small)
            return before

    def remove(self, name: str) -> Allocation | None:
        """It is proven gone; what was known of it."""
        with self._lock:
            before = self._allocations.pop(name, None)
            if before is not None:
                self._unindex(name, before)
            return before

    def _index(self, name: str, allocation: Allocation) -> None:
        owner = allocation.slot.owner
        ref = pod_of(owner)
        if ref is not None:
            self._of_pod[ref] = (*self._of_pod.get(ref, ()), name)
        if isinstance(owner, Replica):
            self._of_workload.setdefault(owner.workload, set()).add(name)
        if allocation.holder is not None:
            self._on_node.setdefault(allocation.holder.node, set()).add(name)

    def _unindex(self, name: str, allocation: Allocation) -> None:
        owner = allocation.slot.owner
        ref = pod_of(owner)
        if ref is not None:
            left = tuple(other for other in self._of_pod[ref] if other != name)
            if left:
                self._of_pod[ref] = left
            else:
                del self._of_pod[ref]
        if isinstance(owner, Replica):
            _discard(self._of_workload, owner.workload, name)
        if allocation.holder is not None:
            _discard(self._on_node, allocation.holder.node, name)

    def _small(self, allocation: Allocation) -> Allocation:
        """The same, made of parts that are there already."""
        slot, holder, mac = allocation.slot, allocation.holder, allocation.mac
        if len(self._retentions) >= _MOST_RETENTIONS:
            self._retentions.clear()
        return msgspec.structs.replace(
            allocation,
            scope=sys.intern(allocation.scope),
            slot=Slot(self._known_owner(slot.owner), sys.intern(slot.network), sys.intern(slot.ifname)),
            holder=_small_holder(holder) if holder is not None else None,
            mac=MacAddress(sys.intern(mac)) if mac is not None else None,
            retention=self._retentions.setdefault(allocation.retention, allocation.retention),
            workload_uid=sys.intern(allocation.workload_uid),
        )

    def _known_owner(self, owner: Owner) -> Owner:
        ref = pod_of(owner)
        for name in self._of_pod.get(ref, ()) if ref is not None else ():
            known = self._allocations[name].slot.owner
            if known == owner:
                return known
        if isinstance(owner, Replica):
            for name in self._of_workload.get(owner.workload, ()):
                known = self._allocations[name].slot.owner
                return Replica(known.workload, owner.ordinal) if isinstance(known, Replica) else owner
        return owner


def pod_of(owner: Owner) -> PodRef | None:
    """The pod that is, or would be, this owner; None outside Kubernetes."""
    match owner:
        case Replica():
            return owner.pod
        case PodOwner(namespace, name):
            return PodRef(namespace, name)
        case ContainerOwner():
            return None


def _small_holder(holder: Holder) -> Holder:
    return Holder(
        container_id=sys.intern(holder.container_id),
        ifname=sys.intern(holder.ifname),
        netns_path=sys.intern(holder.netns_path),
        node=sys.intern(holder.node),
        pod_uid=sys.intern(holder.pod_uid),
        mac=MacAddress(sys.intern(holder.mac)) if holder.mac is not None else None,
    )


def _discard(index: dict[K, set[str]], key: K, name: str) -> None:
    index[key].discard(name)
    if not index[key]:
        del index[key]
