"""What a slot wants of each range of a pool, and which of its allocations already stand for it. No I/O.

docs/identity.md R2-R5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.deciding import Want
from homeport.ipam.identities import Holder, Replica, Slot
from homeport.ipam.objects import WorkloadState
from homeport.ipam.policies import AddressMap, Policy, map_for, retention_for
from homeport.ipam.pools import Pool
from homeport.ipam.ranges import Span, match_ranges, merge_spans
from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf

_STRENGTH = {Phase.BOUND: 0, Phase.QUARANTINED: 1, Phase.RETAINED: 2, Phase.RESERVED: 3}


def wants_of(
    pool: Pool,
    slot: Slot,
    holder: Holder,
    *,
    state: WorkloadState | None = None,
    annotations: Mapping[str, str] | None = None,
    workload_uid: str = "",
    avoid: Iterable[IPAddress] = (),
) -> tuple[Want, ...]:
    """One want a range, in the pool's order.

    `state` is the workload of a replica, None once it is deleted; `annotations` then are the pod's. `avoid` are
    addresses the slot has already from elsewhere. Raises `InvalidNetConf` when a map has no entry for the replica (R3).
    """
    if pool.policy is None or not isinstance(slot.owner, Replica):
        withheld = _withheld(pool.policy, avoid)
        return tuple(
            Want(slot=slot, holder=holder, scope=r.scope, range=r.range, withheld=withheld) for r in pool.ranges
        )
    replica, policy = slot.owner, pool.policy
    notes = state.annotations if state is not None else annotations or {}
    start = state.ordinals_start if state is not None else 0
    address_map = map_for(
        policy, replica.workload, notes, network=slot.network, ifname=slot.ifname, ranges=pool.plain_ranges
    )
    mapped = _mapped(pool, address_map, replica.ordinal, start, state.replicas if state is not None else 0)
    withheld = _withheld(policy, avoid, address_map)
    retention = retention_for(policy, replica.workload, notes)
    return tuple(
        Want(
            slot=slot,
            holder=holder,
            scope=r.scope,
            range=r.range,
            mapped=address,
            preferred=r.range.nth(replica.ordinal - start) if policy.order == "ordinal" else None,
            withheld=withheld,
            retention=retention,
            workload_uid=workload_uid,
            adopt_uid=workload_uid if retention.adopt == "Never" else None,
        )
        for r, address in zip(pool.ranges, mapped, strict=True)
    )


def mapped_to(wants: Sequence[Want], addresses: Sequence[IPAddress], *, source: str) -> tuple[Want, ...]:
    """The wants with those addresses, in whatever order they are given; a range without one is served as before.

    Raises `InvalidNetConf` for an address that no range hands out, or that a map keeps for somebody else; `source`
    names who asks for them.
    """
    matched = match_ranges([w.range for w in wants], addresses)
    for n, address in enumerate(addresses):
        if n not in matched or not any(address in w.range for w in wants):
            found = " and ".join(str(w.range.span) for w in wants) or "no range at all"
            raise InvalidNetConf(f"{source}: found {address}, expected an address that is handed out, of {found}")
        kept = (w for w, index in zip(wants, matched, strict=True) if index == n and w.mapped != address)
        if any(address in span for w in kept for span in w.withheld):
            raise InvalidNetConf(f"{source}: found {address}, which a map keeps for another, or the pod has already")
    return tuple(
        want if index is None else msgspec.structs.replace(want, mapped=addresses[index])
        for want, index in zip(wants, matched, strict=True)
    )


def match_allocations(pool: Pool, allocations: Sequence[Allocation]) -> tuple[Allocation | None, ...]:
    """For each range of the pool the allocation that stands for it. What is in use goes before what is only kept."""
    matched: list[Allocation | None] = [None] * len(pool.ranges)
    for scope in dict.fromkeys(r.scope for r in pool.ranges):
        places = [n for n, r in enumerate(pool.ranges) if r.scope == scope]
        held = sorted(
            (a for a in allocations if a.scope == scope),
            key=lambda a: (_STRENGTH[a.phase], a.address.version, int(a.address)),
        )
        indexes = match_ranges([pool.ranges[n].range for n in places], [a.address for a in held])
        for place, index in zip(places, indexes, strict=True):
            matched[place] = None if index is None else held[index]
    return tuple(matched)


def _mapped(
    pool: Pool, address_map: AddressMap | None, ordinal: int, start: int, replicas: int
) -> tuple[IPAddress | None, ...]:
    """The address the map gives the replica in each range."""
    if address_map is None:
        return (None,) * len(pool.ranges)
    entry = address_map.entry(ordinal, start=start, replicas=replicas)
    return tuple(None if n is None else entry[n] for n in match_ranges(pool.plain_ranges, entry))


def _withheld(policy: Policy | None, avoid: Iterable[IPAddress], extra: AddressMap | None = None) -> tuple[Span, ...]:
    """All that maps give to anybody (R5, E15), as only the one it is mapped to may ask for it; and what to avoid."""
    maps = [*policy.maps.values()] if policy is not None else []
    if extra is not None:
        maps.append(extra)
    mapped = (span for map_ in maps for span in map_.spans)
    return merge_spans([*mapped, *(Span(address, address) for address in avoid)])
