"""A node's view of a store elsewhere: what its own interfaces hold it knows itself, and lets go without asking.

An `AllocationStore` over another one. A claim is written down here, then made there; a release is written down here and
answered, and `deliver` tells it afterwards (docs/identity.md R10). While the other store is away, a pod that had an
address here before can have it again (E20). What was asked and not answered is never taken for done or for not done
(R12): its claim stays until the other store has said how it stands.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

import msgspec

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder, Owner, Replica, Slot, Workload
from homeport.ipam.ranges import Span
from homeport.model.addresses import IPAddress
from homeport.model.errors import CniError, TryAgainLater, Unreachable
from homeport.ports import AllocationStore, AlreadyExists, Conflict, LedgerEntry, Place
from homeport.stores.claims import Claims, HeldClaim, State, is_same_pod
from homeport.stores.deliveries import Deliveries, Trouble

_UTC_NOW = partial(datetime.now, UTC)
_REMEMBERED_MAX = 1024


class NodeStore:
    """The store `remote` as the node `node` uses it. Safe with many threads.

    `wake` is called whenever there is something to deliver; it must not wait. `on_trouble` hears of claims that cannot
    be delivered as they are, with the reason. `confirm` is asked before an allocation that is there, though the answer
    to its claim was lost, is used; it raises `TryAgainLater` for one that may not be.
    """

    def __init__(
        self,
        remote: AllocationStore,
        claims: Claims,
        *,
        node: str,
        now: Callable[[], datetime] = _UTC_NOW,
        monotonic: Callable[[], float] = time.monotonic,
        wake: Callable[[], None] = lambda: None,
        on_trouble: Trouble = lambda _claim, _reason: None,
        confirm: Callable[[Allocation], None] = lambda _allocation: None,
    ) -> None:
        self.remote = remote
        self.claims = claims
        self.wake = wake
        self._node = node
        self._now = now
        self._confirm = confirm
        self._deliveries = Deliveries(
            remote, claims, now=now, monotonic=monotonic, on_trouble=on_trouble, on_retained=self._remember
        )
        # What this node let go of last, as the other store had it then: most replicas return to where they were. It
        # may be old, which the version tells when it is bound.
        self._retained: OrderedDict[Place, Allocation] = OrderedDict()
        self._unsure: set[Slot] = set()  # of which only this node's own claims are known
        self._lock = threading.Lock()
        self._under_way: set[int] = set()  # id() of claims that a thread here awaits an answer for

    # --- reading ---

    def get(self, scope: str, address: IPAddress) -> Allocation | None:
        claim = self.claims.find(scope, address)
        if claim is None or claim.state is State.DELETING:
            return self.remote.get(scope, address)
        return claim.shown

    def of_slot(self, slot: Slot, *, likely: Sequence[Place] = ()) -> tuple[Allocation, ...]:
        """What other nodes cannot have is answered here: any other owner than a replica lives on one node only."""
        own = {c.place: c for c in map(self._settled, self._of_slot(slot)) if c is not None}
        shown = {place: claim.shown for place, claim in own.items() if _may_return(claim)}
        if not isinstance(slot.owner, Replica):
            return _sorted(shown.values())
        known = {**{place: a for place, a in self._remembered(slot) if place not in own}, **shown}
        if likely and all(place in known for place in likely):
            return _sorted(known.values())
        try:
            found = self.remote.of_slot(slot, likely=likely)
        except TryAgainLater:
            if not shown:
                raise
            self._unsure.add(slot)
            return _sorted(shown.values())
        self._unsure.discard(slot)
        others = {(a.scope, a.address): a for a in found if (a.scope, a.address) not in own}
        return _sorted([*others.values(), *shown.values()])

    def of_owner(self, owner: Owner) -> tuple[Allocation, ...]:
        return self.remote.of_owner(owner)

    def of_workload(self, workload: Workload) -> tuple[Allocation, ...]:
        return self.remote.of_workload(workload)

    def of_holder(self, container_id: str, ifname: str) -> tuple[Allocation, ...]:
        """Of this node's containers."""
        held = self.claims.having(lambda c: c.is_held and c.allocation.is_held_by(container_id, ifname))
        return tuple(c.allocation for c in held)

    def of_node(self, node: str) -> tuple[Allocation, ...]:
        if node != self._node:
            return self.remote.of_node(node)
        return tuple(c.allocation for c in self.claims.having(lambda c: c.is_held))

    def all(self, scope: str | None = None) -> Iterable[Allocation]:
        """As the other store has them."""
        return self.remote.all(scope)

    def lowest_free(
        self, scope: str, span: Span, excluding: Sequence[Span], *, count: int = 1, near: IPAddress | None = None
    ) -> tuple[IPAddress, ...]:
        """Without the places of this node's own claims: the other store may know less of those than they do."""
        for _ in range(2):
            own = [Span(c.place[1], c.place[1]) for c in self._in(scope, span)]
            found = self.remote.lowest_free(scope, span, [*excluding, *own], count=count, near=near)
            if found or not self._deliveries.deliver_deletions(scope, span):
                break
        return found

    def ledger(
        self, *, address: IPAddress | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> Iterable[LedgerEntry]:
        return self.remote.ledger(address=address, since=since, until=until)

    # --- writing ---

    def create(self, allocation: Allocation, *, cause: str) -> Allocation:
        present = self.claims.find(allocation.scope, allocation.address)
        if not self._is_here(allocation.holder):
            if present is not None and self._kept_again(present, allocation):
                return allocation
            return self.remote.create(allocation, cause=cause)
        if allocation.slot in self._unsure:
            raise Conflict  # it may have one already that this node was not told of: whoever claims asks again
        claim = HeldClaim(allocation=allocation, state=State.CLAIMING, cause=cause, at=self._now())
        self._under_way.add(id(claim))
        try:
            while not self.claims.swap(None, claim):
                present = self.claims.find(*claim.place)
                if present is not None:
                    raise AlreadyExists(present.shown)
            made = self._made(claim)
        except TryAgainLater as e:
            if isinstance(e, Unreachable):
                self.claims.swap(claim, None)
            raise
        except (AlreadyExists, CniError):
            self.claims.swap(claim, None)
            raise
        finally:
            self._under_way.discard(id(claim))
        self._deliveries.answered()
        return self._bound(claim, made)

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        """What only lets an own interface's address go, or notes something of it, is told later: then the version is
        still the one it was.
        """
        claim = self.claims.find(allocation.scope, allocation.address)
        if claim is not None and claim.is_held:
            if allocation.phase is Phase.RETAINED:
                return self._let_go(claim, allocation, State.RETAINING, cause)
            if claim.state is State.BOUND and claim.is_of(allocation):
                return self._noted(claim, allocation, cause)
        if self._is_here(allocation.holder):
            return self._take(claim, allocation, cause)
        made = self.remote.replace(allocation, cause=cause)
        self.claims.swap(claim, None)
        return made

    def delete(self, allocation: Allocation, *, cause: str) -> None:
        claim = self.claims.find(allocation.scope, allocation.address)
        if claim is None:
            self.remote.delete(allocation, cause=cause)
        else:
            self._let_go(claim, allocation, State.DELETING, cause)

    def _take(self, former: HeldClaim | None, allocation: Allocation, cause: str) -> Allocation:
        """Binds what exists elsewhere, at the version the allocation carries, to an interface of this node."""
        taking = HeldClaim(allocation=allocation, state=State.CLAIMING, cause=cause, at=self._now())
        self._under_way.add(id(taking))
        try:
            if allocation.version == 0 or not self.claims.swap(former, taking):
                raise Conflict
            return self._taken(former, taking)
        finally:
            self._under_way.discard(id(taking))

    def _taken(self, former: HeldClaim | None, taking: HeldClaim) -> Allocation:
        try:
            made = self.remote.replace(taking.allocation, cause=taking.cause)
        except Conflict:
            self._forget(taking.place)
            self.claims.swap(taking, self._refreshed(former))
            raise
        except TryAgainLater as e:
            if former is not None and _may_rebind(former, taking.allocation):
                self.claims.swap(taking, msgspec.structs.replace(taking, state=State.BOUND, undelivered=True))
                self.wake()
                return taking.allocation
            if isinstance(e, Unreachable):
                self.claims.swap(taking, former)
            raise
        except CniError:
            self.claims.swap(taking, former)
            raise
        self._deliveries.answered()
        return self._bound(taking, made)

    def _bound(self, claim: HeldClaim, made: Allocation) -> Allocation:
        self.claims.swap(claim, msgspec.structs.replace(claim, allocation=made, state=State.BOUND))
        return made

    def _made(self, claim: HeldClaim) -> Allocation:
        try:
            return self.remote.create(claim.allocation, cause=claim.cause)
        except AlreadyExists as e:
            # An earlier request for it that was given up, and has been carried out since (docs/protocol.md P3).
            if claim.is_of(e.present) and e.present.slot == claim.allocation.slot:
                return e.present
            raise

    def _let_go(self, claim: HeldClaim, allocation: Allocation, state: State, cause: str) -> Allocation:
        at = allocation.since if state is State.RETAINING else self._now()
        left = msgspec.structs.replace(claim, state=state, cause=cause, at=at, undelivered=False)
        is_another = claim.allocation.version != allocation.version or self._is_under_way(claim)
        if is_another or not self.claims.swap(claim, left):
            raise Conflict
        self.wake()
        return allocation

    def _noted(self, claim: HeldClaim, allocation: Allocation, cause: str) -> Allocation:
        noted = msgspec.structs.replace(claim, allocation=allocation, cause=cause, at=self._now(), undelivered=True)
        if claim.allocation.version != allocation.version or not self.claims.swap(claim, noted):
            raise Conflict
        self.wake()
        return allocation

    def _kept_again(self, claim: HeldClaim, allocation: Allocation) -> bool:
        """Takes back a deletion that was not told yet."""
        if claim.state is not State.DELETING or claim.attempted or claim.allocation.slot != allocation.slot:
            return False
        return self.claims.swap(claim, msgspec.structs.replace(claim, state=State.RETAINING))

    # --- what was let go and is told ---

    def _remember(self, retained: Allocation) -> None:
        place = retained.scope, retained.address
        with self._lock:
            self._retained[place] = retained
            self._retained.move_to_end(place)
            if len(self._retained) > _REMEMBERED_MAX:
                self._retained.popitem(last=False)

    def _forget(self, place: Place) -> None:
        with self._lock:
            self._retained.pop(place, None)

    def _remembered(self, slot: Slot) -> Sequence[tuple[Place, Allocation]]:
        with self._lock:
            return [(place, a) for place, a in self._retained.items() if a.slot == slot]

    # --- what was asked and not answered ---

    def _of_slot(self, slot: Slot) -> Sequence[HeldClaim]:
        return self.claims.having(lambda claim: claim.allocation.slot == slot)

    def _in(self, scope: str, span: Span) -> Sequence[HeldClaim]:
        return self.claims.having(lambda claim: claim.allocation.scope == scope and claim.allocation.address in span)

    def _settled(self, claim: HeldClaim) -> HeldClaim | None:
        """The claim with what became of its unanswered request; None when nothing did, and the slot asks anew.

        If it is carried out after all, the slot finds it by name, and the node's reconciliation whatever else it is.
        """
        is_open = claim.state is State.CLAIMING or claim.allocation.version == 0
        if not is_open or self._is_under_way(claim):
            return claim
        settled = self._looked_up(claim)
        return settled if self.claims.swap(claim, settled) else self.claims.find(*claim.place)

    def _looked_up(self, claim: HeldClaim) -> HeldClaim | None:
        """The claim at the version there is; None when its holder has nothing there."""
        present = self.remote.get(*claim.place)
        if present is None or not claim.is_of(present):
            return None
        if claim.state is State.CLAIMING:
            self._confirm(present)
        state = State.BOUND if claim.state is State.CLAIMING else claim.state
        allocation = msgspec.structs.replace(claim.allocation, version=present.version)
        return msgspec.structs.replace(claim, allocation=allocation, state=state)

    def _refreshed(self, claim: HeldClaim | None) -> HeldClaim | None:
        """A claim whose version turned out to be old, so that it is not tried at that one again."""
        try:
            return None if claim is None else self._looked_up(claim)
        except CniError:
            return claim

    # --- delivering ---

    def pending(self) -> int:
        """How many claims the other store is still to be told of."""
        return self._deliveries.pending()

    def deliver(self) -> int:
        """Tells the other store what it has not been told; how much is left. Ends early while it does not answer, and
        pauses longer and longer then. To be called again and again, and when woken.
        """
        return self._deliveries.deliver()

    # --- what the node's reconciliation finds (docs/protocol.md P3, P20) ---

    def restore(self, claim: HeldClaim, *, over: int, cause: str) -> bool:
        """Tells the other store of a bound claim again: over its version `over`, or anew where it has nothing, for 0.

        False when the claim is another by now: what was found there may be of its own doing.
        """
        allocation = msgspec.structs.replace(claim.allocation, version=over or claim.allocation.version)
        again = msgspec.structs.replace(claim, allocation=allocation, cause=cause, at=self._now(), undelivered=True)
        if claim.state is not State.BOUND or not self.claims.swap(claim, again):
            return False
        self.wake()
        return True

    def let_go(self, claim: HeldClaim, *, cause: str) -> bool:
        """Of a holder that is proven gone. False when the claim is another by now."""
        at = self._now()
        state = State.DELETING if released(claim.allocation, at=at) is None else State.RETAINING
        left = msgspec.structs.replace(claim, state=state, cause=cause, at=at, undelivered=False)
        if not claim.is_held or self._is_under_way(claim) or not self.claims.swap(claim, left):
            return False
        self.wake()
        return True

    def _is_under_way(self, claim: HeldClaim) -> bool:
        """Whether a thread awaits an answer for it. Then it has its predecessor's version yet, whose late DEL must not
        take it (docs/identity.md R7).
        """
        return id(claim) in self._under_way

    def _is_here(self, holder: Holder | None) -> bool:
        return holder is not None and holder.node == self._node


def _may_return(claim: HeldClaim) -> bool:
    """Whether the slot may have it back: what may be deleted by now is anybody's."""
    if claim.state is not State.DELETING:
        return True
    return not claim.attempted and not isinstance(claim.allocation.slot.owner, Replica)


def _may_rebind(former: HeldClaim, allocation: Allocation) -> bool:
    """Whether another sandbox of the same pod may have it before the other store knows (E20).

    Not once its release may be known there: then it is anybody's, or the replica's next pod takes it on another node
    without looking for a holder (docs/protocol.md P9, P10).
    """
    return is_same_pod(former.allocation.holder, allocation.holder) and not former.attempted


def _sorted(allocations: Iterable[Allocation]) -> tuple[Allocation, ...]:
    return tuple(sorted(allocations, key=lambda a: (a.scope, a.address.version, int(a.address))))
