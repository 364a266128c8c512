"""The lab's wires: a namespace for each node, and for each master name one LAN that all nodes share. I/O: the kernel.

A LAN is a bridge in a namespace of its own; a node's `eth1` is one end of a veth pair, the other a port of that bridge.
Everything here looks first and makes what is missing, so it may be repeated after being killed anywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from homeport.lab.objects import Network, NodeObject
from homeport.lab.places import Places
from homeport.ports import Host

DEFAULT_MASTER = "eth1"


def masters(networks: Iterable[Network]) -> tuple[str, ...]:
    """Every interface of the nodes that some network names as its master, and `eth1`. Pure.

    A configuration that cannot be read names none here: the pod that wants it will say what is wrong with it.
    """
    found = {DEFAULT_MASTER}
    for network in networks:
        try:
            config = msgspec.json.decode(network.config)
        except msgspec.DecodeError:
            continue
        found.update(_masters_of(config))
    return tuple(sorted(found))


def _masters_of(config: Any) -> Iterable[str]:
    match config:
        case {"plugins": list() as plugins}:
            for plugin in plugins:
                yield from _masters_of(plugin)
        case {"linkInContainer": True}:
            return
        case {"type": "ipvlan" | "macvlan", "master": str() as master} if 1 <= len(master) <= 15:
            yield master


def build(host: Host, places: Places, nodes: Iterable[NodeObject], links: Iterable[str]) -> None:
    """Makes what is missing of the LANs and of every node that has power, and sets each port as its node is reached."""
    _ensure_namespace(host, places.lan_netns)
    present = {link.name: link for link in host.links(places.lan_netns)}
    for name in links:
        if _bridge(name) not in present:
            host.create_bridge(_bridge(name), netns=places.lan_netns)
        host.set_link(_bridge(name), places.lan_netns, up=True)
    for node in nodes:
        if not node.killed:
            _build_node(host, places, node, links)


def _build_node(host: Host, places: Places, node: NodeObject, links: Iterable[str]) -> None:
    netns = places.node_netns(node.name)
    if _ensure_namespace(host, netns):
        host.set_link("lo", netns, up=True)
    present = {link.name for link in host.links(netns)}
    for name in links:
        port = _port(node.name, name)
        if name not in present:
            host.delete_links([port], places.lan_netns)  # of a node that lost power, or of a build that was killed
            host.create_veth(name, netns=netns, peer=port, peer_netns=places.lan_netns)
            host.set_link(name, netns, up=True)
        host.set_link(port, places.lan_netns, master=_bridge(name), up=node.answering or not node.partitioned)


def power_off(host: Host, places: Places, node: str, pods: Iterable[str], links: Iterable[str]) -> None:
    """Ends the node and the pods at the namespace paths `pods` at once, with no goodbye."""
    host.delete_links([_port(node, name) for name in links], places.lan_netns)
    for netns in (*pods, places.node_netns(node)):
        host.delete_namespace(netns)


def _ensure_namespace(host: Host, path: str) -> bool:
    """Whether it had to be made."""
    if host.namespace_exists(path):
        return False
    host.create_namespace(path)
    return True


def _bridge(master: str) -> str:
    return f"b{_short(master)}"


def _port(node: str, master: str) -> str:
    return f"p{_short(f'{node}/{master}')}"


def _short(text: str) -> str:
    """Link names have 15 bytes; masters and nodes together may have more."""
    return f"{zlib.crc32(text.encode()):08x}"


def substituted(config: Mapping[str, Any], substitutes: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with plugin types replaced, for kernels that lack one. Pure.

    Of a replaced plugin the keys that only mean something to its old type are dropped.
    """
    if isinstance(config.get("plugins"), list):
        return {**config, "plugins": [substituted(p, substitutes) for p in config["plugins"]]}
    kind = config.get("type")
    if not isinstance(kind, str) or kind not in substitutes:
        return dict(config)
    return {**{k: v for k, v in config.items() if k != "mode"}, "type": substitutes[kind]}
