"""Which address a slot gets in one range: the decision, from facts. No I/O.

docs/identity.md R2-R5 and R7. `decide` is asked again and again with more facts until it needs none; the caller
gathers what it asks for and does what it says. Nothing decided here is safe until the store has agreed (R1).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from homeport.ipam.allocations import Allocation, Phase, Retention
from homeport.ipam.identities import Holder, Slot
from homeport.ipam.moving import Move, Wait
from homeport.ipam.ranges import Range, Span
from homeport.model.addresses import IPAddress


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """One range's address for one slot.

    `mapped` is the one address it may be (R3); `preferred` the one it is first looked for at (R4). `withheld` are
    addresses of the range kept for others beside those the range itself withholds (R5). `adopt_uid`, where given, is
    the workload object whose allocations alone are inherited (`adopt: Never`).
    """

    slot: Slot
    holder: Holder
    scope: str
    range: Range
    mapped: IPAddress | None = None
    preferred: IPAddress | None = None
    withheld: tuple[Span, ...] = ()
    retention: Retention = Retention()
    workload_uid: str = ""
    adopt_uid: str | None = None

    def bound(self, previous: Allocation | None, address: IPAddress, at: datetime) -> Allocation:
        """The allocation of `address` with this want's holder; `previous` gives its version and, if ours, its MAC."""
        ours = previous is not None and previous.slot == self.slot
        return Allocation(
            scope=self.scope,
            address=address,
            slot=self.slot,
            phase=Phase.BOUND,
            holder=self.holder,
            mac=previous.mac if previous is not None and ours else None,
            since=at,
            retention=self.retention,
            workload_uid=self.workload_uid,
            version=previous.version if previous is not None else 0,
        )


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known so far.

    `held` is the slot's own allocation for this range, as matched by the caller. `present` are allocations found at
    addresses that were looked at. `free` are candidates from the store, None before it was asked; they may be out of
    date. `move` is the outcome of R8 for the holder of `held`, or of looking for a stranger there where it is
    quarantined; None before it was looked into.
    """

    held: Allocation | None = None
    present: Mapping[IPAddress, Allocation] = {}
    free: tuple[IPAddress, ...] | None = None
    move: Move | Wait | None = None


class AlreadyHeld(msgspec.Struct, frozen=True):
    """This very interface holds it: nothing to do (R7)."""

    allocation: Allocation


class Create(msgspec.Struct, frozen=True):
    """Create it."""

    address: IPAddress
    cause: str


class Take(msgspec.Struct, frozen=True):
    """Bind an allocation that exists, at the version seen."""

    previous: Allocation
    cause: str


class Examine(msgspec.Struct, frozen=True):
    """Find out whether the holder of `allocation` is proven gone (R8), or nobody uses a quarantined one, then ask
    again.
    """

    allocation: Allocation


class Search(msgspec.Struct, frozen=True):
    """Ask the store for candidates, then ask again."""


class Taken(msgspec.Struct, frozen=True):
    """The one address the slot must have is somebody else's (R3)."""

    by: Allocation


class Exhausted(msgspec.Struct, frozen=True):
    """No address of the range is free."""


Decision = AlreadyHeld | Create | Take | Examine | Search | Wait | Taken | Exhausted


def decide(want: Want, facts: Facts) -> Decision:
    """The next step towards the slot's address in this range."""
    held = facts.held if facts.held is not None and _is_adopted(want, facts.held) else None
    if want.mapped is not None and (held is None or held.address != want.mapped):
        return _decide_mapped(want, want.mapped, facts)
    if held is not None:
        return _take(want, held, facts)
    if want.preferred is not None and not _is_kept_from(want, want.preferred):
        present = facts.present.get(want.preferred)
        if present is None:
            return Create(want.preferred, "allocated")
        if present.slot == want.slot:
            return _take(want, present, facts)
    if facts.free is None:
        return Search()
    for address in facts.free:
        if address not in facts.present:
            return Create(address, "allocated")
    return Search() if facts.free else Exhausted()


def _decide_mapped(want: Want, mapped: IPAddress, facts: Facts) -> Decision:
    present = facts.present.get(mapped)
    if present is None:
        return Create(mapped, "allocated as mapped")
    if present.slot == want.slot:
        return _take(want, present, facts)
    # A map speaks for its whole workload: what it gives to one replica, another that is not using it cannot keep.
    if present.slot.workload == want.slot.workload and present.phase in (Phase.RESERVED, Phase.RETAINED):
        return Take(present, f"the map gives it to {want.slot.owner} instead of {present.slot.owner}")
    return Taken(present)


def _take(want: Want, held: Allocation, facts: Facts) -> Decision:
    """The slot's own allocation, whatever its phase (R2)."""
    if held.phase is Phase.RESERVED:
        return Take(held, "allocated as reserved")
    if held.phase is Phase.RETAINED:
        return Take(held, "returned")
    # Bound, or quarantined: that one has no holder, but a stranger may use it.
    if held.is_held_by(want.holder.container_id, want.holder.ifname):
        return AlreadyHeld(held)
    match facts.move:
        case None:
            return Examine(held)
        case Move(proof=proof):
            return Take(held, f"moved: {proof}" if held.phase is Phase.BOUND else f"returned: {proof}")
        case wait:
            return wait


def _is_adopted(want: Want, held: Allocation) -> bool:
    """Whether the allocation is this workload's own and not that of a namesake it must not inherit from (R11)."""
    if want.adopt_uid is None or held.phase is Phase.BOUND:
        return True
    return held.workload_uid in ("", want.adopt_uid)


def _is_kept_from(want: Want, address: IPAddress) -> bool:
    return any(address in span for span in want.withheld)
