"""Rules about ranges and addresses. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from homeport.cni.documents import shown
from homeport.ipam import ranges
from homeport.ipam.ranges import RangeKeys, Span
from homeport.lint.findings import Found, Severity
from homeport.lint.manifests import Network
from homeport.lint.nodes import Node
from homeport.lint.pools import LEAST_OF_NODE, Pool, address_of, excluded_of, parse_excluded, pools, statics
from homeport.lint.routes import routes
from homeport.lint.rules.checks import network_rule
from homeport.lint.rules.wording import said
from homeport.model.addresses import IPAddress, IPNetwork
from homeport.model.errors import InvalidNetConf

_KEY = "ipam"
_FILLED_IN = ("usePodCidr", "usePodCidrIPv6")  # calico writes the node's own range there


@network_rule("address-syntax", Severity.ERROR)
def address_syntax(network: Network) -> Iterator[Found]:
    """A range, a range's end, an excluded range, a gateway, a static address or a route is not one.

    A range is a network with its prefix (`10.1.2.0/24`), for Whereabouts also `FIRST-LAST/PREFIX`. Excluded are
    addresses or networks. Static addresses and the destinations of routes carry their prefix, gateways do not.
    """
    for pool in pools(network):
        read = _read_range if pool.ipam == "whereabouts" else ranges.parse_network
        if pool.range.value not in _FILLED_IN:
            yield from _unreadable(network, pool.range, read)
        for node in (pool.start, pool.end):
            yield from _unreadable(network, node, ranges.parse_address)
        for node in pool.exclude:
            yield from _unreadable(network, node, parse_excluded)
    seen: set[int] = set()
    for pool in pools(network):
        if pool.gateway is not None and id(pool.gateway) not in seen:
            seen.add(id(pool.gateway))
            yield from _unreadable(network, pool.gateway, ranges.parse_address)
    for item in _static(network):
        yield from _unreadable(network, _text(item, "address"), _read_static)
        yield from _unreadable(network, _text(item, "gateway"), ranges.parse_address)
    for route in routes(network):
        yield from _unreadable(network, route.dst_place, ranges.parse_network)
        yield from _unreadable(network, route.gw_place, ranges.parse_address)


@network_rule("no-range", Severity.WARNING)
def no_range(network: Network) -> Iterator[Found]:
    """A whereabouts section has neither `range` nor `ipRanges`.

    Unless a configuration file on every node gives one, pods attach without any address.
    """
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        node = ipam.get("type") if ipam is not None else None
        if ipam is None or node is None or node.value != "whereabouts":
            continue
        if all(ipam.get(key) is None for key in ("range", "ipRanges", "addresses")):
            yield network.found(node.span, 'ipam "whereabouts" has no range', 'expected "range" or "ipRanges"')


@network_rule("range-reversed", Severity.ERROR)
def range_reversed(network: Network) -> Iterator[Found]:
    """A range ends before it starts.

    Lint does not swap the two: as often as not, one of them has a digit too many.
    """
    for pool in pools(network):
        start, end = address_of(pool.start), address_of(pool.end)
        if pool.end is None or start is None or end is None or start.version != end.version or int(start) <= int(end):
            continue
        yield network.found(
            pool.end.span, f"the range ends at {end}, below its start {start}", "expected an end not below the start"
        )


@network_rule("range-bounds", Severity.ERROR)
def range_bounds(network: Network) -> Iterator[Found]:
    """range_start or range_end lies outside the range.

    Whereabouts then ignores it in silence and hands out from the whole range; Homeport refuses.
    """
    for pool in pools(network):
        subnet = pool.subnet()
        for node in (pool.start, pool.end) if subnet is not None else ():
            address = address_of(node)
            if node is not None and address is not None and subnet is not None:
                # host-local takes any address of the subnet, even one that no host should have.
                usable = Span(subnet[0], subnet[-1]) if pool.of_node else ranges.usable_span(subnet)
                if address not in usable:
                    yield network.found(
                        node.span, f"{address} is outside the range {subnet}", f"expected an address in {usable}"
                    )


@network_rule("exclude-outside", Severity.WARNING)
def exclude_outside(network: Network) -> Iterator[Found]:
    """An excluded address or network lies outside the range.

    It excludes nothing; perhaps the range was changed and the exclusion was not.
    """
    for pool in pools(network):
        whole = pool.parsed()
        for node in pool.exclude if whole is not None else ():
            excluded = excluded_of(node)
            if whole is not None and excluded is not None and not _overlap(excluded, whole.span):
                yield network.found(
                    node.span, f"{shown(node.value)} excludes nothing", f"the range hands out {whole.span} only"
                )


@network_rule("range-empty", Severity.ERROR)
def range_empty(network: Network) -> Iterator[Found]:
    """A range has no address left: all of it is excluded, or is the gateway."""
    for pool in pools(network):
        whole = pool.parsed()
        if whole is not None and not whole.usable:
            yield network.found(
                pool.last_word.span, f"nothing of {whole.span} is left to hand out", "expected a larger range"
            )


@network_rule("range-too-narrow", Severity.ERROR)
def range_too_narrow(network: Network) -> Iterator[Found]:
    """A subnet of host-local has fewer than four addresses.

    host-local refuses prefixes longer than /30 (IPv6: /126).
    """
    for pool in pools(network):
        subnet = pool.subnet()
        if pool.of_node and subnet is not None and subnet.num_addresses < LEAST_OF_NODE:
            yield network.found(
                pool.range.span,
                f"host-local takes no subnet as small as {subnet}",
                f"expected /{subnet.max_prefixlen - 2} or wider",
            )


@network_rule("range-set", Severity.ERROR)
def range_set(network: Network) -> Iterator[Found]:
    """Ranges of host-local overlap, or a set of them has two families.

    A set (an inner list of `ranges`) gives one address, so it is of one family; no address may be in two ranges of the
    network. host-local refuses both.
    """
    known = [(pool, whole) for pool in pools(network) if pool.of_node and (whole := pool.parsed()) is not None]
    for n, (pool, whole) in enumerate(known):
        for earlier, other in known[:n]:
            if _overlap(whole.span, other.span):
                found = f"{whole.span} and {other.span} overlap"
                yield network.found(pool.range.span, found, "expected ranges that do not overlap")
                break
            if earlier.set == pool.set and whole.family != other.family:
                found = f"{whole.subnet} stands in a set with {other.subnet}"
                yield network.found(pool.range.span, found, "expected one family in a set, and a set for each family")
                break


@network_rule("dhcp-shared-mac", Severity.WARNING)
def dhcp_shared_mac(network: Network) -> Iterator[Found]:
    """Ipvlan asks a DHCP server for addresses.

    All ipvlan interfaces have their master's MAC address, and most servers give one address a MAC: to all pods of a
    node the same, or the node's own. Only a server that goes by client identifiers serves them; in modes l3 and l3s
    no answer arrives at all.
    """
    for plugin in network.plugins:
        kind = plugin.get("ipam", "type")
        if plugin.text("type") == "ipvlan" and kind is not None and kind.value == "dhcp":
            yield network.found(
                kind.span,
                "all ipvlan interfaces have one MAC address, by which DHCP servers know them apart",
                "expected macvlan, or another IPAM plugin",
            )


@network_rule("range-host-bits", Severity.WARNING, fix="writes the network's own address")
def range_host_bits(network: Network) -> Iterator[Found]:
    """A range is written with host bits, as 10.9.0.77/29.

    They do not say where to start: the range is the whole network, here 10.9.0.72/29, and host-local refuses it. Use
    range_start. The first address (10.9.0.73/29) is not remarked on for Whereabouts: its range starts there anyway.
    """
    for pool in pools(network):
        subnet = pool.subnet()
        written = str(pool.range.value)
        if subnet is not None and network.text is not None and pool.has_host_bits():
            edits = (network.text.edit(pool.range.span, f'"{subnet}"'),)
            yield network.found(
                pool.range.span, f"range {shown(written)} has host bits, which mean nothing", f'it is "{subnet}"', edits
            )


@network_rule("gateway-outside", Severity.WARNING)
def gateway_outside(network: Network) -> Iterator[Found]:
    """The gateway is in no range of the network, or not in its static address's subnet.

    The kernel refuses a route through a gateway that no interface's subnet contains. An IPv6 router's link-local
    address is on every link, and so in no range.
    """
    written: dict[int, list[Pool]] = {}
    for pool in pools(network):
        if pool.gateway is not None:
            written.setdefault(id(pool.gateway), []).append(pool)
    for using in written.values():
        gateway, node = address_of(using[0].gateway), using[0].gateway
        subnets = [pool.subnet() for pool in using]
        if gateway is None or node is None or None in subnets or any(s and _reaches(s, gateway) for s in subnets):
            continue
        listed = ", ".join(str(s) for s in subnets)
        yield network.found(node.span, f"gateway {gateway} is not in {listed}", "expected an address of the range")
    for static in statics(network):
        gateway, node = address_of(static.gateway), static.gateway
        if gateway is not None and node is not None and not _reaches(static.address.network, gateway):
            subnet = static.address.network
            yield network.found(node.span, f"gateway {gateway} is not in {subnet}", "expected a neighbour")


@network_rule("gateway-in-range", Severity.INFO)
def gateway_in_range(network: Network) -> Iterator[Found]:
    """The gateway is one of the addresses the range would hand out.

    Homeport never gives it to a pod (R5), so the pool has one address less than it seems. Whereabouts gives it to the
    first pod; exclude it when both are in use.
    """
    for pool in pools(network):
        whole, gateway = pool.parsed(), pool.gateway
        if pool.ipam != "whereabouts" or whole is None or whole.gateway is None or gateway is None:
            continue
        named = any(span is not None and whole.gateway in span for span in map(excluded_of, pool.exclude))
        if whole.gateway in whole.span and not named:
            yield network.found(
                gateway.span,
                f"gateway {whole.gateway} is inside the range {whole.span}",
                "Homeport keeps it free, Whereabouts does not; exclude it",
            )


def _reaches(subnet: IPNetwork, gateway: IPAddress) -> bool:
    """Whether an interface with an address of the subnet reaches the gateway on its link."""
    return gateway in subnet or (gateway.version == subnet.version == 6 and gateway.is_link_local)


def _unreadable(network: Network, node: Node | None, read: Callable[[str, str], Any]) -> Iterator[Found]:
    if node is None:
        return
    try:
        read(str(node.value), _KEY)
    except InvalidNetConf as e:
        found, right = said(e)
        yield network.found(node.span, found, right)


def _read_range(text: str, key: str) -> object:
    return ranges.parse_range(RangeKeys(range=text), at=key)


def _read_static(text: str, key: str) -> object:
    if "/" not in text:
        raise InvalidNetConf(
            f'key "{key}": found {shown(text)}, expected an address with its prefix, such as 10.1.2.3/24'
        )
    return ranges.parse_interface(text, key)


def _static(network: Network) -> Iterator[Node]:
    """The elements of `addresses`, which static and whereabouts have."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        if ipam is not None and ipam.text("type") in ("static", "whereabouts"):
            listed = ipam.get("addresses")
            yield from (item for item in (listed.items if listed else ()) if item.kind == "object")


def _text(holder: Node, key: str) -> Node | None:
    node = holder.get(key)
    return node if node is not None and node.kind == "string" and node.value else None


def _overlap(one: Span, other: Span) -> bool:
    return one.first.version == other.first.version and (one.first in other or other.first in one)
