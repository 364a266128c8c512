"""host-local's ranges: parsed and made whole once, and walked in turn. No I/O.

A range set is a list of ranges that together give one address. Rules and defaults are the reference plugin's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network

import msgspec

from homeport.model.addresses import IPAddress, IPNetwork
from homeport.model.errors import InvalidNetConf


class WireRange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A range as the configuration writes it."""

    subnet: str = ""
    range_start: str = ""
    range_end: str = ""
    gateway: str = ""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses `start`..`end`, both inclusive, inside `subnet`; the gateway is never given out."""

    subnet: IPNetwork
    start: IPAddress
    end: IPAddress
    gateway: IPAddress

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self.subnet.version and int(self.start) <= int(address) <= int(self.end)

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"


RangeSet = tuple[Range, ...]


def parse(wire: WireRange, key: str) -> Range:
    """`key` is where the range stands. Raises `InvalidNetConf` naming the key below it."""
    subnet = _subnet(wire.subnet, f"{key}.subnet")
    last = int(subnet.broadcast_address) - (1 if subnet.version == 4 else 0)
    make = type(subnet.network_address)
    first = make(int(subnet.network_address) + 1)
    start = _inside(wire.range_start, subnet, f"{key}.rangeStart") if wire.range_start else first
    end = _inside(wire.range_end, subnet, f"{key}.rangeEnd") if wire.range_end else make(last)
    if int(end) < int(start):
        raise InvalidNetConf(f'key "{key}.rangeEnd": found {end}, expected {start} or later')
    gateway = _inside(wire.gateway, subnet, f"{key}.gateway") if wire.gateway else first
    return Range(subnet=subnet, start=start, end=end, gateway=gateway)


def as_set(ranges: Iterable[Range], key: str) -> RangeSet:
    """Raises `InvalidNetConf` naming the key unless they are of one family, do not overlap, and are not none."""
    made = tuple(ranges)
    if not made:
        raise InvalidNetConf(f'key "{key}": found no range, expected one or more')
    for position, later in enumerate(made):
        for earlier in made[:position]:
            if earlier.subnet.version != later.subnet.version:
                raise InvalidNetConf(f'key "{key}": found {earlier} and {later}, expected ranges of one family')
            require_apart([earlier], [later], key)
    return made


def require_apart(one: Sequence[Range], other: Sequence[Range], key: str) -> None:
    """No address is in both."""
    for mine in one:
        for theirs in other:
            if mine.start in theirs or theirs.start in mine:
                raise InvalidNetConf(f'key "{key}": found {mine} and {theirs}, expected ranges that do not overlap')


def find(ranges: RangeSet, address: IPAddress) -> Range | None:
    """The range the address is in."""
    return next((r for r in ranges if address in r), None)


def in_turn(ranges: RangeSet, last: IPAddress | None) -> Iterator[tuple[IPAddress, Range]]:
    """Every address of the set once, from the one after `last` round to `last` itself; lazily, gateways left out.

    So a container that restarts gets another address until the others had their turn. `last` outside the set, or
    None, starts at the first address.
    """
    at = next((n for n, r in enumerate(ranges) if last is not None and last in r), None)
    if at is None or last is None:
        yield from (pair for r in ranges for pair in _walk(r, int(r.start), int(r.end)))
        return
    first = ranges[at]
    yield from _walk(first, int(last) + 1, int(first.end))
    for r in (*ranges[at + 1 :], *ranges[:at]):
        yield from _walk(r, int(r.start), int(r.end))
    yield from _walk(first, int(first.start), int(last))


def _walk(r: Range, start: int, end: int) -> Iterator[tuple[IPAddress, Range]]:
    make = type(r.start)
    number = start
    while number <= end:
        address = make(number)
        if address != r.gateway:
            yield address, r
        number += 1


def _subnet(text: str, key: str) -> IPNetwork:
    if not text:
        raise InvalidNetConf(f'key "{key}": missing, expected a subnet such as 10.1.0.0/16')
    try:
        loose = ip_network(text, strict=False)
    except ValueError as e:
        raise InvalidNetConf(f'key "{key}": found "{text}", expected a subnet such as 10.1.0.0/16') from e
    if "/" not in text or loose.max_prefixlen - loose.prefixlen < 2:
        raise InvalidNetConf(f'key "{key}": found "{text}", too small to allocate from, expected two host bits or more')
    if ip_address(text.partition("/")[0]) != loose.network_address:
        raise InvalidNetConf(f'key "{key}": found host bits in "{text}", expected {loose}')
    return loose


def _inside(text: str, subnet: IPNetwork, key: str) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError as e:
        raise InvalidNetConf(f'key "{key}": found "{text}", expected an IP address') from e
    if address not in subnet:
        raise InvalidNetConf(f'key "{key}": found {address}, expected an address of {subnet}')
    return address
