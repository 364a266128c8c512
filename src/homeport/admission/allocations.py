"""IPAllocations that a person writes: what would contradict the rules of identity, or break an address in use. No I/O.

Only Homeport's own programs bind an address, as only a node knows who uses it (docs/identity.md R1, R7, R8). People
release, keep and look. Whoever writes as these programs do is merely warned, even by another account than theirs: a
daemon must not fail over a role's name.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from homeport.admission.reviews import Request, User
from homeport.admission.writers import GROUPS, accounts
from homeport.ipam.allocations import Allocation, Phase
from homeport.model.errors import DecodeFailure
from homeport.stores.kubernetes import names, wire
from homeport.stores.kubernetes.resources import IPALLOCATIONS
from homeport.stores.kubernetes.wire import Record

# What a person may make of a phase; the rest is for those who know the holder.
_BY_HAND: dict[Phase, frozenset[Phase]] = {
    Phase.RESERVED: frozenset({Phase.RESERVED, Phase.RETAINED, Phase.QUARANTINED}),
    Phase.BOUND: frozenset({Phase.BOUND, Phase.RETAINED}),
    Phase.RETAINED: frozenset({Phase.RETAINED, Phase.QUARANTINED}),
    Phase.QUARANTINED: frozenset({Phase.QUARANTINED, Phase.RETAINED}),
}


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """Something to refuse, or to warn of."""

    rule: str
    found: str
    right: str
    path: str = ""
    denies: bool = True


class _Metadata(msgspec.Struct):
    name: str = ""


class _Object(msgspec.Struct):
    metadata: _Metadata
    spec: wire.WireSpec
    status: wire.WireStatus


_objects = msgspec.json.Decoder(_Object)


def is_own_writer(user: User, namespace: str) -> bool:
    """Whether it is a daemon or a controller, as deploy/rbac.yaml names them; `namespace` is that of its accounts."""
    return user.username in accounts(namespace) or any(group in GROUPS for group in user.groups)


def remarks_on(request: Request) -> Iterator[Remark]:
    """About a request of somebody who is none of Homeport's own programs."""
    before = _decoded(request.old, request.name)
    if request.operation == "DELETE":
        if isinstance(before, Record) and before.allocation.phase is Phase.BOUND:
            yield _in_use(before.allocation, "its node puts it back")
        return
    after = _decoded(request.new, request.name)
    if isinstance(after, str):
        if not isinstance(before, str):  # one that could not be read before either is no worse
            yield Remark(rule="allocation-content", found=after, right="nothing could be concluded from it (R12)")
    elif isinstance(before, Record) and after is not None:
        # Every write of Homeport's has a name of its own; an editor leaves the one that it finds.
        by_hand = after.write in ("", before.write)
        for remark in _changes(before.allocation, after.allocation):
            yield remark if by_hand else msgspec.structs.replace(remark, denies=False)


def _changes(before: Allocation, after: Allocation) -> Iterator[Remark]:
    if after.slot != before.slot:
        yield Remark(
            rule="allocation-owner",
            found=f"{after.address} goes from {before.slot} to {after.slot}",
            right="expected the same owner: release it, then it is anybody's (homeport release, homeport reserve)",
            path="spec",
        )
    if after.phase not in _BY_HAND[before.phase]:
        yield Remark(
            rule="allocation-phase",
            found=f"{after.address} goes from {before.phase.value} to {after.phase.value}",
            right="only a node or the controller can know that",
            path="status.phase",
        )
    elif after.phase is Phase.BOUND and after.holder != before.holder:
        yield Remark(
            rule="allocation-holder",
            found=f"another holder of {after.address}",
            right="only the node of a holder can know that (R8)",
            path="status.holder",
        )
    elif before.phase is Phase.BOUND and after.phase is not Phase.BOUND:
        yield _in_use(before, "if that still runs, two may come to have the address")


def _in_use(allocation: Allocation, then: str) -> Remark:
    holder = allocation.holder
    whose = f"{allocation.slot.owner} on node {holder.node or 'unknown'}" if holder is not None else "somebody"
    return Remark(
        rule="allocation-in-use",
        found=f"{allocation.address} is in use by {whose}; {then}",
        right="use homeport release",
        denies=False,
    )


def _decoded(raw: msgspec.Raw | None, name: str) -> Record | str | None:
    """What is stored; why it cannot be read; or None where there is no object."""
    if raw is None:
        return None
    try:
        found = _objects.decode(raw)
        what = f"{IPALLOCATIONS.plural} {found.metadata.name or name}"
        record = wire.record_of(found.spec, found.status, version="0", what=what)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        return f"decode {IPALLOCATIONS.plural} {name}: {e}"
    except DecodeFailure as e:
        return str(e)
    allocation = record.allocation
    expected = names.allocation_name(allocation.scope, allocation.address)
    if found.metadata.name not in ("", expected):
        return f'{what}: found address {allocation.address} in scope "{allocation.scope}", whose name is "{expected}"'
    return record
