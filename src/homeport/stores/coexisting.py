"""Allocations of a cluster where some nodes still run Whereabouts: what we claim they see, what they have we honour.

Every write goes to Whereabouts' objects first and to our own store second, and every removal the other way round. So
as long as our store has an allocation, Whereabouts finds the address taken; dying anywhere between the two leaves an
address that nobody gets, never one that two have. The mark in Whereabouts' objects is that of the one claim it was
written for (`mark_of`): a removal that comes late finds the next claim's mark, and leaves it alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from threading import Lock

import msgspec

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import ContainerOwner, Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.ipam.ranges import Span, merge_spans
from homeport.ipam.whereabouts import MARK, ForeignPool, PoolEntry
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, TryAgainLater, Unreachable
from homeport.ports import AllocationStore, AlreadyExists, Conflict, LedgerEntry, Objects, Place
from homeport.stores.whereabouts import HeldByWhereabouts, WhereaboutsRecords

DEFAULT_NAMESPACE = "kube-system"
_REFUSED_SECONDS = 10.0  # that an address is not tried again which only a reservation keeps from us
_REFUSED_MAX = 4096
_SETTLING_ROUNDS = 3


class CoexistingStore:
    """An `AllocationStore` around another, in a cluster whose Whereabouts keeps its objects in `namespace`.

    Reading is the other store's alone. Beside what `AllocationStore` says, `create` raises `AlreadyExists` with an
    allocation of version 0 for an address that Whereabouts has; `replace` raises `TryAgainLater` when one that is to
    be bound has become Whereabouts' own; and `delete` raises it when the allocation is gone but Whereabouts could not
    be told: to be repeated, which then raises `Conflict`.
    """

    def __init__(
        self,
        store: AllocationStore,
        objects: Objects,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self.records = WhereaboutsRecords(objects, namespace)
        self._monotonic = monotonic
        self._lock = Lock()
        self._refused: dict[Place, float] = {}

    # --- writing ---

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        place = allocation.scope, allocation.address
        present = self._store.get(*place)
        if present is not None:
            if _is_same_claim(present, allocation):  # an earlier try of this claim got no further, or no answer
                self.confirm(present)
            raise AlreadyExists(present)
        self._claim_new(allocation)
        try:
            stored = self._store.create(allocation, cause=cause)
        except (AlreadyExists, CniError) as e:
            self._settle_after(e, place, mark_of(allocation))
            raise
        with _done(f"allocate {stored.address}"):
            self._make_sure(stored)
        return stored

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        place = allocation.scope, allocation.address
        mark = mark_of(allocation)
        try:
            self.records.claim(place, mark, lambda entry: self._is_of_predecessor(entry, allocation))
        except HeldByWhereabouts as e:
            # Letting go is harmless whoever else has it; using it is not.
            if allocation.phase is Phase.BOUND:
                raise TryAgainLater(f"bind {allocation.address} for {allocation.slot}: {e}") from e
        try:
            return self._store.replace(allocation, cause=cause)
        except (Conflict, CniError) as e:
            self._settle_after(e, place, mark)
            raise

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        place = allocation.scope, allocation.address
        try:
            self._store.delete(allocation, cause=cause)
        except Conflict:
            if self._store.get(*place) is None:
                self.records.hand_over(place, mark_of(allocation), None)
            raise
        with _done(f"release {allocation.address}"):
            self.records.hand_over(place, mark_of(allocation), None)

    def protect(self, allocation: Allocation, *, among: Sequence[ForeignPool] | None = None) -> None:
        """Makes Whereabouts see an allocation that our store has. Raises `HeldByWhereabouts` when the address is
        another's there; an entry of the allocation's own holder becomes ours. `among` are the scope's pools, where they
        were listed already.
        """
        place = allocation.scope, allocation.address
        self.records.claim(place, mark_of(allocation), lambda entry: is_of_holder(entry, allocation), among=among)
        self.settle(place, mark_of(allocation))

    def confirm(self, allocation: Allocation) -> None:
        """To be asked before an allocation is used whose claim was broken off: a claim is safe once it has ended.

        Raises `TryAgainLater` when the address has become another's at Whereabouts.
        """
        try:
            self.protect(allocation)
        except HeldByWhereabouts as e:
            raise TryAgainLater(f"use {allocation.address} for {allocation.slot}: {e}") from e

    def settle(self, place: Place, mark: str) -> None:
        """Ends what was begun with `mark`: it becomes that of the allocation our store has, or is removed."""
        for _ in range(_SETTLING_ROUNDS):
            present = self._store.get(*place)
            to_mark = mark_of(present) if present is not None else None
            if to_mark != mark:
                self.records.hand_over(place, mark, to_mark)
            if present is None or to_mark == mark:
                return
            mark = mark_of(present)

    # --- reading ---

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        return self._store.get(scope, address)

    def of_slot(self, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:
        return self._store.of_slot(slot, likely=likely)

    def of_owner(self, owner: Owner) -> tuple[Allocation, ...]:
        return self._store.of_owner(owner)

    def of_workload(self, workload: Workload) -> tuple[Allocation, ...]:
        return self._store.of_workload(workload)

    def of_holder(self, container_id: str, ifname: str) -> tuple[Allocation, ...]:
        return self._store.of_holder(container_id, ifname)

    def of_node(self, node: str) -> tuple[Allocation, ...]:
        return self._store.of_node(node)

    def all(self, scope: str | None = None) -> Iterable[Allocation]:
        return self._store.all(scope)

    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int = 1, near: IPAddress | None = None
    ) -> tuple[IPAddress, ...]:
        refused = [Span(address, address) for known, address in self._refused_now() if known == scope]
        theirs = [s for s in self.records.taken(scope) if s.first.version == span.first.version]
        return self._store.lowest_free(
            scope, span, merge_spans([*excluding, *theirs, *refused]), count=count, near=near
        )

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]:
        return self._store.ledger(address=address, since=since, until=until)

    # --- inside ---

    def _claim_new(self, wanted: Allocation) -> None:
        place = wanted.scope, wanted.address
        try:
            self.records.claim(place, mark_of(wanted), lambda entry: is_of_holder(entry, wanted))
        except HeldByWhereabouts as e:
            self._remember_refused(place)
            raise AlreadyExists(_foreign(e, wanted)) from e

    def _make_sure(self, stored: Allocation) -> None:
        """Another claim may have written over our mark, had the address before us, and removed its own with it. Now
        that the allocation is there, whoever does so again restores it: it has lost.
        """
        if self.records.is_marked((stored.scope, stored.address), mark_of(stored)):
            return
        try:
            self._claim_new(stored)
        except AlreadyExists:
            with suppress(Conflict):
                self._store.delete(stored, cause="undone: Whereabouts gave it away at the same time")
            self.settle((stored.scope, stored.address), mark_of(stored))
            raise

    def _settle_after(self, error: Exception, place: Place, mark: str) -> None:
        """Takes the mark back after a write that certainly was not done; of any other nobody knows (R12)."""
        if isinstance(error, TryAgainLater) and not isinstance(error, Unreachable):
            return
        with suppress(CniError):  # what stays keeps the address from everybody, and is found by the keeper
            self.settle(place, mark)

    def _is_of_predecessor(self, entry: PoolEntry, allocation: Allocation) -> bool:
        """Whether an entry is of the holder that our store has at the version to be replaced: whoever replaces it has
        proof that it is gone (R8), or is that holder.
        """
        if is_of_holder(entry, allocation):
            return True
        present = self._store.get(allocation.scope, allocation.address)
        return present is not None and present.version == allocation.version and is_of_holder(entry, present)

    def _refused_now(self) -> list[Place]:
        now = self._monotonic()
        with self._lock:
            self._refused = {p: at for p, at in self._refused.items() if now - at < _REFUSED_SECONDS}
            return list(self._refused)

    def _remember_refused(self, place: Place) -> None:
        with self._lock:
            self._refused[place] = self._monotonic()
            while len(self._refused) > _REFUSED_MAX:
                del self._refused[next(iter(self._refused))]


@contextmanager
def _done(what: str) -> Iterator[None]:
    """Around what follows a write that was done: no error of it may say that nothing was."""
    try:
        yield
    except CniError as e:
        raise TryAgainLater(f"{what}: done, but Whereabouts was not told: {e.msg}", e.details) from e


def mark_of(allocation: Allocation) -> str:
    """What Whereabouts' objects carry for an allocation: another for each holder and each phase, however often the
    address changes hands, as `since` is. Ends with the slot, for people.
    """
    holder = allocation.holder
    told = (
        allocation.scope,
        str(allocation.address),
        allocation.slot,
        allocation.phase.value,
        (holder.container_id, holder.ifname) if holder is not None else None,
        allocation.since,
    )
    digest = hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:20]
    return f"{MARK}{digest} {allocation.slot}"


def is_of_holder(entry: PoolEntry, allocation: Allocation) -> bool:
    """Whether an entry of Whereabouts' is of the very interface that holds the allocation. A reservation names no
    container: there, the pod must do.
    """
    holder, pod = allocation.holder, _pod_of(allocation.slot.owner)
    if holder is None or not pod:
        return False
    return entry.podref == pod and entry.id in ("", holder.container_id) and entry.ifname in ("", holder.ifname)


def _pod_of(owner: Owner) -> str:
    match owner:
        case Replica():
            return str(owner.pod)
        case PodOwner():
            return f"{owner.namespace}/{owner.name}"
        case ContainerOwner():
            return ""


def _is_same_claim(present: Allocation, wanted: Allocation) -> bool:
    """Whether an allocation is what an earlier try of this claim has made."""
    holder = wanted.holder
    return present.slot == wanted.slot and holder is not None and present.is_held_by(holder.container_id, holder.ifname)


def _foreign(held: HeldByWhereabouts, wanted: Allocation) -> Allocation:
    """Whereabouts' holder as an allocation, for whoever wants to say who has the address."""
    namespace, _, name = held.entry.podref.partition("/")
    owner: Owner = PodOwner(namespace, name, "") if name else ContainerOwner(held.entry.id or held.entry.podref)
    ifname = held.entry.ifname
    holder = Holder(
        container_id=held.entry.id or "unknown", ifname=ifname, netns_path="", node="(one with Whereabouts)"
    )
    return Allocation(
        scope=wanted.scope,
        address=wanted.address,
        slot=Slot(owner, held.where, ifname),
        phase=Phase.BOUND,
        holder=holder,
        since=wanted.since,
    )
