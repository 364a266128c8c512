"""Ranges of addresses: what may be handed out, counted and numbered without walking. No I/O.

Which addresses of a subnet are usable follows Whereabouts, so that a pool keeps its numbers when a cluster moves: all
but the first and the last, for IPv6 too; a subnet of one or two addresses (/31, /32, /127, /128) uses all it has
(RFC 3021, RFC 6164).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

import msgspec

from homeport.cni import documents
from homeport.model.addresses import Family, IPAddress, IPInterface, IPNetwork
from homeport.model.errors import InvalidNetConf


class Span(msgspec.Struct, frozen=True):
    """Addresses `first`..`last`, both inclusive, of one family."""

    first: IPAddress
    last: IPAddress

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, IPv4Address | IPv6Address) or address.version != self.first.version:
            return False
        return int(self.first) <= int(address) <= int(self.last)

    @property
    def size(self) -> int:
        """How many addresses; `len` could not say it of a /64."""
        return int(self.last) - int(self.first) + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that may be handed out: `first`..`last`, both inclusive, less `withheld`, with the prefix of `subnet`.

    `withheld` is what is excluded, and the gateway: ascending, apart from one another, inside `first`..`last`.
    `gateway` is of the subnet's family, or None.
    """

    subnet: IPNetwork
    first: IPAddress
    last: IPAddress
    withheld: tuple[Span, ...] = ()
    gateway: IPAddress | None = None

    @property
    def family(self) -> Family:
        return self.subnet.version

    @property
    def span(self) -> Span:
        return Span(self.first, self.last)

    @property
    def usable(self) -> int:
        """How many addresses may be handed out."""
        return self.span.size - sum(span.size for span in self.withheld)

    def __contains__(self, address: object) -> bool:
        """Whether the address may be handed out."""
        return address in self.span and not any(address in span for span in self.withheld)

    def nth(self, number: int) -> IPAddress | None:
        """The usable address `number`, counted from 0; None when there are not so many."""
        if number < 0:
            return None
        candidate = int(self.first) + number
        for span in self.withheld:
            if candidate < int(span.first):
                break
            candidate += span.size
        return _address(candidate, self.family) if candidate <= int(self.last) else None

    def interface(self, address: IPAddress) -> IPInterface:
        """The address with the subnet's prefix, as it stands in a result."""
        return ip_interface((address, self.subnet.prefixlen))

    def __str__(self) -> str:
        return f"{self.subnet} ({self.span})"


class RangeKeys(msgspec.Struct, frozen=True):
    """The keys of one range, in Whereabouts' spelling."""

    range: str = ""
    range_start: str = ""
    range_end: str = ""
    exclude: tuple[str, ...] = ()


def parse_range(keys: RangeKeys, *, at: str, gateway: IPAddress | None = None) -> Range:
    """`at` is where the keys stand (`ipam` or `ipam.ipRanges[0]`); every error names key and value.

    The range is a CIDR, its host bits of no meaning, or `FIRST-LAST/PREFIX`, which overrides range_start and range_end.
    """
    subnet, first, last = _parse_subnet(keys, at)
    usable = usable_span(subnet)
    start = first or _parse_end(keys.range_start, "range_start", usable, at) or usable.first
    end = last or _parse_end(keys.range_end, "range_end", usable, at) or usable.last
    if int(end) < int(start):
        key, found = ("range", keys.range) if first else ("range_end", keys.range_end)
        raise InvalidNetConf(f'key "{at}.{key}": found "{found}", expected an end that is not below the start {start}')
    span = Span(start, end)
    excluded = [_parse_exclude(text, f"{at}.exclude[{n}]") for n, text in enumerate(keys.exclude)]
    own_gateway = gateway if gateway is not None and gateway.version == subnet.version else None
    if own_gateway is not None:
        excluded.append(Span(own_gateway, own_gateway))
    return Range(subnet=subnet, first=start, last=end, withheld=_clip(merge_spans(excluded), span), gateway=own_gateway)


def parse_address(text: str, key: str) -> IPAddress:
    """An address, leading zeros in its octets allowed and meaning nothing; `InvalidNetConf` naming the key."""
    try:
        return _read_address(text)
    except ValueError as e:
        raise InvalidNetConf(f'key "{key}": found {documents.shown(text)}, expected an IP address') from e


def parse_network(text: str, key: str) -> IPNetwork:
    """A CIDR whose host bits mean nothing, with the same leniency."""
    try:
        return _read_interface(text).network
    except ValueError as e:
        expected = "a network with its prefix, such as 10.1.2.0/24"
        raise InvalidNetConf(f'key "{key}": found {documents.shown(text)}, expected {expected}') from e


def parse_interface(text: str, key: str) -> IPInterface:
    """An address with its prefix, with the same leniency."""
    try:
        return _read_interface(text)
    except ValueError as e:
        expected = "an address with its prefix, such as 10.1.2.3/24"
        raise InvalidNetConf(f'key "{key}": found {documents.shown(text)}, expected {expected}') from e


def usable_span(subnet: IPNetwork) -> Span:
    """From the first to the last address of a subnet that a host may have."""
    first, last = subnet.network_address, subnet.broadcast_address
    if int(last) - int(first) < 3:
        return Span(first, last)
    return Span(first + 1, last - 1)


