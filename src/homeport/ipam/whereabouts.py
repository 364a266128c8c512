"""Whereabouts' own records as values: the names, keys and entries of its custom resources. No I/O.

Whereabouts v0.9, group `whereabouts.cni.cncf.io/v1alpha1`. An IPPool is found by its name alone, and its entries are
keyed by how far an address is from the one written in `spec.range`. An OverlappingRangeIPReservation is named as the
address. A NodeSlicePool says which slice of a range each node has a pool of its own for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeport.cni import documents
from homeport.ipam.ranges import Span, parse_interface
from homeport.model.addresses import IPAddress, IPInterface, IPNetwork
from homeport.model.errors import DecodeFailure, InvalidNetConf

KEY_LIMIT = 1 << 63
"""Keys are read as int64: an address further than this from the start of its pool cannot be written into it."""

MARK = "homeport:"
"""What the `id` of every entry and the container ID of every reservation of ours begins with."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,30}")
_SUBNET_SIGN = "#"  # a scope is NETWORK_NAME, or NETWORK_NAME#SUBNET where ranges may overlap


class PoolEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who has an address. `podref` is NAMESPACE/NAME; `raw` is the entry as it stands, of whatever shape."""

    id: str = ""
    podref: str = ""
    ifname: str = ""
    raw: Any = None


class ForeignPool(msgspec.Struct, frozen=True, kw_only=True):
    """An IPPool. `base` is the address its keys count from, with the range's prefix.

    `unreadable` are keys that are no number: Whereabouts passes over them, and drops them with its next write.
    """

    name: str
    version: str
    base: IPInterface
    entries: Mapping[IPAddress, PoolEntry] = {}
    unreadable: tuple[str, ...] = ()

    @property
    def subnet(self) -> IPNetwork:
        return self.base.network

    @property
    def prefix(self) -> str:
        """What stands before the range in the name: a network_name, a node's name, both joined by "-", or nothing."""
        return self.name.removesuffix(range_name(self.subnet)).removesuffix("-")

    def key(self, address: IPAddress) -> str | None:
        """What the address is written under; None when it cannot be written."""
        offset = int(address) - int(self.base.ip)
        return str(offset) if address in self.subnet and 0 <= offset < KEY_LIMIT else None

    def unwritable(self) -> Span | None:
        """The addresses of the subnet that have no key, of IPv6 the upper half of a /64 and the most of a wider one."""
        first, last = int(self.base.ip) + KEY_LIMIT, self.subnet.broadcast_address
        return Span(type(last)(first), last) if first <= int(last) else None


class NodeSlice(msgspec.Struct, frozen=True):
    """A node's part of a range: of the network_name, or of the network, that `network` is the name of."""

    network: str
    node: str
    subnet: IPNetwork


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """An OverlappingRangeIPReservation. `id` is the container's, which Whereabouts leaves empty."""

    name: str
    version: str
    podref: str = ""
    ifname: str = ""
    id: str = ""


class _PoolSpec(msgspec.Struct, frozen=True):
    range: str = ""
    allocations: dict[str, Any] = {}


class _Pool(msgspec.Struct, frozen=True):
    spec: _PoolSpec = _PoolSpec()


class _ReservationSpec(msgspec.Struct, frozen=True):
    podref: str = ""
    ifname: str = ""
    containerid: str = ""


class _Reservation(msgspec.Struct, frozen=True):
    spec: _ReservationSpec = _ReservationSpec()


