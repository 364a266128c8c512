"""Which rules and routes make traffic leave by the interface that has its source address. No I/O.

Every address gets a routing table of its own, with a rule `from ADDRESS lookup TABLE`, its gateway as default route,
and the main table's routes of the interface that the address can use. What is planned here is what the reference
plugin does, but for four things: a table is free only when no route is in it either; routes of the other family are
not copied; link-local routes stay in the main table; and a route that fits no address in particular goes to every
table of its family instead of getting lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from itertools import count

import msgspec

from homeport.model.addresses import Family, IPAddress, IPInterface, IPNetwork
from homeport.model.errors import Drift
from homeport.model.results import IPConfig, Result
from homeport.plugins.interfaces import MAIN_TABLE
from homeport.ports import KernelRoute, Rule

FIRST_TABLE = 100
RESERVED_TABLES = frozenset({253, 254, 255})  # rtnetlink(7): default, main, local
_LINK_SCOPE = 253  # rtnetlink(7), a number of another kind
_DEFAULT: Mapping[Family, IPNetwork] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`table` set means that somebody else fills that table. `gateways` go before those of the addresses."""

    table: int | None = None
    gateways: Mapping[Family, IPAddress] = {}
    add_source_hints: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`routes` and `hints` replace what stands at their place, in this order; `moved` leave the main table.

    A gateway must be on a connected route when its route is added. So connected ones come first in `routes` and last
    in `moved`, whose undoing runs the other way.
    """

    rules: tuple[Rule, ...] = ()
    routes: tuple[KernelRoute, ...] = ()
    hints: tuple[KernelRoute, ...] = ()
    moved: tuple[KernelRoute, ...] = ()


def own_ips(result: Result, ifname: str) -> tuple[IPConfig, ...]:
    """The addresses of the interface called `ifname`; one that names no interface is taken for its own."""

    def is_own(ip: IPConfig) -> bool:
        if ip.interface is None or ip.interface >= len(result.interfaces):
            return True
        return result.interfaces[ip.interface].name == ifname

    return tuple(ip for ip in result.ips if is_own(ip))


def host_rule(address: IPAddress, table: int) -> Rule:
    """`from ADDRESS lookup TABLE`, at the priority the kernel chooses."""
    return Rule(family=address.version, src=ip_network(address), table=table)


def plan(
    settings: Settings, ips: Sequence[IPConfig], *, ifname: str, main: Sequence[KernelRoute], in_use: Collection[int]
) -> Plan:
    """`main` are the interface's routes in the main table, `in_use` the tables that are not free, both as they are."""
    if settings.table is not None:
        return Plan(rules=tuple(host_rule(ip.address.ip, settings.table) for ip in ips))
    tables = list(zip(ips, free_tables(in_use), strict=False))
    families = {ip.address.version for ip in ips}
    moved = [r for r in main if r.dst.version in families and not _is_link_local(r.dst)]
    if settings.add_source_hints:
        moved = [r for r in moved if not _is_connected(r)]
    return Plan(
        rules=tuple(host_rule(ip.address.ip, table) for ip, table in tables),
        routes=tuple(r for ip, table in tables for r in _table(settings, ip, ips, table, ifname, main)),
        hints=tuple(_hint(ip.address, ifname, main) for ip in ips) if settings.add_source_hints else (),
        moved=tuple(sorted(moved, key=_is_connected)),
    )


def free_tables(in_use: Collection[int]) -> Iterator[int]:
    """Ascending from 100, without those in use."""
    return (table for table in count(FIRST_TABLE) if table not in in_use and table not in RESERVED_TABLES)


def gateway_of(settings: Settings, ip: IPConfig) -> IPAddress | None:
    """The configured gateway of the address's family, else the address's own."""
    return settings.gateways.get(ip.address.version, ip.gateway)


def _table(
    settings: Settings, ip: IPConfig, ips: Sequence[IPConfig], table: int, ifname: str, main: Iterable[KernelRoute]
) -> Iterator[KernelRoute]:
    """The routes of the address's table: connected ones first, since the others' gateways lie on them."""
    family = ip.address.version
    usable = [r for r in main if r.dst.version == family and _suits(r, ip, ips)]
    copied = [msgspec.structs.replace(r, table=table) for r in usable]
    yield from (r for r in copied if _is_connected(r))
    if gateway := gateway_of(settings, ip):
        yield KernelRoute(dst=_DEFAULT[family], gw=gateway, link=ifname, table=table)
    # A configured gateway is there to take the place of the one the main table has.
    overridden = _DEFAULT[family] if family in settings.gateways else None
    yield from (r for r in copied if not _is_connected(r) and r.dst != overridden)


def _suits(route: KernelRoute, ip: IPConfig, ips: Iterable[IPConfig]) -> bool:
    """Whether the route's source or gateway lies in the address's subnet, or in no address's."""
    named = [a for a in (route.src, route.gw) if a is not None]
    if any(a in ip.address.network for a in named):
        return True
    return not any(a in other.address.network for a in named for other in ips)


def _is_connected(route: KernelRoute) -> bool:
    return route.gw is None


def _is_link_local(dst: IPNetwork) -> bool:
    """The sources of such traffic have no rule, so only the main table can lead it."""
    return dst.version == 6 and (dst.is_link_local or dst.is_multicast)


def _hint(address: IPInterface, ifname: str, main: Iterable[KernelRoute]) -> KernelRoute:
    """The connected route of the address's subnet with the address as source, in place of the one that is there."""
    for route in main:
        if route.dst == address.network and _is_connected(route):
            return msgspec.structs.replace(route, src=address.ip, scope=_LINK_SCOPE)
    return KernelRoute(dst=address.network, link=ifname, src=address.ip, scope=_LINK_SCOPE)


def check(
    settings: Settings,
    ip: IPConfig,
    result: Result,
    *,
    ifname: str,
    rules: Iterable[Rule],
    routes: Iterable[KernelRoute],
) -> None:
    """Raises `Drift` when the address has no rule, or its table lacks what ADD put there.

    `routes` are those of the interface, of every table. A table that was named is filled by others, so of it only
    the rule is looked at.
    """
    where = f'check source {ip.address.ip} of "{ifname}"'
    own = host_rule(ip.address.ip, 0).src
    tables = [r.table for r in rules if r.src == own and settings.table in (None, r.table)]
    if not tables:
        to = f"table {settings.table}" if settings.table is not None else "a table of its own"
        raise Drift(f"{where}: found no rule, expected one to {to}")
    if settings.table is not None:
        return
    there = [r for r in routes if r.table in tables]
    gateway = gateway_of(settings, ip)
    default = _DEFAULT[ip.address.version]
    if gateway is not None and not any(r.dst == default and r.gw == gateway for r in there):
        raise Drift(f"{where}: found no default route by {gateway} in table {tables[0]}, expected one")
    for dst in _expected(ip, result, ifname):
        if not any(r.dst == dst for r in there):
            raise Drift(f"{where}: found no route to {dst} in table {tables[0]}, expected one")


def _expected(ip: IPConfig, result: Result, ifname: str) -> Iterator[IPNetwork]:
    """The destinations of the address's subnet and of the result's routes that it can use."""
    if ip.address.network.num_addresses > 1:
        yield ip.address.network
    ips = own_ips(result, ifname)
    for route in result.routes:
        in_main = route.table in (None, 0, MAIN_TABLE)
        as_added = KernelRoute(dst=route.dst, gw=route.gw)
        if in_main and route.dst.version == ip.address.version and _suits(as_added, ip, ips):
            yield route.dst
