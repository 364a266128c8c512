"""Whether some plugin of a network can do what a pod asks of it. No I/O.

NPWG multi-network specification v1.3 §4.1.2.1: a request for which no plugin declares the capability must fail.
Clusters rely on one more way: `ips` and `mac` are also sent in CNI_ARGS, where some plugins read them without declaring
anything. So a request counts as honoured when

- a plugin of the network declares the capability (`"capabilities": {"ips": true}`), or
- it is `ips` or `mac`, and a plugin of the network or its IPAM plugin is one of those known to read it elsewhere.

A plugin that nobody here knows has to declare what it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeport.cni.conflists import ConfList
from homeport.model.errors import InvalidNetConf
from homeport.multinet import selections
from homeport.multinet.selections import NetworkSelection

_READING_ANNOTATION = frozenset({"kube-ovn", "ovn-k8s-cni-overlay"})
"""Plugins whose controllers read the pod's network selections themselves."""

READING_IP = frozenset({"host-local", "static", "whereabouts"}) | _READING_ANNOTATION
"""Plugins that take `ips` without declaring it, most of them from `IP` in CNI_ARGS."""

READING_MAC = (
    frozenset({"bridge", "macvlan", "tap", "tuning"})
    | frozenset({"accelerated-bridge", "cnv-bridge", "cnv-tuning", "macvtap", "ovs", "sriov"})
    | _READING_ANNOTATION
)
"""Plugins that take `mac` without declaring it, most of them from `MAC` in CNI_ARGS."""

_READING: Mapping[str, frozenset[str]] = {"ips": READING_IP, "mac": READING_MAC}
CLAIM_REFERENCE = "ipam-claim-reference"

READING_CLAIMS = frozenset({"whereabouts"}) | _READING_ANNOTATION
"""Plugins that hand out an IPAMClaim's addresses."""

_SELECTION_KEYS = {"infinibandGUID": "infiniband-guid"}  # where the annotation calls it otherwise


def unhonoured(network: ConfList, selection: NetworkSelection) -> tuple[str, ...]:
    """The selection's requests that no plugin of the network can honour, under the names of capabilities."""
    types = _types(network)
    return tuple(
        capability
        for capability in selections.capability_args(selection)
        if not any(_declares(plugin, capability) for plugin in network.plugins)
        and types.isdisjoint(_READING.get(capability, frozenset()))
    )


def require_honoured(name: str, network: ConfList, selection: NetworkSelection) -> None:
    """Raises `InvalidNetConf` that names the network, the requests, and what its plugins would have to declare."""
    if selection.ipam_claim is not None and _types(network).isdisjoint(READING_CLAIMS):
        raise InvalidNetConf(
            f'attach network "{name}": found a request for "{CLAIM_REFERENCE}", expected an IPAM plugin of it that '
            f"reads claims: {', '.join(sorted(READING_CLAIMS))}"
        )
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


def _types(network: ConfList) -> set[str]:
    """Of the plugins and of their IPAM plugins."""
    ipam = [plugin.get("ipam") for plugin in network.plugins]
    return {str(section.get("type")) for section in (*network.plugins, *ipam) if isinstance(section, Mapping)}
