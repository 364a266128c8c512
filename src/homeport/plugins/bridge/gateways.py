"""Which gateway addresses a bridge gets, and what the container is told of them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_interface, ip_network

import msgspec

from homeport.model.addresses import IPAddress, IPInterface
from homeport.model.errors import InvalidNetConf
from homeport.model.results import IPConfig, Result, Route
from homeport.plugins.bridge.netconfs import BridgeConf

CONTAINER_INDEX = 2
"""The container's place in the result's interfaces: bridge, host side of the veth, container."""

_DEFAULT = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def complete(conf: BridgeConf, allocated: Result) -> Result:
    """IPAM's result for this bridge: addresses on the container's interface, gateways and default routes filled in.

    Without a gateway of its own an address takes the subnet's first address for one, when the bridge is a gateway.
    Each family gets a default route by its first gateway, unless IPAM gave one that names another.
    """
    ips = tuple(
        msgspec.structs.replace(ip, interface=CONTAINER_INDEX, gateway=_gateway(conf, ip)) for ip in allocated.ips
    )
    routes = list(allocated.routes)
    if conf.is_default_gateway:
        for ip in ips:
            routes = _with_default(routes, ip)
    return Result(ips=ips, routes=tuple(routes), dns=allocated.dns)


def gateway_addresses(ips: Iterable[IPConfig]) -> tuple[IPInterface, ...]:
    """The gateways with the prefix of the address each serves, IPv4 first, without repetition."""
    found = {ip_interface(f"{ip.gateway}/{ip.address.network.prefixlen}") for ip in ips if ip.gateway is not None}
    return tuple(sorted(found, key=lambda address: (address.version, address)))


def in_the_way(present: Iterable[IPInterface], wanted: IPInterface) -> tuple[IPInterface, ...]:
    """The addresses that cannot stand beside `wanted` on one bridge.

    That is every other IPv4 address, and every IPv6 address whose subnet overlaps; none when `wanted` is there.
    """
    same_family = [a for a in present if a.version == wanted.version]
    if wanted in same_family:
        return ()
    if wanted.version == 4:
        return tuple(same_family)
    return tuple(a for a in same_family if a.network.overlaps(wanted.network))


def _with_default(routes: list[Route], ip: IPConfig) -> list[Route]:
    """IPAM's own default route without a gateway takes this one: beside it a second would be refused as the same."""
    default = _DEFAULT[ip.address.version]
    present = [r for r in routes if r.dst == default]
    if not present:
        return [*routes, Route(dst=default, gw=ip.gateway)]
    if any(r.gw is not None for r in present):
        return routes
    return [msgspec.structs.replace(r, gw=ip.gateway) if r is present[0] else r for r in routes]


def _gateway(conf: BridgeConf, ip: IPConfig) -> IPAddress | None:
    if ip.gateway is not None or not conf.is_gateway:
        return ip.gateway
    network = ip.address.network
    first = ip_address(int(network.network_address) + 1)
    if network.prefixlen > network.max_prefixlen - 2 or first == ip.address.ip:
        raise InvalidNetConf(
            f'key "isGateway": found the address {ip.address}, which leaves none for the gateway: '
            'expected a "gateway" in ipam'
        )
    return first
