"""One pass over all allocations: what is proven gone is let go, what a map asks for is reserved.

Level-triggered: it reads what is, never what happened. Every change is one compare-and-swap, so a pass may be killed
anywhere, repeated, or run twice at once; `ipam.retention` decides, and everything uncertain stays (docs/identity.md
R12).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import ContainerOwner, Holder, Replica, Slot, Workload
from homeport.ipam.moving import HolderFacts
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.ipam.policies import retention_for
from homeport.ipam.pools import Pool
from homeport.ipam.reservations import Reservation
from homeport.ipam.retention import Keep, LetGo, Outcome, Release, decide_bound, decide_retained, is_superseded
from homeport.model.errors import CniError
from homeport.model.names import PodRef
from homeport.ports import AllocationStore, AlreadyExists, Cluster, Conflict

T = TypeVar("T")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something the pass did; None before a reservation and after a release."""

    cause: str
    before: Allocation | None
    after: Allocation | None


class Doubt(msgspec.Struct, frozen=True):
    """An allocation that stays because nothing could be proven about it, and why."""

    allocation: Allocation
    reason: str


class Blocked(msgspec.Struct, frozen=True):
    """A mapped address that is somebody else's for now."""

    reservation: Reservation
    by: Allocation


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass did, in order, and what it could not."""

    changes: tuple[Change, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    blocked: tuple[Blocked, ...] = ()


def reconcile(
    store: AllocationStore,
    cluster: Cluster | None,
    *,
    pool_of: Callable[[Slot], Pool | None],
    netns_exists: Callable[[Holder], bool | None],
    reservations: Sequence[Reservation] | None,
    now: Callable[[], datetime],
) -> Report:
    """One pass.

    `pool_of` gives the pool of a slot's network, None when it is not known now. `netns_exists` says whether a holder's
    namespace is there, None when this place cannot see. `reservations` is the whole of what maps ask for (see
    `ipam.reservations`), None when that is not known: then none is made or withdrawn. Raises only what the store
    raises; whatever else fails is a doubt of the report.
    """
    run = _Pass(store, cluster, pool_of, netns_exists, now)
    mapped = None if reservations is None else {(r.scope, r.address, r.slot) for r in reservations}
    for allocation in tuple(store.all()):
        if allocation.phase is not Phase.RESERVED:
            run.settle(allocation)
        elif mapped is not None and (allocation.scope, allocation.address, allocation.slot) not in mapped:
            run.withdraw(allocation)
    for reservation in reservations or ():
        run.reserve(reservation)
    return Report(changes=tuple(run.changes), doubts=tuple(run.doubts), blocked=tuple(run.blocked))


class _Unknown(Exception):
    """A fact could not be had; what hangs on it stays as it is."""


class _Pass:
    """The ports of one pass, its answers from the cluster, and its report so far."""

    def __init__(
        self,
        store: AllocationStore,
        cluster: Cluster | None,
        pool_of: Callable[[Slot], Pool | None],
        netns_exists: Callable[[Holder], bool | None],
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._pool_of = pool_of
        self._netns_exists = netns_exists
        self._now = now
        self._workloads: dict[Workload, WorkloadState | None] = {}
        self._nodes: dict[str, NodeState | None] = {}
        self.changes: list[Change] = []
        self.doubts: list[Doubt] = []
        self.blocked: list[Blocked] = []

    def settle(self, allocation: Allocation) -> None:
        """Takes an allocation as far as is proven: from bound to retained to released, one step at a time."""
        current: Allocation | None = allocation
        try:
            while current is not None:
                current = self._refreshed(current)
                outcome = self._decide(current)
                if isinstance(outcome, Keep):
                    if outcome.doubt:
                        self.doubts.append(Doubt(current, outcome.doubt))
                    return
                current = self._act(current, outcome)
        except Conflict:
            return  # somebody else is at work on it; what is left to do, the next pass finds
        except _Unknown as e:
            self.doubts.append(Doubt(current or allocation, str(e)))

    def withdraw(self, allocation: Allocation) -> None:
        """Releases a reservation that no map asks for any more: its network was read, or its workload is gone."""
        workload = allocation.slot.workload
        try:
            if self._pool_of(allocation.slot) is None and (workload is None or self._workload(workload) is not None):
                raise _Unknown(f'network "{allocation.slot.network}" is not known now, and with it its map')
            self._act(allocation, Release(f"no map gives it to {allocation.slot.owner} any more"))
        except Conflict:
            return  # the slot has taken it up meanwhile
        except _Unknown as e:
            self.doubts.append(Doubt(allocation, str(e)))

    def reserve(self, reservation: Reservation) -> None:
        """Makes a reservation where nothing stands yet."""
        present = self._store.get(reservation.scope, reservation.address)
        if present is None:
            try:
                made = self._store.create(reservation.allocation(self._now()), cause="reserved by a map")
            except AlreadyExists as e:
                present = e.present
            else:
                self.changes.append(Change(cause="reserved by a map", before=None, after=made))
                return
        if present.slot != reservation.slot:
            self.blocked.append(Blocked(reservation, present))

    def _act(self, allocation: Allocation, outcome: LetGo | Release) -> Allocation | None:
        """Writes the outcome; what is left of the allocation, or None. Raises `Conflict`."""
        left = released(allocation, at=self._now()) if isinstance(outcome, LetGo) else None
        if left is None:
            self._store.delete(allocation, cause=outcome.cause)
        else:
            left = self._store.replace(left, cause=outcome.cause)
        self.changes.append(Change(cause=outcome.cause, before=allocation, after=left))
        return left

    def _decide(self, allocation: Allocation) -> Outcome:
        """The facts this allocation's phase asks for, and the decision. Raises `_Unknown` when one cannot be had."""
        if allocation.phase is Phase.BOUND and allocation.holder is not None:
            return decide_bound(allocation, self._holder_facts(allocation, allocation.holder))
        owner = allocation.slot.owner
        if allocation.phase is not Phase.RETAINED or not isinstance(owner, Replica):
            return Keep()
        # First the workload, then the pod: a pod that a workload of the same name brought back is not missed.
        workload = self._workload(owner.workload)
        pod = self._pod(owner.pod)
        superseded = self._is_superseded(allocation)
        return decide_retained(allocation, workload, pod, self._now(), superseded=superseded)

    def _is_superseded(self, allocation: Allocation) -> bool:
        pool = self._pool_of(allocation.slot)
        return pool is not None and is_superseded(allocation, pool, self._store.of_slot(allocation.slot))

    def _holder_facts(self, allocation: Allocation, holder: Holder) -> HolderFacts:
        owner = allocation.slot.owner
        exists = self._netns_exists(holder)
        if isinstance(owner, ContainerOwner):
            return HolderFacts(netns_exists=exists)
        ref = owner.pod if isinstance(owner, Replica) else PodRef(owner.namespace, owner.name)
        pod = self._pod(ref)
        if not holder.pod_uid:
            raise _Unknown("its pod's UID was never known")
        facts = HolderFacts(
            pod_gone=pod is None or pod.uid != holder.pod_uid,
            pod_finished=pod is not None and pod.uid == holder.pod_uid and pod.finished,
            netns_exists=exists,
        )
        if exists is not None or not (facts.pod_gone or facts.pod_finished):
            return facts
        node = self._node(holder.node)
        return msgspec.structs.replace(
            facts, node_gone=node is None, node_out_of_service=node is not None and node.out_of_service
        )

    def _refreshed(self, allocation: Allocation) -> Allocation:
        """The allocation with its workload's present wish for retention, noted while there is one to ask (R11)."""
        owner, pool = allocation.slot.owner, self._pool_of(allocation.slot)
        if not isinstance(owner, Replica) or pool is None or pool.policy is None:
            return allocation
        workload = self._workload(owner.workload)
        if workload is None:
            return allocation
        try:
            wish = retention_for(pool.policy, owner.workload, workload.annotations)
        except CniError as e:
            if allocation.phase is Phase.BOUND:
                return allocation
            raise _Unknown(e.msg) from e
        if wish == allocation.retention:
            return allocation
        noted = self._store.replace(msgspec.structs.replace(allocation, retention=wish), cause="retention changed")
        self.changes.append(Change(cause="retention changed", before=allocation, after=noted))
        return noted

    # --- answers of the cluster: a thing, None for "not found", or `_Unknown` ---

    def _pod(self, ref: PodRef) -> Pod | None:
        return self._ask(lambda cluster: cluster.pod_now(ref))

    def _workload(self, workload: Workload) -> WorkloadState | None:
        if workload not in self._workloads:
            self._workloads[workload] = self._ask(lambda cluster: cluster.workload(workload))
        return self._workloads[workload]

    def _node(self, name: str) -> NodeState | None:
        if name not in self._nodes:
            self._nodes[name] = self._ask(lambda cluster: cluster.node(name))
        return self._nodes[name]

    def _ask(self, question: Callable[[Cluster], T]) -> T:
        if self._cluster is None:
            raise _Unknown("there is no cluster to ask")
        try:
            return question(self._cluster)
        except CniError as e:
            raise _Unknown(e.msg) from e
