"""The routes that a network gives its pods. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from homeport.ipam import ranges
from homeport.lint.manifests import Network
from homeport.lint.nodes import Node
from homeport.lint.pools import address_of, families
from homeport.model.addresses import Family, IPAddress, IPNetwork
from homeport.model.errors import InvalidNetConf

_READ_ROUTES = ("whereabouts", "host-local", "static")
_MOVES_ROUTES = ("sbr", "vrf", "route-override")  # what they leave in the main table is not what ipam says


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A route of an ipam section, as written. `dst` and `gw` are None where they are not right, `gw` also without."""

    dst: IPNetwork | None
    dst_place: Node
    gw: IPAddress | None
    gw_place: Node | None
    in_main: bool

    @property
    def is_default(self) -> bool:
        return self.dst is not None and self.dst.prefixlen == 0


def routes(network: Network) -> Iterator[Route]:
    """Every route of every ipam section that gives routes."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        listed = ipam.get("routes") if ipam is not None and ipam.text("type") in _READ_ROUTES else None
        for item in listed.items if listed is not None else ():
            dst, gw, table = item.get("dst"), item.get("gw"), item.get("table")
            if dst is not None and dst.kind == "string" and dst.value:
                told = gw if gw is not None and gw.kind == "string" and gw.value else None
                yield Route(
                    dst=network_of(dst),
                    dst_place=dst,
                    gw=address_of(told),
                    gw_place=told,
                    in_main=table is None or table.kind == "null",
                )


def default_routes(network: Network) -> Iterator[tuple[Family, Node]]:
    """The families whose default route in a pod's main table the network makes, and where it says so."""
    if any(plugin.text("type") in _MOVES_ROUTES for plugin in network.plugins):
        return
    for route in routes(network):
        if route.dst is not None and route.is_default and route.in_main:
            yield route.dst.version, route.dst_place
    for plugin in network.plugins:
        flag = plugin.get("isDefaultGateway")
        if plugin.text("type") == "bridge" and flag is not None and flag.value is True:
            yield from ((family, flag) for family in sorted(families(network)))


def network_of(node: Node) -> IPNetwork | None:
    """What a string says as a destination, or None."""
    try:
        return ranges.parse_network(str(node.value), "")
    except InvalidNetConf:
        return None
