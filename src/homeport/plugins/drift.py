"""CHECK's comparisons: what ADD made against what is there. Each raises `Drift` with expected and found.

All but `require_namespace` are without I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.addresses import IPInterface
from homeport.model.errors import Drift, InvalidNetConf
from homeport.model.results import Interface, Result
from homeport.plugins.interfaces import MAIN_TABLE, is_gone
from homeport.ports import Host, KernelRoute, Link, LinkAddress


def require_prev_result(conf: NetConf) -> Result:
    """CNI SPEC 1.1.0 §2 CHECK: the result of ADD comes as prevResult."""
    if conf.prev_result is None:
        raise InvalidNetConf('key "prevResult": missing, expected the result of ADD')
    return conf.prev_result


def require_namespace(host: Host, ifname: str, netns: str) -> None:
    """The container's namespace is still there."""
    if is_gone(host, netns):
        raise Drift(f'check "{ifname}": found no network namespace at {netns}, expected the container\'s')


def made_interface(prev_result: Result, attachment: Attachment) -> Interface:
    """The entry of this attachment's interface in the result of ADD."""
    for interface in prev_result.interfaces:
        if interface.name == attachment.ifname and interface.sandbox == attachment.netns_path:
            return interface
    found = [f"{i.name} in {i.sandbox or 'the host'}" for i in prev_result.interfaces]
    raise Drift(
        f'check "{attachment.ifname}" in {attachment.netns_path}: prevResult has {found}, '
        "expected an entry for that interface in that namespace"
    )


def own_part(result: Result, made: Interface) -> Result:
    """The addresses of that interface alone, with all routes; the addresses of others in the chain left out."""
    own = result.interfaces.index(made)
    return msgspec.structs.replace(result, ips=tuple(ip for ip in result.ips if ip.interface == own))


def compare_link(found: Link | None, made: Interface, *, kind: str, mode: str, netns: str) -> Link:
    """The link is there, of that kind and mode, up, and has the MAC address that ADD reported."""
    where = f'check "{made.name}" in {netns}'
    if found is None:
        raise Drift(f"{where}: no such interface, expected a {kind} link")
    if found.kind != kind:
        raise Drift(f"{where}: found kind {found.kind or 'physical'}, expected {kind}")
    if found.mode != mode:
        raise Drift(f"{where}: found mode {found.mode}, expected {mode}")
    if made.mac and (found.mac or "") != made.mac.lower():
        raise Drift(f"{where}: found MAC address {found.mac}, expected {made.mac}")
    if not found.up:
        raise Drift(f"{where}: found it down, expected up")
    return found


def compare_addresses(
    found: Iterable[LinkAddress], expected: Iterable[IPInterface], *, ifname: str, netns: str
) -> None:
    """Every expected address is there with its prefix and passed duplicate detection; others do not matter."""
    there = {a.address: a for a in found}
    for address in expected:
        if address not in there:
            shown = ", ".join(str(a) for a in there) or "none"
            raise Drift(f'check "{ifname}" in {netns}: found addresses {shown}, expected {address} among them')
        if there[address].failed:
            raise Drift(
                f'check "{ifname}" in {netns}: address {address} failed duplicate detection, expected it in use'
            )


def compare_routes(found: Sequence[KernelRoute], expected: Iterable[KernelRoute], *, ifname: str, netns: str) -> None:
    """Every expected route is there, leading out of the interface; `found` are the interface's routes of all tables.

    A route of the main table may stand in any table, since a chained sbr moves it. Of a default route only the
    presence counts, since sbr may give it another gateway.
    """
    for route in expected:
        if not any(_is(there, route) for there in found):
            via = f" via {route.gw}" if route.gw else ""
            raise Drift(f'check "{ifname}" in {netns}: found no route to {route.dst}{via}, expected one')


def _is(there: KernelRoute, expected: KernelRoute) -> bool:
    if there.dst != expected.dst or expected.table not in (MAIN_TABLE, there.table):
        return False
    return expected.dst.prefixlen == 0 or there.gw == expected.gw
