"""Whether some plugin of a network can do what a pod asks of it. No I/O.

NPWG multi-network specification v1.3 §4.1.2.1: a request for which no plugin declares the capability must fail.
Clusters rely on one more way: `ips` and `mac` are also sent in CNI_ARGS, where some plugins read them without declaring
anything. So a request is taken as honoured when

- a plugin of the network declares the capability (`"capabilities": {"ips": true}`), or
- it is `ips`, and the network's IPAM plugin reads `IP` from CNI_ARGS, or
- it is `mac`, and a plugin reads `MAC` from CNI_ARGS, or
- it is one of the two, and the network has a plugin which is none of the known ones: it may read CNI_ARGS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeport.cni.conflists import ConfList
from homeport.model.errors import InvalidNetConf
from homeport.multinet import selections
from homeport.multinet.selections import NetworkSelection

READING_IP = frozenset({"host-local", "static", "whereabouts"})
"""IPAM plugins that read `IP` from CNI_ARGS."""

READING_MAC = frozenset({"bridge", "macvlan", "tap", "tuning"})
"""Plugins that read `MAC` from CNI_ARGS."""

_READING_NEITHER = frozenset(
    {
        *("bandwidth", "dhcp", "dummy", "firewall", "host-device", "ipvlan", "loopback", "passthru", "portmap"),
        *("ptp", "sbr", "vlan", "vrf"),
    }
)
_KNOWN = READING_IP | READING_MAC | _READING_NEITHER
_SELECTION_KEYS = {"infinibandGUID": "infiniband-guid"}  # where the annotation calls it otherwise


def unhonoured(network: ConfList, selection: NetworkSelection) -> tuple[str, ...]:
    """The selection's requests that no plugin of the network can honour, under the names of capabilities."""
    return tuple(
        capability
        for capability in selections.capability_args(selection)
        if not any(_declares(plugin, capability) for plugin in network.plugins)
        and not _reads_from_args(network, capability)
    )


def require_honoured(name: str, network: ConfList, selection: NetworkSelection) -> None:
    """Raises `InvalidNetConf` that names the network, the requests, and what its plugins would have to declare."""
    missing = unhonoured(network, selection)
    if not missing:
        return
    asked = ", ".join(f'"{_SELECTION_KEYS.get(capability, capability)}"' for capability in missing)
    needed = ", ".join(f'"{capability}": true' for capability in missing)
    types = ", ".join(str(plugin.get("type")) for plugin in network.plugins)
    raise InvalidNetConf(
        f'attach network "{name}": found a request for {asked}, '
        f'expected a plugin of it to declare "capabilities": {{{needed}}}',
        f"its plugins are {types}; unhonouredRequests: Ignore in Homeport's configuration drops such requests",
    )


def _declares(plugin: Mapping[str, Any], capability: str) -> bool:
    declared = plugin.get("capabilities")
    return isinstance(declared, dict) and declared.get(capability) is True


def _reads_from_args(network: ConfList, capability: str) -> bool:
    reading = {"ips": READING_IP, "mac": READING_MAC}.get(capability, frozenset())
    if not reading:
        return False
    types = {plugin.get("type") for plugin in network.plugins}
    types |= {ipam.get("type") for plugin in network.plugins if isinstance(ipam := plugin.get("ipam"), dict)}
    return any(kind in reading or kind not in _KNOWN for kind in types if kind)
