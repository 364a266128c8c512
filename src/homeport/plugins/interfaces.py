"""Putting a result on an interface: what every plugin that makes one does after IPAM answered.

`plan` decides and is pure; `configure` acts through `Host`. What goes where follows the reference plugins'
ConfigureIface, except that a route's mtu and advmss are honoured (CNI SPEC 1.1.0 §5) and addresses are announced.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import msgspec

from homeport.cni.invocations import Attachment
from homeport.model.addresses import Family, IPAddress, IPInterface
from homeport.model.errors import CniError, InvalidNetConf, InvalidNetns, KernelRefused
from homeport.model.results import IPConfig, Result, Route
from homeport.ports import Host, KernelRoute

MAIN_TABLE = 254
_UNSPECIFIED_TABLE = 0  # the kernel reads it as the main table
_LINK_SCOPE = 253  # rtnetlink(7): a destination on the link itself, so without a gateway
_DAD_TIMEOUT_SECONDS = 5.0


class Addressing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be put on one interface, each in the order it is added.

    `await_dad`: an IPv6 gateway only takes routes once the addresses are no longer tentative.
    """

    addresses: tuple[IPInterface, ...] = ()
    routes: tuple[KernelRoute, ...] = ()
    await_dad: bool = False

    @property
    def has_ipv6(self) -> bool:
        """Whether the interface needs IPv6 switched on."""
        return any(a.version == 6 for a in self.addresses)


def namespace(attachment: Attachment) -> str:
    """The container's namespace, without which ADD and CHECK have nothing to work on."""
    if attachment.netns_path is None:
        raise InvalidNetns("CNI_NETNS: missing, expected the path of the container's network namespace")
    return attachment.netns_path


def is_gone(host: Host, netns: str) -> bool:
    """Whether no network namespace is at the path, which a file left behind by a lifted pin proves as well."""
    try:
        return not host.namespace_exists(netns)
    except InvalidNetns:
        return True


def plan(result: Result, ifname: str) -> Addressing:
    """What `result` says about the interface called `ifname`.

    Addresses without an interface index are not ours to put anywhere; one whose index leads elsewhere is an error.
    A route without a gateway takes the first gateway of its family, unless its scope says it needs none.
    """
    own = [ip for position, ip in enumerate(result.ips) if _is_for(ip, position, result, ifname)]
    gateways: dict[Family, IPAddress] = {}
    for ip in own:
        if ip.gateway is not None:
            gateways.setdefault(ip.gateway.version, ip.gateway)
    return Addressing(
        addresses=tuple(ip.address for ip in own),
        routes=tuple(_kernel_route(route, ifname, gateways.get(route.dst.version)) for route in result.routes),
        await_dad=6 in gateways,
    )


def configure(
    host: Host, ifname: str, netns: str, result: Result, *, duplicate_detection: bool = True, announce: bool = True
) -> None:
    """Puts the addresses and routes of `result` on the interface and sets it up, then announces the addresses (R9)."""
    wanted = plan(result, ifname)
    _notify_by_itself(host, ifname, netns)
    if wanted.has_ipv6:
        _enable_ipv6(host, ifname, netns)
    for address in wanted.addresses:
        host.add_address(ifname, address, netns, duplicate_detection=duplicate_detection)
    host.set_link(ifname, netns, up=True)
    settled = not duplicate_detection or (wanted.await_dad and _await_dad(host, ifname, netns))
    for route in wanted.routes:
        host.add_route(route, netns)
    if announce:
        _announce(host, ifname, netns, [a.ip for a in wanted.addresses if a.version == 4 or settled])


def _is_for(ip: IPConfig, position: int, result: Result, ifname: str) -> bool:
    if ip.interface is None:
        return False
    if ip.interface >= len(result.interfaces) or result.interfaces[ip.interface].name != ifname:
        names = [i.name for i in result.interfaces]
        raise InvalidNetConf(
            f'configure "{ifname}": ips[{position}] {ip.address} has interface index {ip.interface}, '
            f'expected the one of "{ifname}" in {names}'
        )
    return True


def _kernel_route(route: Route, ifname: str, gateway: IPAddress | None) -> KernelRoute:
    needs_gateway = route.gw is None and (route.scope is None or route.scope < _LINK_SCOPE)
    return KernelRoute(
        dst=route.dst,
        gw=gateway if needs_gateway else route.gw,
        link=ifname,
        table=MAIN_TABLE if route.table in (None, _UNSPECIFIED_TABLE) else route.table,
        scope=route.scope,
        priority=route.priority,
        mtu_bytes=route.mtu_bytes,
        advmss=route.advmss,
    )


def _notify_by_itself(host: Host, ifname: str, netns: str) -> None:
    """Asks the kernel to tell the neighbours of later changes too; a read-only /proc/sys is no reason to fail."""
    for key in (f"net/ipv4/conf/{ifname}/arp_notify", f"net/ipv6/conf/{ifname}/ndisc_notify"):
        with suppress(CniError):
            host.write_sysctl(key, "1", netns)


def _enable_ipv6(host: Host, ifname: str, netns: str) -> None:
    """Runtimes start containers with IPv6 off; without the sysctl the kernel has no IPv6 and says so itself."""
    for name in ("lo", ifname):
        key = f"net/ipv6/conf/{name}/disable_ipv6"
        if host.read_sysctl(key, netns) not in (None, "0"):
            host.write_sysctl(key, "0", netns)
    keep = f"net/ipv6/conf/{ifname}/keep_addr_on_down"
    if host.read_sysctl(keep, netns) is not None:
        host.write_sysctl(keep, "1", netns)


def _await_dad(host: Host, ifname: str, netns: str) -> bool:
    """Whether detection ended in time; without a carrier it does not begin. A duplicate raises `KernelRefused`."""
    try:
        host.wait_for_addresses(ifname, netns, timeout_seconds=_DAD_TIMEOUT_SECONDS)
    except KernelRefused as e:
        if not e.details.startswith("ETIMEDOUT"):
            raise
        return False
    return True


def _announce(host: Host, ifname: str, netns: str, settled: Iterable[IPAddress]) -> None:
    """R9. A tentative address may not be announced (RFC 4862 §5.4); ndisc_notify does it when detection is over."""
    for address in settled:
        # Refused without a carrier below: nobody could hear it, and arp_notify repeats it when the link comes up.
        with suppress(KernelRefused):
            host.announce(ifname, address, netns)
