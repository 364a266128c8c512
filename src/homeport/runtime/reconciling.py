"""Passes over allocations: what is proven gone is let go, what a map asks for is reserved.

Level-triggered: it reads what is, never what happened. Every change is one compare-and-swap, so a pass may be killed
anywhere, repeated, or run twice at once; `ipam.retention` decides, and everything uncertain stays (docs/identity.md
R12). What a cache says may call for a look; only the cluster's live word is proof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from homeport.ipam.allocations import Allocation, Phase, Retention, released
from homeport.ipam.identities import Replica, Slot, Workload
from homeport.ipam.objects import WorkloadState
from homeport.ipam.policies import Policy, retention_for
from homeport.ipam.pools import Pool
from homeport.ipam.reservations import Reservation
from homeport.ipam.retention import Keep, LetGo, Outcome, Release, decide_bound, decide_retained, is_superseded
from homeport.model.errors import CniError
from homeport.ports import AllocationStore, AlreadyExists, Clock, Cluster, Conflict
from homeport.runtime.answering import Answers, NetnsExists, Unknown
from homeport.runtime.mapping import Reservations

PoolOf = Callable[[Allocation], Pool | None]
"""The pool of a slot's network, None when it is not known now."""

OfSlot = Callable[[Slot], tuple[Allocation, ...]]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something a pass did; None before a reservation and after a release."""

    cause: str
    before: Allocation | None
    after: Allocation | None


class Doubt(msgspec.Struct, frozen=True):
    """An allocation that stays because nothing could be proven about it, and why; `passing` as in `Unknown`."""

    allocation: Allocation
    reason: str
    passing: bool = False


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
    pool_of: PoolOf,
    netns_exists: NetnsExists,
    reservations: Reservations | None,
    clock: Clock,
) -> Report:
    """One pass over all there is, each question asked live.

    `reservations` None is not known: then none is made or withdrawn. Raises only what the store raises; whatever else
    fails is a doubt of the report.
    """
    run = Pass(store, Answers(cluster, netns_exists), pool_of=pool_of, clock=clock)
    mapped = {(r.scope, r.address, r.slot) for r in reservations.wanted} if reservations is not None else set()

    def is_mapped(allocation: Allocation) -> bool:
        if reservations is None or allocation.slot.workload in reservations.unknown:
            raise Unknown(f"what the map of {allocation.slot.workload} asks for is not known now")
        return (allocation.scope, allocation.address, allocation.slot) in mapped

    for allocation in tuple(store.all()):
        if allocation.phase is not Phase.RESERVED:
            run.settle(allocation)
        elif reservations is not None:
            run.withdraw(allocation, is_mapped)
    for reservation in reservations.wanted if reservations is not None else ():
        run.reserve(reservation)
    return run.report()


class Judge:
    """The decision about one allocation, from what one source says. Writes nothing."""

    def __init__(self, answers: Answers, *, pool_of: PoolOf, of_slot: OfSlot, clock: Clock) -> None:
        self._answers = answers
        self._pool_of = pool_of
        self._of_slot = of_slot
        self._clock = clock
        self._wishes: dict[tuple[str, Workload], Retention] = {}

    def decide(self, allocation: Allocation) -> Outcome:
        """The facts this allocation's phase asks for, and the decision. Raises `Unknown` when one cannot be had."""
        if allocation.phase is Phase.BOUND and allocation.holder is not None:
            return decide_bound(allocation, self._answers.holder_facts(allocation, allocation.holder))
        owner = allocation.slot.owner
        if allocation.phase is not Phase.RETAINED or not isinstance(owner, Replica):
            return Keep()
        # First the workload, then the pod: a pod that a workload of the same name brought back is not missed.
        workload = self._answers.workload(owner.workload)
        pod = self._answers.pod(owner.pod)
        superseded = self._is_superseded(allocation)
        return decide_retained(allocation, workload, pod, self._clock.now(), superseded=superseded)

    def wish(self, allocation: Allocation) -> Retention:
        """What its workload asks for, or what was noted when there was one to ask. Raises `Unknown`."""
        owner, pool = allocation.slot.owner, self._pool_of(allocation)
        if not isinstance(owner, Replica) or pool is None or pool.policy is None:
            return allocation.retention
        workload = self._answers.workload(owner.workload)
        if workload is None:
            return allocation.retention
        try:
            return self._wish_of(pool.network, pool.policy, workload)
        except CniError as e:
            if allocation.phase is Phase.BOUND:
                return allocation.retention
            raise Unknown(e.msg) from e

    def require_network(self, allocation: Allocation) -> None:
        """Raises `Unknown` while the workload is there and its network is not known, and with it perhaps its map."""
        workload = allocation.slot.workload
        if self._pool_of(allocation) is None and (workload is None or self._answers.workload(workload) is not None):
            raise Unknown(f'network "{allocation.slot.network}" is not known now, and with it its map')

    def _wish_of(self, network: str, policy: Policy, workload: WorkloadState) -> Retention:
        key = (network, workload.workload)
        if key not in self._wishes:
            self._wishes[key] = retention_for(policy, workload.workload, workload.annotations)
        return self._wishes[key]

    def _is_superseded(self, allocation: Allocation) -> bool:
        pool = self._pool_of(allocation)
        return pool is not None and is_superseded(allocation, pool, self._of_slot(allocation.slot))


