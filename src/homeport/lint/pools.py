"""The addresses that a network's ipam sections speak of, each key with its place. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from homeport.ipam import ranges
from homeport.ipam.ranges import Range, RangeKeys, Span
from homeport.lint.manifests import Network, of_network
from homeport.lint.nodes import Node
from homeport.model.addresses import Family, IPAddress, IPInterface, IPNetwork
from homeport.model.errors import InvalidNetConf


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """One range as written; the nodes are strings. `ipam` is the type of the plugin that reads it.

    An address is given out once in its `scope`, by host-local once a node. One of all pools with the same `set` gives
    an interface its address: of whereabouts each is a set of its own.
    """

    ipam: str
    scope: str
    set: int
    range: Node
    start: Node | None
    end: Node | None
    exclude: tuple[Node, ...]
    gateway: Node | None

    @property
    def of_node(self) -> bool:
        """Whether every node counts for itself."""
        return self.ipam == "host-local"

    def subnet(self) -> IPNetwork | None:
        """The subnet alone; None where it is not right."""
        whole = _parsed(str(self.range.value), "", "", (), "")
        return whole.subnet if whole is not None else None

    def parsed(self) -> Range | None:
        """The whole range with its gateway withheld; None where anything of it is not right."""
        start, end, gateway = _value(self.start), _value(self.end), _value(self.gateway)
        if self.of_node:
            return _parsed_of_node(str(self.range.value), start, end, gateway)
        exclude = tuple(_value(node) for node in self.exclude)
        return _parsed(str(self.range.value), start, end, exclude, gateway)

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


class Static(msgspec.Struct, frozen=True, kw_only=True):
    """An address that a configuration gives in full, and its gateway as written."""

    address: IPInterface
    place: Node
    gateway: Node | None


@of_network
def pools(network: Network) -> Iterator[Pool]:
    """Every range of every ipam section, in the order in which they give addresses."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        match ipam.text("type") if ipam is not None else None:
            case "whereabouts" if ipam is not None:
                yield from _whereabouts(ipam)
            case "host-local" if ipam is not None:
                yield from _host_local(ipam, network)


@of_network
def statics(network: Network) -> Iterator[Static]:
    """The addresses of every ipam section that says them in full, those that are not right left out."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        if ipam is None or ipam.text("type") not in ("static", "whereabouts"):
            continue
        for item in _items(ipam.get("addresses")):
            place = _string(item, "address")
            address = interface_of(place)
            if place is not None and address is not None:
                yield Static(address=address, place=place, gateway=_string(item, "gateway"))


def subnets(network: Network) -> tuple[IPNetwork, ...] | None:
    """What the network's interfaces are connected to; None when somebody else, or the pod, has a say in it."""
    found: list[IPNetwork] = []
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        kind = ipam.text("type") if ipam is not None else None
        if ipam is not None and ipam.members and kind not in ("whereabouts", "host-local", "static"):
            return None
    for pool in pools(network):
        subnet = pool.subnet()
        if subnet is None:
            return None
        found.append(subnet)
    found += [one.address.network for one in statics(network)]
    return tuple(found) or None


def families(network: Network) -> frozenset[Family]:
    """The families that the network surely gives addresses of."""
    known = {subnet.version for pool in pools(network) if (subnet := pool.subnet()) is not None}
    return frozenset(known | {one.address.version for one in statics(network)})


LEAST_OF_NODE = 4
"""Addresses of the smallest subnet that host-local takes."""

_WHEREABOUTS_KEYS = ("range", "range_start", "range_end")
_HOST_LOCAL_KEYS = ("subnet", "rangeStart", "rangeEnd")


def parse_excluded(text: str, key: str) -> Span:
    """What an element of `exclude` names: an address or a network. Raises `InvalidNetConf`."""
    if "/" not in text:
        address = ranges.parse_address(text, key)
        return Span(address, address)
    network = ranges.parse_network(text, key)
    return Span(network[0], network[-1])


def address_of(node: Node | None) -> IPAddress | None:
    """The address a string gives, or None."""
    return _address(_value(node))


