"""What a node holds, against what the store says of it: who is right? The decision, from facts. No I/O.

docs/identity.md R12 and E26: an interface that is up holds its address, whatever a store says that was tampered with,
or restored from a backup. What contradicts it is put right, or reported where it would take an address from another
holder, and is never freed.
"""

from __future__ import annotations

import msgspec

from homeport.ipam.allocations import Allocation


class Agreed(msgspec.Struct, frozen=True):
    """Both say the same. The store's version of it is the one to go on with."""

    present: Allocation


class Restore(msgspec.Struct, frozen=True):
    """The store is to be told of the holder: over the version `over`, or anew where it is 0. `why` is what it said."""

    over: int
    why: str


class Contested(msgspec.Struct, frozen=True):
    """The store says that somebody else holds it."""

    by: Allocation


def decide_held(mine: Allocation, present: Allocation | None) -> Agreed | Restore | Contested:
    """`mine` is what an interface of this node holds, `present` what the store has at its place, None for nothing."""
    if present is None:
        return Restore(0, "was deleted")
    if present.holder is None:
        whose = "" if present.slot == mine.slot else f" for {present.slot.owner}"
        return Restore(present.version, f"was {present.phase.value}{whose}")
    if present.slot != mine.slot or mine.holder is None:
        return Contested(present)
    if present.is_held_by(mine.holder.container_id, mine.holder.ifname):
        return Agreed(present)
    if mine.holder.pod_uid and present.holder.pod_uid == mine.holder.pod_uid:
        return Restore(present.version, "named an earlier container of its pod")
    return Contested(present)
