"""The address ranges of a network's ipam sections, each key with its place. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from homeport.ipam import ranges
from homeport.ipam.ranges import Range, RangeKeys, Span
from homeport.lint.manifests import Network
from homeport.lint.nodes import Node
from homeport.model.addresses import IPAddress, IPNetwork
from homeport.model.errors import InvalidNetConf


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One range as written; the nodes are strings. `ipam` is the type of the plugin that reads it."""

    ipam: str
    range: Node
    start: Node | None
    end: Node | None
    exclude: tuple[Node, ...]
    gateway: Node | None

    def subnet(self) -> IPNetwork | None:
        """The subnet alone; None where it is not right."""
        try:
            return ranges.parse_range(RangeKeys(range=str(self.range.value)), at="ipam").subnet
        except InvalidNetConf:
            return None

    def parsed(self) -> Range | None:
        """The whole range with its gateway withheld; None where anything of it is not right."""
        keys = RangeKeys(
            range=str(self.range.value),
            range_start=_value(self.start),
            range_end=_value(self.end),
            exclude=tuple(_value(node) for node in self.exclude),
        )
        try:
            return ranges.parse_range(keys, at="ipam", gateway=address_of(self.gateway))
        except InvalidNetConf:
            return None

    def has_host_bits(self) -> bool:
        """Whether the range is written as an address inside its network; never for one that is not right.

        For whereabouts the first usable address is as good as the network's: it is where the range starts anyway.
        """
        try:
            written = ranges.parse_interface(str(self.range.value).replace(" ", ""), "")
        except InvalidNetConf:
            return False
        if self.ipam == "whereabouts" and written.ip == ranges.usable_span(written.network).first:
            return False
        return written.ip != written.network.network_address

    @property
    def last_word(self) -> Node:
        """Where one would widen it: the end if written, else the range."""
        return self.end or self.range


def pools(network: Network) -> Iterator[Pool]:
    """Every range of every ipam section, in the order in which they give addresses."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        match ipam.text("type") if ipam is not None else None:
            case "whereabouts" if ipam is not None:
                gateway = _string(ipam, "gateway")
                for holder in (ipam, *_items(ipam.get("ipRanges"))):
                    yield from _pool("whereabouts", holder, ("range", "range_start", "range_end"), gateway)
            case "host-local" if ipam is not None:
                inner = [r for set_ in _items(ipam.get("ranges")) for r in (_items(set_) or (set_,))]
                for holder in (ipam, *inner):
                    keys = ("subnet", "rangeStart", "rangeEnd")
                    yield from _pool("host-local", holder, keys, _string(holder, "gateway"))


def parse_excluded(text: str, key: str) -> Span:
    """What an element of `exclude` names: an address or a network. Raises `InvalidNetConf`."""
    if "/" not in text:
        address = ranges.parse_address(text, key)
        return Span(address, address)
    network = ranges.parse_network(text, key)
    return Span(network[0], network[-1])


def address_of(node: Node | None) -> IPAddress | None:
    """The address a string gives, or None."""
    if node is None:
        return None
    try:
        return ranges.parse_address(str(node.value), "")
    except InvalidNetConf:
        return None


def excluded_of(node: Node) -> Span | None:
    """What an element of `exclude` names, or None."""
    try:
        return parse_excluded(str(node.value), "")
    except InvalidNetConf:
        return None


def _pool(ipam: str, holder: Node, keys: tuple[str, str, str], gateway: Node | None) -> Iterator[Pool]:
    whole = _string(holder, keys[0])
    if whole is not None:
        yield Pool(
            ipam=ipam,
            range=whole,
            start=_string(holder, keys[1]),
            end=_string(holder, keys[2]),
            exclude=tuple(n for n in _items(holder.get("exclude")) if n.kind == "string"),
            gateway=gateway,
        )


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if node is not None else ()


def _string(holder: Node, key: str) -> Node | None:
    """A string that says something; other types are another rule's matter."""
    node = holder.get(key)
    return node if node is not None and node.kind == "string" and node.value else None


def _value(node: Node | None) -> str:
    return str(node.value) if node is not None else ""
