"""Routes and policy routing rules.

rtnetlink(7), RTM_*ROUTE and RTM_*RULE; include/uapi/linux/{rtnetlink,fib_rules}.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from homeport.host import errors, netlink, uapi
from homeport.host.errors import place
from homeport.host.linking import find, link_name, required_index
from homeport.host.netlink import decoder
from homeport.host.operating import Operating
from homeport.host.sockets import NetlinkSocket, Refused
from homeport.model.addresses import Family, IPAddress, IPNetwork
from homeport.model.errors import MissingLink
from homeport.ports import KernelRoute, Rule

# struct rtmsg and struct fib_rule_hdr have one layout: family, dst prefix, src prefix, tos, table, protocol or
# reserved, scope or reserved, type or action, flags
_RTMSG = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=HBBi")  # length, flags, weight less one, link index
_FAMILIES: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
_EVERYTHING: dict[int, IPNetwork] = {
    socket.AF_INET: ipaddress.IPv4Network("0.0.0.0/0"),
    socket.AF_INET6: ipaddress.IPv6Network("::/0"),
}
# What may stand in a rule beside `from SRC lookup TABLE` without making it mean something else.
_HARMLESS_IN_RULE = {uapi.FRA_SRC, uapi.FRA_PRIORITY, uapi.FRA_TABLE, uapi.FRA_PROTOCOL, uapi.FRA_SUPPRESS_PREFIXLEN}
_IP6_RT_PRIO_USER = 1024  # the priority of an IPv6 route that was given none
_NO_SUPPRESSION = b"\xff\xff\xff\xff"


@decoder
def decode_routes(body: bytes, names: Mapping[int, str]) -> tuple[KernelRoute, ...]:
    """Pure: the unicast routes of an RTM_NEWROUTE body, one for each next hop; none for any other type."""
    return tuple(_each_route(body, names))


def _each_route(body: bytes, names: Mapping[int, str]) -> Iterator[KernelRoute]:
    family, prefix, src_prefix, tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    if kind != uapi.RTN_UNICAST or flags & uapi.RTM_F_CLONED or family not in _EVERYTHING:
        return
    if src_prefix or tos:
        return  # selects by more than the destination, which a `KernelRoute` cannot say
    found = netlink.attributes(body, _RTMSG.size)
    dst = _EVERYTHING[family]
    if uapi.RTA_DST in found:
        dst = ipaddress.ip_network((found[uapi.RTA_DST], prefix))
    metrics = netlink.attributes(found.get(uapi.RTA_METRICS, b""))
    for hop, hop_flags in _next_hops(found, flags):
        index = netlink.number(hop.get(uapi.RTA_OIF, b""))
        yield KernelRoute(
            dst=dst,
            gw=_gateway(hop),
            link=names.get(index) if index else None,
            src=_optional_ip(found.get(uapi.RTA_PREFSRC)),
            table=_optional(found.get(uapi.RTA_TABLE)) or table,
            scope=scope,
            priority=_optional(found.get(uapi.RTA_PRIORITY)),
            mtu_bytes=_optional(metrics.get(uapi.RTAX_MTU)),
            advmss=_optional(metrics.get(uapi.RTAX_ADVMSS)),
            protocol=protocol,
            onlink=bool(hop_flags & uapi.RTNH_F_ONLINK),
        )


def _next_hops(found: dict[int, bytes], flags: int) -> Iterator[tuple[dict[int, bytes], int]]:
    """(attributes, RTNH_F_* flags) of each next hop: one in the message itself, or several in RTA_MULTIPATH."""
    several = found.get(uapi.RTA_MULTIPATH)
    if several is None:
        yield found, flags
        return
    offset = 0
    while len(several) - offset >= _NEXTHOP.size:
        length, hop_flags, _, index = _NEXTHOP.unpack_from(several, offset)
        hop = netlink.attributes(several[offset : offset + length], _NEXTHOP.size)
        hop[uapi.RTA_OIF] = struct.pack("=i", index)
        yield hop, hop_flags
        offset += max(_NEXTHOP.size, (length + 3) & ~3)


def _gateway(hop: dict[int, bytes]) -> IPAddress | None:
    if uapi.RTA_VIA in hop:  # a gateway of the other family: 16 bits of family, then the address
        return ipaddress.ip_address(hop[uapi.RTA_VIA][2:])
    return _optional_ip(hop.get(uapi.RTA_GATEWAY))


def _optional_ip(payload: bytes | None) -> IPAddress | None:
    return ipaddress.ip_address(payload) if payload else None


def _optional(payload: bytes | None) -> int | None:
    return netlink.number(payload) if payload else None


def encode_route(route: KernelRoute, index: int | None, *, deleting: bool = False) -> bytes:
    """Pure: the body of RTM_NEWROUTE, or of RTM_DELROUTE, where what is not given matches anything."""
    scope = route.scope if route.scope is not None else (uapi.RT_SCOPE_NOWHERE if deleting else 0)
    protocol = route.protocol if route.protocol is not None else (0 if deleting else uapi.RTPROT_BOOT)
    parts = [
        _RTMSG.pack(
            _FAMILIES[route.dst.version],
            route.dst.prefixlen,
            0,
            0,
            route.table if route.table < 256 else 0,
            protocol,
            scope,
            uapi.RTN_UNICAST,
            uapi.RTNH_F_ONLINK if route.onlink and not deleting else 0,
        ),
        netlink.u32(uapi.RTA_TABLE, route.table),
    ]
    if route.dst.prefixlen:
        parts.append(netlink.attribute(uapi.RTA_DST, route.dst.network_address.packed))
    if route.gw is not None and route.gw.version == route.dst.version:
        parts.append(netlink.attribute(uapi.RTA_GATEWAY, route.gw.packed))
    elif route.gw is not None:
        via = struct.pack("=H", _FAMILIES[route.gw.version]) + route.gw.packed
        parts.append(netlink.attribute(uapi.RTA_VIA, via))
    if index is not None:
        parts.append(netlink.u32(uapi.RTA_OIF, index))
    if route.src is not None:
        parts.append(netlink.attribute(uapi.RTA_PREFSRC, route.src.packed))
    if route.priority is not None:
        parts.append(netlink.u32(uapi.RTA_PRIORITY, route.priority))
    metrics = b""
    if route.mtu_bytes is not None:
        metrics += netlink.u32(uapi.RTAX_MTU, route.mtu_bytes)
    if route.advmss is not None:
        metrics += netlink.u32(uapi.RTAX_ADVMSS, route.advmss)
    if metrics:
        parts.append(netlink.nested(uapi.RTA_METRICS, metrics))
    return b"".join(parts)


@decoder
def decode_rule(body: bytes) -> Rule | None:
    """Pure: an RTM_NEWRULE body; None for a rule that selects by more than its source or does more than look up."""
    family, dst, prefix, tos, table, _, _, action, flags = _RTMSG.unpack_from(body)
    found = netlink.attributes(body, _RTMSG.size)
    if family not in _EVERYTHING or dst or tos or flags or action != uapi.FR_ACT_TO_TBL:
        return None
    if found.get(uapi.FRA_SUPPRESS_PREFIXLEN, _NO_SUPPRESSION) != _NO_SUPPRESSION or set(found) - _HARMLESS_IN_RULE:
        return None
    src = ipaddress.ip_network((found[uapi.FRA_SRC], prefix)) if uapi.FRA_SRC in found else None
    return Rule(
        family=4 if family == socket.AF_INET else 6,
        src=src,
        table=_optional(found.get(uapi.FRA_TABLE)) or table,
        priority=netlink.number(found.get(uapi.FRA_PRIORITY, b"")),
    )


def encode_rule(rule: Rule) -> bytes:
    """Pure: the body of RTM_NEWRULE and RTM_DELRULE."""
    prefix = rule.src.prefixlen if rule.src is not None else 0
    table = rule.table if rule.table < 256 else 0
    body = _RTMSG.pack(_FAMILIES[rule.family], 0, prefix, 0, table, 0, 0, uapi.FR_ACT_TO_TBL, 0)
    body += netlink.u32(uapi.FRA_TABLE, rule.table)
    if prefix and rule.src is not None:
        body += netlink.attribute(uapi.FRA_SRC, rule.src.network_address.packed)
    if rule.priority is not None:
        body += netlink.u32(uapi.FRA_PRIORITY, rule.priority)
    return body


def _describe(route: KernelRoute, netns: str | None) -> str:
    via = f" via {route.gw}" if route.gw is not None else ""
    dev = f' dev "{route.link}"' if route.link is not None else ""
    table = f" table {route.table}" if route.table != uapi.RT_TABLE_MAIN else ""
    return f"{route.dst}{via}{dev}{table}{place(netns)}"


def _as_added(route: KernelRoute) -> KernelRoute:
    """With what the kernel filled in, so that deleting it takes no other route that is like it."""
    priority = _IP6_RT_PRIO_USER if route.priority is None and route.dst.version == 6 else route.priority
    scope = 0 if route.scope is None else route.scope
    protocol = uapi.RTPROT_BOOT if route.protocol is None else route.protocol
    return msgspec.structs.replace(route, priority=priority, scope=scope, protocol=protocol)


class Routing(Operating):
    """The route and rule verbs of `ports.Host`."""

    def routes(
        self,
        netns: str | None = None,
        *,
        family: Family | None = None,
        table: int | None = uapi.RT_TABLE_MAIN,
        link: str | None = None,
    ) -> tuple[KernelRoute, ...]:
        """A `link` that is not there has no routes."""
        with self.netlink(netns) as sock:
            wanted = b"" if table is None else netlink.u32(uapi.RTA_TABLE, table)
            if link is not None:
                try:
                    wanted += netlink.u32(uapi.RTA_OIF, required_index(sock, link))
                except MissingLink:
                    return ()
            versions = (family,) if family else tuple(_FAMILIES)
            bodies = [body for version in versions for body in _dump_routes(sock, version, wanted, netns)]
            names = _names(sock, bodies)
        listed = [route for body in bodies for route in decode_routes(body, names)]
        in_table = [route for route in listed if table is None or route.table == table]
        return tuple(route for route in in_table if link is None or route.link == link)

    def add_route(self, route: KernelRoute, netns: str | None = None, *, replace: bool = False) -> None:
        with self.netlink(netns) as sock:
            index = None if route.link is None else required_index(sock, route.link)
            replaced = self._replaceable(route, netns) if replace and self._operations.recording else None
            flags = uapi.NLM_F_CREATE | (uapi.NLM_F_REPLACE if replace else 0)
            try:
                sock.change(uapi.RTM_NEWROUTE, encode_route(route, index), flags)
            except Refused as refusal:
                action = f"add route {_describe(route, netns)}"
                raise errors.refused(action, refusal.errno, refusal.text) from refusal
        if replaced is not None:
            self._operations.record(lambda: self.add_route(replaced, netns, replace=True))
        else:
            self._operations.record(lambda: self.delete_route(_as_added(route), netns))

    def _replaceable(self, route: KernelRoute, netns: str | None) -> KernelRoute | None:
        """What NLM_F_REPLACE would take away: the first of the same destination and priority."""
        family: Family = 4 if route.dst.version == 4 else 6
        priority = route.priority or (_IP6_RT_PRIO_USER if family == 6 else None)
        for found in self.routes(netns, family=family, table=route.table):
            if found.dst == route.dst and (found.priority or None) == priority:
                return found
        return None

    def delete_route(self, route: KernelRoute, netns: str | None = None) -> None:
        """A missing route is success, and so is one whose link is gone."""
        with self.netlink(netns) as sock:
            try:
                index = None if route.link is None else required_index(sock, route.link)
                echoed = sock.change(uapi.RTM_DELROUTE, encode_route(route, index, deleting=True), self._echo())
            except MissingLink:
                return
            except Refused as refusal:
                if refusal.errno in (errno.ESRCH, errno.ENOENT, errno.ENODEV):
                    return
                action = f"delete route {_describe(route, netns)}"
                raise errors.refused(action, refusal.errno, refusal.text) from refusal
        self._operations.record(lambda: self._bring_back_routes(echoed, netns))

    def _bring_back_routes(self, bodies: Sequence[bytes], netns: str | None) -> None:
        with self.netlink(netns) as sock:
            names = _names(sock, bodies)
        for body in bodies:
            for route in decode_routes(body, names):
                self.add_route(route, netns)

    def _echo(self) -> int:
        """Asks to be told what was deleted, where that is needed to bring it back."""
        return uapi.NLM_F_ECHO if self._operations.recording else 0

    def rules(self, netns: str | None = None, *, family: Family | None = None) -> tuple[Rule, ...]:
        """Rules that select by source alone, or by nothing; others are left out, as they are not `Rule`s."""
        listed = []
        with self.netlink(netns) as sock:
            for version in (family,) if family else _FAMILIES:
                bodies = _dump_rules(sock, version, netns)
                listed += [rule for rule in map(decode_rule, bodies) if rule is not None]
        return tuple(listed)

    def tables_in_use(self, netns: str | None = None) -> frozenset[int]:
        found: set[int] = set()
        with self.netlink(netns) as sock:
            for version in _FAMILIES:
                found.update(_table(body, uapi.RTA_TABLE) for body in _dump_routes(sock, version, b"", netns))
                found.update(_table(body, uapi.FRA_TABLE) for body in _dump_rules(sock, version, netns))
        return frozenset(found)

    def add_rule(self, rule: Rule, netns: str | None = None) -> None:
        with self.netlink(netns) as sock:
            try:
                flags = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL | self._echo()
                echoed = sock.change(uapi.RTM_NEWRULE, encode_rule(rule), flags)
            except Refused as refusal:
                action = f"add rule {_describe_rule(rule, netns)}"
                raise errors.refused(action, refusal.errno, refusal.text) from refusal
        self._operations.record(lambda: self._each_rule(self.delete_rule, echoed, netns))

    def delete_rule(self, rule: Rule, netns: str | None = None) -> None:
        """Removes the first rule that matches; a missing one is success."""
        with self.netlink(netns) as sock:
            try:
                echoed = sock.change(uapi.RTM_DELRULE, encode_rule(rule), self._echo())
            except Refused as refusal:
                if refusal.errno in (errno.ENOENT, errno.ESRCH):
                    return
                action = f"delete rule {_describe_rule(rule, netns)}"
                raise errors.refused(action, refusal.errno, refusal.text) from refusal
        self._operations.record(lambda: self._each_rule(self.add_rule, echoed, netns))

    def _each_rule(self, verb: Callable[[Rule, str | None], None], bodies: Sequence[bytes], netns: str | None) -> None:
        """What the kernel echoed has the priority it chose. Decoded when it comes to undoing, which is seldom."""
        for rule in filter(None, map(decode_rule, bodies)):
            verb(rule, netns)


def _describe_rule(rule: Rule, netns: str | None) -> str:
    priority = "" if rule.priority is None else f" priority {rule.priority}"
    return f"IPv{rule.family} from {rule.src or 'all'} lookup {rule.table}{priority}{place(netns)}"


def _dump_routes(sock: NetlinkSocket, family: Family, wanted: bytes, netns: str | None) -> list[bytes]:
    try:
        return sock.dump(uapi.RTM_GETROUTE, _RTMSG.pack(_FAMILIES[family], 0, 0, 0, 0, 0, 0, 0, 0) + wanted)
    except Refused as refusal:
        if refusal.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):  # ENOENT: no such table yet
            return []
        raise errors.refused(f"list IPv{family} routes{place(netns)}", refusal.errno, refusal.text) from refusal


def _dump_rules(sock: NetlinkSocket, family: Family, netns: str | None) -> list[bytes]:
    try:
        return sock.dump(uapi.RTM_GETRULE, _RTMSG.pack(_FAMILIES[family], 0, 0, 0, 0, 0, 0, 0, 0))
    except Refused as refusal:
        if refusal.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):  # no such family in this kernel
            return []
        raise errors.refused(f"list IPv{family} rules{place(netns)}", refusal.errno, refusal.text) from refusal


def _table(body: bytes, attribute: int) -> int:
    """The table of a route or a rule; the header has room for the first 255 only."""
    return _optional(netlink.attributes(body, _RTMSG.size).get(attribute)) or _RTMSG.unpack_from(body)[4]


def _names(sock: NetlinkSocket, bodies: Iterable[bytes]) -> dict[int, str]:
    """The names of the links that route messages mention."""
    names = {index: name for name, index in sock.indexes.items()}
    for body in bodies:
        for hop, _ in _next_hops(netlink.attributes(body, _RTMSG.size), 0):
            index = netlink.number(hop.get(uapi.RTA_OIF, b""))
            if index and index not in names:
                link = find(sock, index=index)
                if link is not None:  # else it vanished since, and its routes with it
                    names[index] = link_name(link)
    return names
