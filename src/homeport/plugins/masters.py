"""Which link an attachment stands on. Reads through `Host`; the choice itself is pure.

The `master` key of macvlan and ipvlan: a name, or nothing for the interface of the default route.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeport.model.errors import InvalidNetConf, MissingLink
from homeport.model.results import Result
from homeport.ports import Host, KernelRoute, Link


def find(host: Host, name: str, *, netns: str | None) -> Link:
    """The master called `name`, or with "" the one the default route leads through. Raises `MissingLink`."""
    wanted = name or default_route_link(host.routes(netns))
    if wanted is None:
        raise MissingLink(
            f"choose a master {place(netns)}: found no default route in the main table; "
            'name the interface with the key "master"'
        )
    link = host.link(wanted, netns)
    if link is None:
        raise MissingLink(f'find master "{wanted}" {place(netns)}: no such interface')
    return link


def default_route_link(routes: Iterable[KernelRoute]) -> str | None:
    """The interface of the first default route in the kernel's order, IPv4 before IPv6; None without one."""
    defaults = [r for r in routes if r.dst.prefixlen == 0 and r.link]
    return min(defaults, key=lambda r: r.dst.version).link if defaults else None


def chained_master(prev_result: Result) -> str:
    """The only interface of prevResult: what a chained ipvlan without `master` stands on."""
    named = [i.name for i in prev_result.interfaces]
    if len(named) != 1 or not named[0]:
        raise InvalidNetConf(
            f'key "prevResult.interfaces": found {named}, expected one named interface to take as master; '
            'name it with the key "master"'
        )
    return named[0]


def check_mtu(mtu_bytes: int, master: Link) -> None:
    """0 leaves the choice to the kernel; else the link may not carry more than its master."""
    if not 0 <= mtu_bytes <= master.mtu_bytes:
        raise InvalidNetConf(
            f'key "mtu": found {mtu_bytes}, expected 0 to {master.mtu_bytes}, the mtu of master "{master.name}"'
        )


def place(netns: str | None) -> str:
    """Where, for an error message."""
    return f"in {netns}" if netns else "on the host"