class Pass:
    """The changes of one pass, and its report so far. Every method raises what the store raises."""

    def __init__(self, store: AllocationStore, answers: Answers, *, pool_of: PoolOf, clock: Clock) -> None:
        self._store = store
        self._judge = Judge(answers, pool_of=pool_of, of_slot=store.of_slot, clock=clock)
        self._clock = clock
        self._changes: list[Change] = []
        self._doubts: list[Doubt] = []
        self._blocked: list[Blocked] = []

    def report(self) -> Report:
        return Report(changes=tuple(self._changes), doubts=tuple(self._doubts), blocked=tuple(self._blocked))

    def settle(self, allocation: Allocation) -> None:
        """Takes an allocation as far as is proven: from bound to retained to released, one step at a time."""
        current: Allocation | None = allocation
        try:
            while current is not None:
                current = self._refreshed(current)
                outcome = self._judge.decide(current)
                if isinstance(outcome, Keep):
                    if outcome.doubt:
                        self._doubts.append(Doubt(current, outcome.doubt))
                    return
                current = self._act(current, outcome)
        except Conflict:
            return  # somebody else is at work on it; what is left to do, the next pass finds
        except Unknown as e:
            self._doubts.append(Doubt(current or allocation, str(e), e.passing))

    def withdraw(self, allocation: Allocation, is_mapped: Callable[[Allocation], bool]) -> None:
        """Releases a reservation that no map asks for any more: its network was read, or its workload is gone.

        `is_mapped` says whether one does, or raises `Unknown`.
        """
        try:
            if is_mapped(allocation):
                return
            self._judge.require_network(allocation)
            self._act(allocation, Release(f"no map gives it to {allocation.slot.owner} any more"))
        except Conflict:
            return  # the slot has taken it up meanwhile
        except Unknown as e:
            self._doubts.append(Doubt(allocation, str(e), e.passing))

    def reserve(self, reservation: Reservation) -> None:
        """Makes a reservation where nothing stands yet."""
        present = self._store.get(reservation.scope, reservation.address)
        if present is None:
            try:
                made = self._store.create(reservation.allocation(self._clock.now()), cause="reserved by a map")
            except AlreadyExists as e:
                present = e.present
            else:
                self._changes.append(Change(cause="reserved by a map", before=None, after=made))
                return
        if present.slot != reservation.slot:
            self._blocked.append(Blocked(reservation, present))

    def _act(self, allocation: Allocation, outcome: LetGo | Release) -> Allocation | None:
        """Writes the outcome; what is left of the allocation, or None. Raises `Conflict`."""
        left = released(allocation, at=self._clock.now()) if isinstance(outcome, LetGo) else None
        if left is None:
            self._store.delete(allocation, cause=outcome.cause)
        else:
            left = self._store.replace(left, cause=outcome.cause)
        self._changes.append(Change(cause=outcome.cause, before=allocation, after=left))
        return left

    def _refreshed(self, allocation: Allocation) -> Allocation:
        """The allocation with its workload's present wish for retention, noted while there is one to ask (R11)."""
        wish = self._judge.wish(allocation)
        if wish == allocation.retention:
            return allocation
        noted = self._store.replace(msgspec.structs.replace(allocation, retention=wish), cause="retention changed")
        self._changes.append(Change(cause="retention changed", before=allocation, after=noted))
        return noted


def suspects(allocations: Iterable[Allocation], seen: Judge) -> Iterable[Allocation]:
    """Those that a pass may change or doubt, going by what caches say; the others would stay as they are (R12).

    A cache that is behind costs a look at too many, or a later look at too few; it never frees anything.
    """
    for allocation in allocations:
        if allocation.phase is Phase.RESERVED:
            continue
        try:
            if seen.decide(allocation) != Keep() or seen.wish(allocation) != allocation.retention:
                yield allocation
        except Unknown:
            yield allocation
