"""The pod's default routes: taken from the interfaces that must not have one, given to the one that asked for it.

What is to become of each interface is decided in `multinet.default_routes`. Acts on the kernel through the host port,
inside an operation of the caller's: when that fails, every route comes back.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import cast

from homeport.model.addresses import Family
from homeport.model.results import Result
from homeport.multinet import default_routes
from homeport.multinet.default_routes import Change
from homeport.multinet.delegates import Delegate
from homeport.ports import Host, KernelRoute

_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def change_of(delegate: Delegate) -> Change:
    """What becomes of the interface's default routes; false when nothing does."""
    asked = delegate.selection.default_route if delegate.selection is not None else None
    return default_routes.change(delegate.drops_default_routes, asked)


def apply(host: Host, netns: str, delegate: Delegate, result: Result) -> Result:
    """Gives the interface the default routes it is to have; the result that says so.

    One that has neither an interface nor an address is left as it is: no route could lead there.
    """
    change = change_of(delegate)
    if not change or not (result.interfaces or result.ips):
        return result
    for family in sorted(change.drops):
        for route in host.routes(netns, family=cast(Family, family), link=delegate.ifname):
            if route.dst.prefixlen == 0:
                host.delete_route(route, netns)
    for gateway in change.gateways:
        host.add_route(KernelRoute(dst=_EVERYWHERE[gateway.version], gw=gateway, link=delegate.ifname), netns)
    return default_routes.changed(result, change)
