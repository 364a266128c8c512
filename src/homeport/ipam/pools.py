"""A network's addresses: its ranges, the scopes they are unique in, and its policy. No I/O.

The keys are those of Whereabouts' ipam section, and `sticky`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import documents
from homeport.ipam.allocations import Allocation
from homeport.ipam.policies import Policy, parse_policy
from homeport.ipam.ranges import Range, RangeKeys, parse_address, parse_range
from homeport.ipam.slices import parse_slice_size
from homeport.model.addresses import IPAddress


class PoolRange(msgspec.Struct, frozen=True):
    """A range and the scope its addresses are unique in."""

    scope: str
    range: Range


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """What one network hands out: one address of each range to every interface, in this order.

    `network` is the CNI network's name. `policy` is None when nothing here belongs to a replica.
    `slice_prefix` is the prefix length of the part of each range that a node prefers, None without such a preference.
    """

    network: str
    ranges: tuple[PoolRange, ...]
    gateway: IPAddress | None = None
    policy: Policy | None = Policy()
    slice_prefix: int | None = None

    @property
    def plain_ranges(self) -> tuple[Range, ...]:
        return tuple(r.range for r in self.ranges)


class KnownPools:
    """The pools that there are, found by the allocations made from them.

    Networks of several namespaces may have one name and pools of their own; an allocation has only that name.
    """

    def __init__(self, pools: Iterable[Pool] = ()) -> None:
        self._by_network: dict[str, list[Pool]] = {}
        for pool in pools:
            known = self._by_network.setdefault(pool.network, [])
            if pool not in known:
                known.append(pool)

    def of(self, allocation: Allocation) -> Pool | None:
        """None where none is known, and where several might be meant: then nobody can say whose rules hold for it."""
        known = self._by_network.get(allocation.slot.network, ())
        if len(known) > 1:
            known = [pool for pool in known if any(_may_be_from(allocation, pooled) for pooled in pool.ranges)]
        return known[0] if len(known) == 1 else None


def _may_be_from(allocation: Allocation, pooled: PoolRange) -> bool:
    return allocation.scope == pooled.scope and allocation.address in pooled.range.span


class _PoolKeys(RangeKeys, frozen=True):
    ip_ranges: tuple[RangeKeys, ...] = msgspec.field(default=(), name="ipRanges")
    gateway: str = ""
    network_name: str = ""
    enable_overlapping_ranges: bool = True
    node_slice_size: str = ""
    sticky: Any = None


def parse_pool(ipam: Mapping[str, Any], *, network: str) -> Pool:
    """The pool of an ipam section; one without any range has none. Raises `InvalidNetConf` naming the key."""
    keys = documents.convert(ipam, _PoolKeys, at="ipam")
    gateway = parse_address(keys.gateway, "ipam.gateway") if keys.gateway else None
    ranges = _parse_ranges(keys, gateway)
    return Pool(
        network=network,
        ranges=tuple(PoolRange(_scope(keys, r), r) for r in ranges),
        gateway=gateway,
        policy=parse_policy(keys.sticky, ranges),
        slice_prefix=parse_slice_size(keys.node_slice_size, "ipam.node_slice_size"),
    )


def _parse_ranges(keys: _PoolKeys, gateway: IPAddress | None) -> Sequence[Range]:
    """The top-level range first, then those of ipRanges."""
    ranges = [parse_range(keys, at="ipam", gateway=gateway)] if keys.range else []
    for n, item in enumerate(keys.ip_ranges):
        ranges.append(parse_range(item, at=f"ipam.ipRanges[{n}]", gateway=gateway))
    return ranges


def _scope(keys: _PoolKeys, range_: Range) -> str:
    """An address is unique in its network_name, or, where overlapping ranges are not looked at, in its subnet alone."""
    return keys.network_name if keys.enable_overlapping_ranges else f"{keys.network_name}#{range_.subnet}"
