"""Which interface of a pod has its default route: the key `default-route` of network selections. No I/O.

NPWG multi-network specification v1.3 §4.1.2.1.9, over several networks as Multus does it: there is at most one gateway
of each family in the whole pod. As soon as one network has the key, no other keeps a default route of its own; a
network with an empty list keeps the routes its plugins made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network

import msgspec

from homeport.model.addresses import IPAddress
from homeport.model.errors import InvalidNetConf
from homeport.model.results import Result, Route

Asked = tuple[IPAddress, ...] | None
"""What one network's selection says: None without the key, empty for "as its plugins made it"."""

_BOTH = frozenset({4, 6})
_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one interface's default routes: those of the families `drops` go, then the gateways come."""

    drops: frozenset[int] = frozenset()
    gateways: tuple[IPAddress, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.drops or self.gateways)


def plan(networks: Sequence[tuple[str, Asked]]) -> tuple[frozenset[int], ...]:
    """The families (4, 6) whose default route each network's interface must not have, as another one provides it.

    `networks` are all of the pod, each with the name that messages call it. Raises `InvalidNetConf` for two gateways
    of one family.
    """
    gateways = [(name, gateway) for name, asked in networks for gateway in asked or ()]
    for family in sorted(_BOTH):
        given = [f'{gateway} of "{name}"' for name, gateway in gateways if gateway.version == family]
        if len(given) > 1:
            raise InvalidNetConf(
                f'key "default-route": found {" and ".join(given)}, expected one IPv{family} gateway at most in a pod'
            )
    if all(asked is None for _, asked in networks):
        return (frozenset(),) * len(networks)
    return tuple(_dropped(asked) for _, asked in networks)


def change(drops: Iterable[int], asked: Asked) -> Change:
    """`drops` as `plan` gave it for this network. A gateway asked for replaces what the plugins made of its family."""
    gateways = asked or ()
    return Change(drops=frozenset(drops) | {gateway.version for gateway in gateways}, gateways=gateways)


def changed(result: Result, change: Change) -> Result:
    """The result of a network whose interface went through `change`: for the cache, and for status."""
    kept = [r for r in result.routes if r.dst.prefixlen > 0 or r.dst.version not in change.drops]
    added = [Route(dst=_EVERYWHERE[gateway.version], gw=gateway) for gateway in change.gateways]
    return msgspec.structs.replace(result, routes=(*kept, *added))


def _dropped(asked: Asked) -> frozenset[int]:
    if asked == ():
        return frozenset()
    return _BOTH - {gateway.version for gateway in asked or ()}
