"""Rules about who has the gateway's address. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from homeport.lint.findings import Found, Severity
from homeport.lint.manifests import Network
from homeport.lint.nodes import Node
from homeport.lint.pools import pools
from homeport.lint.rules.checks import network_rule

_IS_GATEWAY = ("isGateway", "isDefaultGateway")


@network_rule("bridge-gateway", Severity.ERROR)
def bridge_gateway(network: Network) -> Iterator[Found]:
    """A bridge is to be the gateway, and its address is one that whereabouts gives to a pod.

    Where `ipam` names no `gateway`, the bridge takes the first address of the subnet. host-local keeps it free;
    whereabouts does not, and the pod that gets it does not start, or shares its address with the bridge.
    """
    flag = _flag(network)
    if flag is None:
        return
    for pool in pools(network):
        whole = pool.parsed()
        if pool.ipam != "whereabouts" or whole is None or whole.gateway is not None:
            continue
        first = whole.subnet.network_address + 1
        if whole.subnet.num_addresses >= 4 and first in whole:
            yield network.found(
                flag.span, f"the bridge takes {first}, which the range hands out", 'expected a "gateway" in ipam'
            )


def _flag(network: Network) -> Node | None:
    """What makes a bridge of the network its gateway; None where a file of the nodes may name another."""
    for plugin in network.plugins:
        ipam = plugin.get("ipam")
        if plugin.text("type") != "bridge" or ipam is None or ipam.get("configuration_path") is not None:
            continue
        flags = (plugin.get(key) for key in _IS_GATEWAY)
        return next((flag for flag in flags if flag is not None and flag.value is True), None)
    return None