def excluded_of(node: Node) -> Span | None:
    """What an element of `exclude` names, or None."""
    try:
        return parse_excluded(str(node.value), "")
    except InvalidNetConf:
        return None


def interface_of(node: Node | None) -> IPInterface | None:
    """The address with its prefix that a string gives, or None."""
    try:
        return ranges.parse_interface(str(node.value), "") if node is not None else None
    except InvalidNetConf:
        return None


def _whereabouts(ipam: Node) -> Iterator[Pool]:
    gateway, apart = _string(ipam, "gateway"), ipam.get("enable_overlapping_ranges")
    name = ipam.text("network_name") or ""
    for n, holder in enumerate((ipam, *_items(ipam.get("ipRanges")))):
        pool = _pool(ipam="whereabouts", scope=name, set=n, holder=holder, keys=_WHEREABOUTS_KEYS, gateway=gateway)
        if pool is not None and apart is not None and apart.value is False:
            yield msgspec.structs.replace(pool, scope=f"{name}#{pool.subnet()}")
        elif pool is not None:
            yield pool


def _host_local(ipam: Node, network: Network) -> Iterator[Pool]:
    """Its files stand in a directory of the network's name, so that is what shares them."""
    name = (network.config.text("name") if network.config is not None else None) or network.name
    scope = f"{ipam.text('dataDir') or ''}/{name}"
    sets = [(0, ipam), *((n, r) for n, s in enumerate(_items(ipam.get("ranges")), 1) for r in (_items(s) or (s,)))]
    for n, holder in sets:
        gateway = _string(holder, "gateway")
        pool = _pool(ipam="host-local", scope=scope, set=n, holder=holder, keys=_HOST_LOCAL_KEYS, gateway=gateway)
        if pool is not None:
            yield pool


def _pool(
    *, ipam: str, scope: str, set: int, holder: Node, keys: tuple[str, str, str], gateway: Node | None
) -> Pool | None:
    whole = _string(holder, keys[0])
    if whole is None:
        return None
    return Pool(
        ipam=ipam,
        scope=scope,
        set=set,
        range=whole,
        start=_string(holder, keys[1]),
        end=_string(holder, keys[2]),
        exclude=tuple(n for n in _items(holder.get("exclude")) if n.kind == "string"),
        gateway=gateway,
    )


@lru_cache(maxsize=4096)
def _parsed(range_: str, start: str, end: str, exclude: tuple[str, ...], gateway: str) -> Range | None:
    """Remembered, since most rules ask. A gateway that is not right is another rule's matter."""
    keys = RangeKeys(range=range_, range_start=start, range_end=end, exclude=exclude)
    try:
        return ranges.parse_range(keys, at="ipam", gateway=_address(gateway))
    except InvalidNetConf:
        return None


@lru_cache(maxsize=4096)
def _parsed_of_node(subnet_text: str, start: str, end: str, gateway_text: str) -> Range | None:
    """As host-local reads it: to the last address of an IPv6 subnet, and never the gateway, by default the first."""
    whole = _parsed(subnet_text, "", "", (), "")
    if whole is None or whole.subnet.num_addresses < LEAST_OF_NODE:
        return None
    subnet = whole.subnet
    lowest, highest = subnet[1], subnet[-2 if subnet.version == 4 else -1]
    first, last = _address(start or str(lowest)), _address(end or str(highest))
    if first is None or last is None or first not in subnet or last not in subnet or int(last) < int(first):
        return None
    gateway = _address(gateway_text) or lowest
    withheld = (Span(gateway, gateway),) if gateway in Span(first, last) else ()
    return Range(subnet=subnet, first=first, last=last, withheld=withheld, gateway=gateway)


def _address(text: str) -> IPAddress | None:
    try:
        return ranges.parse_address(text, "") if text else None
    except InvalidNetConf:
        return None


def _items(node: Node | None) -> tuple[Node, ...]:
    return node.items if node is not None else ()


def _string(holder: Node, key: str) -> Node | None:
    """A string that says something; other types are another rule's matter."""
    node = holder.get(key)
    return node if node is not None and node.kind == "string" and node.value else None


def _value(node: Node | None) -> str:
    return str(node.value) if node is not None else ""