def merge_spans(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same addresses in the fewest spans, ascending, IPv4 before IPv6."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.first.version, int(s.first))):
        last = merged[-1] if merged else None
        if last is None or last.first.version != span.first.version or int(span.first) > int(last.last) + 1:
            merged.append(span)
        elif int(span.last) > int(last.last):
            merged[-1] = Span(last.first, span.last)
    return tuple(merged)


def free_spans(span: Span, withheld: Sequence[Span]) -> Iterator[Span]:
    """What is left of `span` without `withheld` (as `merge_spans` gives them), ascending."""
    family = span.first.version
    start = int(span.first)
    for hole in _clip(withheld, span):
        if start < int(hole.first):
            yield Span(_address(start, family), hole.first - 1)
        start = int(hole.last) + 1
    if start <= int(span.last):
        yield Span(_address(start, family), span.last)


def spans_from(span: Span, near: IPAddress | None) -> tuple[Span, ...]:
    """The span in the order of a search that begins at `near` and goes round; as it is where `near` is not in it."""
    if near is None or near not in span or near == span.first:
        return (span,)
    return Span(near, span.last), Span(span.first, near - 1)


def match_ranges(ranges: Sequence[Range], held: Sequence[IPAddress]) -> tuple[int | None, ...]:
    """For each range the index of the address of `held` that stands for it, or None.

    As many ranges as possible get one, earlier addresses of `held` before later ones. An address outside what is
    handed out today still stands for a range whose subnet it is in: narrowing a range renumbers nobody (R2).
    """
    of_range: dict[int, int] = {}

    def place(address: int, tried: set[int]) -> bool:
        possible = [r for r, range_ in enumerate(ranges) if _may_stand(held[address], range_)]
        # A range of nobody first: displacing another would swap the two for nothing.
        for r in sorted(possible, key=lambda r: (held[address] not in ranges[r].span, r in of_range)):
            if r in tried:
                continue
            tried.add(r)
            if r not in of_range or place(of_range[r], tried):
                of_range[r] = address
                return True
        return False

    for address in range(len(held)):
        place(address, set())
    return tuple(of_range.get(r) for r in range(len(ranges)))


def _may_stand(address: IPAddress, range_: Range) -> bool:
    return address in usable_span(range_.subnet) and address != range_.gateway


def _parse_subnet(keys: RangeKeys, at: str) -> tuple[IPNetwork, IPAddress | None, IPAddress | None]:
    """(subnet, first, last); the latter two are None when the text gives only the subnet."""
    key = f"{at}.range"
    text = keys.range.replace(" ", "")
    first_text, dash, rest = text.partition("-")
    if not dash:
        return parse_network(text, key), None, None
    end = parse_interface(rest, key)
    first, last = parse_address(first_text, key), end.ip
    if first not in end.network:
        raise InvalidNetConf(
            f'key "{key}": found "{keys.range}", expected both ends in one subnet, but {first} is not in {end.network}'
        )
    usable = usable_span(end.network)
    for address in (first, last):
        if address not in usable:
            raise InvalidNetConf(f'key "{key}": found "{keys.range}", expected addresses in {usable}, not {address}')
    return end.network, first, last


def _parse_end(text: str, name: str, usable: Span, at: str) -> IPAddress | None:
    if not text:
        return None
    address = parse_address(text, f"{at}.{name}")
    if address not in usable:
        raise InvalidNetConf(f'key "{at}.{name}": found "{text}", expected an address of the range, {usable}')
    return address


def _parse_exclude(text: str, key: str) -> Span:
    try:
        if "/" not in text:
            return Span(_read_address(text), _read_address(text))
        network = _read_interface(text).network
    except ValueError as e:
        expected = "an address or a network, such as 10.1.2.3 or 10.1.2.0/28"
        raise InvalidNetConf(f'key "{key}": found {documents.shown(text)}, expected {expected}') from e
    return Span(network.network_address, network.broadcast_address)


def _clip(spans: Iterable[Span], within: Span) -> tuple[Span, ...]:
    """The parts of `spans` that lie in `within`."""
    return tuple(
        Span(max(s.first, within.first, key=int), min(s.last, within.last, key=int))
        for s in spans
        if s.first.version == within.first.version
        and int(s.first) <= int(within.last)
        and int(s.last) >= int(within.first)
    )


def _read_address(text: str) -> IPAddress:
    if "%" in text:
        raise ValueError("a zone has no meaning here")
    text = text.strip()
    if ":" not in text:
        text = ".".join(octet.lstrip("0") or "0" if octet else octet for octet in text.split("."))
    return ip_address(text)


def _read_interface(text: str) -> IPInterface:
    """An address with its prefix length; a netmask is not one."""
    address, _, prefix = text.partition("/")
    if not (prefix.isascii() and prefix.isdigit()):
        raise ValueError("the prefix is not a number")
    return ip_interface((_read_address(address), int(prefix)))


def _address(number: int, family: Family) -> IPAddress:
    return IPv4Address(number) if family == 4 else IPv6Address(number)