class _Slice(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    slice_range: str = ""


class _SliceStatus(msgspec.Struct, frozen=True):
    allocations: tuple[_Slice, ...] = ()


class _SlicePool(msgspec.Struct, frozen=True):
    status: _SliceStatus = _SliceStatus()


def is_ours(entry: PoolEntry | Reservation) -> bool:
    """Whether Homeport wrote it."""
    return entry.id.startswith(MARK)


def range_name(subnet: IPNetwork) -> str:
    """A range as it stands in a pool's name: `10.9.0.72-29`, `fd00-70---64`."""
    return str(subnet).replace(":", "-").replace("/", "-")


def pool_name(network_name: str, subnet: IPNetwork, *, node: str = "") -> str:
    """`[NETWORK_NAME-][NODE-]RANGE`; a node's pool is of its slice."""
    return "-".join(part for part in (network_name, node, range_name(subnet)) if part)


def reservation_name(network_name: str, address: IPAddress) -> str:
    """`[NETWORK_NAME-]ADDRESS`, the colons of IPv6 as "-", a "0" after one at the end."""
    text = str(address).replace(":", "-")
    return "-".join(part for part in (network_name, text + "0" if text.endswith("-") else text) if part)


def split_scope(scope: str) -> tuple[str, IPNetwork | None]:
    """(network_name, the subnet that addresses are unique in, or None where they are in all of the network_name)."""
    network_name, sign, subnet = scope.partition(_SUBNET_SIGN)
    return network_name, parse_interface(subnet, "scope").network if sign else None


def decode_pool(name: str, version: str, body: bytes) -> ForeignPool:
    """Raises `DecodeFailure` for a pool whose range cannot be read, or is not the one of its name."""
    what = f'IPPool "{name}"'
    whole = documents.decode_object(body, what)
    spec = documents.convert(whole, _Pool, at=what, error=DecodeFailure).spec
    written = (whole.get("spec") or {}).get("allocations") or {}  # with entries that are null, which count too
    try:
        base = parse_interface(spec.range, "spec.range")
    except InvalidNetConf as e:
        raise DecodeFailure(f"decode {what}: {e.msg}") from e
    if not f"-{name}".endswith(f"-{range_name(base.network)}"):
        raise DecodeFailure(f'decode {what}: found range "{spec.range}", expected the one of its name')
    entries: dict[IPAddress, PoolEntry] = {}
    unreadable = []
    for key, raw in written.items():
        address = _address(base, key)
        if address is None:
            unreadable.append(key)
        else:
            entries.setdefault(address, _entry(raw))
    return ForeignPool(name=name, version=version, base=base, entries=entries, unreadable=tuple(unreadable))


def decode_reservation(name: str, version: str, body: bytes) -> Reservation:
    """Raises `DecodeFailure`."""
    what = f'OverlappingRangeIPReservation "{name}"'
    spec = documents.convert(documents.decode_object(body, what), _Reservation, at=what, error=DecodeFailure).spec
    return Reservation(name=name, version=version, podref=spec.podref, ifname=spec.ifname, id=spec.containerid)


def decode_slices(name: str, body: bytes) -> tuple[NodeSlice, ...]:
    """The slices of a NodeSlicePool that nodes have. Raises `DecodeFailure`."""
    what = f'NodeSlicePool "{name}"'
    status = documents.convert(documents.decode_object(body, what), _SlicePool, at=what, error=DecodeFailure).status
    try:
        return tuple(
            NodeSlice(name, s.node_name, parse_interface(s.slice_range, f"status.allocations[{n}].sliceRange").network)
            for n, s in enumerate(status.allocations)
            if s.node_name
        )
    except InvalidNetConf as e:
        raise DecodeFailure(f"decode {what}: {e.msg}") from e


def is_of_network(pool: ForeignPool, network_name: str, slices: Sequence[NodeSlice]) -> bool:
    """Whether a pool's addresses are those of the network_name: the pool of one of its ranges, or of a node's slice."""
    if pool.prefix == network_name:
        return True
    return any(
        pool.name == pool_name(network_name, s.subnet, node=s.node) and (not network_name or s.network == network_name)
        for s in slices
    )


def _address(base: IPInterface, key: str) -> IPAddress | None:
    """What a key stands for as Go reads it, a sign and leading zeros allowed."""
    if not _NUMBER.fullmatch(key) or not 0 <= int(key) < KEY_LIMIT:
        return None
    number = int(base.ip) + int(key)
    return type(base.ip)(number) if number < 1 << base.max_prefixlen else None


def _entry(raw: Any) -> PoolEntry:
    told = raw if isinstance(raw, Mapping) else {}
    said = {key: value for key in ("id", "podref", "ifname") if isinstance(value := told.get(key), str)}
    return PoolEntry(**said, raw=raw)
