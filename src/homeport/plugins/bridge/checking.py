"""CHECK of a bridge attachment: is the kernel still as ADD left it? Reads only; every difference raises `Drift`."""

from __future__ import annotations

from homeport.cni.invocations import Attachment
from homeport.model.addresses import Family
from homeport.model.errors import Drift
from homeport.model.results import Interface, Result
from homeport.plugins import drift, interfaces
from homeport.plugins.bridge import bridging, gateways
from homeport.plugins.bridge.netconfs import BridgeConf
from homeport.ports import BridgeVlan, Host, Link


def check_bridge(host: Host, conf: BridgeConf) -> Link:
    """The bridge of the configuration: up, promiscuous and filtering VLANs where asked.

    Its MAC is no matter: unless somebody set it, it changes with the ports that come and go.
    """
    where = f'bridge "{conf.bridge}"'
    bridge = host.link(conf.bridge)
    if bridge is None:
        raise _drift(where, "the bridge", "no link of that name")
    _require(where, "a bridge", bridge.kind == "bridge", bridge.kind or "a physical link")
    _require(where, "up", bridge.up, "down")
    _require(where, "promiscuous", bridge.promisc or not conf.promisc, "not promiscuous")
    _require(where, "VLAN filtering", bridge.vlan_filtering or not conf.vlan_filtering, "none")
    return bridge


def check_container(host: Host, conf: BridgeConf, attachment: Attachment, recorded: Result) -> Link:
    """The container's interface with its addresses and routes; down where it was asked to be down."""
    netns = interfaces.namespace(attachment)
    made = drift.made_interface(recorded, attachment)
    where = f'interface "{made.name}" in {netns}'
    container = None if interfaces.is_gone(host, netns) else host.link(made.name, netns)
    if container is None:
        raise _drift(where, "the interface", "no link of that name")
    _require(where, "a veth", container.kind == "veth", container.kind or "a physical link")
    _require(where, "up", container.up or not conf.container_up, "down")
    if conf.mtu_bytes is not None:
        _require(where, f"MTU {conf.mtu_bytes}", container.mtu_bytes == conf.mtu_bytes, container.mtu_bytes)
    _check_mac(where, container, made)
    if conf.has_ipam:
        planned = interfaces.plan(drift.own_part(recorded, made), made.name)
        drift.compare_addresses(host.addresses(made.name, netns), planned.addresses, ifname=made.name, netns=netns)
        drift.compare_routes(
            host.routes(netns, table=None, link=made.name), planned.routes, ifname=made.name, netns=netns
        )
    return container


def check_port(host: Host, conf: BridgeConf, bridge: Link, container: Link, recorded: Result) -> Link:
    """The container's other end: a recorded port of the bridge, in the right VLANs."""
    port = None if container.parent is None else host.link_by_index(container.parent)
    where = f'bridge "{bridge.name}"'
    entry = None if port is None else _recorded(recorded, port.name, None)
    if port is None or entry is None or port.parent != container.index:
        names = ", ".join(i.name for i in recorded.interfaces if not i.sandbox and i.name != bridge.name)
        raise _drift(where, f'a port {names or "of prevResult"} whose peer is "{container.name}"', "none")
    where = f'bridge port "{port.name}"'
    _require(where, f'in bridge "{bridge.name}"', port.master == bridge.index, _place(host, port))
    _require(where, "up", port.up, "down")
    _require(where, f"hairpin {_on(conf.hairpin)}", port.hairpin == conf.hairpin, _on(port.hairpin))
    _require(where, f"isolation {_on(conf.port_isolation)}", port.isolated == conf.port_isolation, _on(port.isolated))
    _check_mac(where, port, entry)
    if conf.vlan_filtering:
        _check_vlans(where, bridging.port_vlans(conf), host.bridge_vlans(port.name))
    return port


def check_gateways(host: Host, conf: BridgeConf, recorded: Result) -> None:
    """The gateways' addresses on the bridge or its VLAN gateway, and forwarding of their families."""
    if not conf.is_gateway:
        return
    ifname = conf.vlan_ifname if conf.vlan else conf.bridge
    if host.link(ifname) is None:
        raise _drift(f'gateway "{ifname}"', "the interface", "no link of that name")
    present = [a.address for a in host.addresses(ifname)]
    wanted = gateways.gateway_addresses(recorded.ips)
    for address in wanted:
        found = ", ".join(str(a) for a in present) or "none"
        _require(f'gateway "{ifname}"', f"address {address}", address in present, found)
    families: set[Family] = {a.version for a in wanted}
    for family in sorted(families):
        found = bridging.forwarding(host, family)
        _require(f"forwarding of IPv{family}", "1", found == "1", found)


def _check_vlans(where: str, expected: tuple[BridgeVlan, ...], present: tuple[BridgeVlan, ...]) -> None:
    for vlan in expected:
        flags = (vlan.pvid, vlan.untagged)
        ids = {i for p in present if (p.pvid, p.untagged) == flags for i in range(p.first, p.last + 1)}
        missing = sorted(set(range(vlan.first, vlan.last + 1)) - ids)
        kind = "untagged PVID" if vlan.pvid else "tagged"
        found = ", ".join(f"{p.first}-{p.last}" if p.first != p.last else str(p.first) for p in present) or "none"
        _require(where, f"{kind} VLAN {missing[0] if missing else vlan.first}", not missing, f"VLANs {found}")


def _recorded(result: Result, name: str, sandbox: str | None) -> Interface | None:
    """The interface of that name; a sandbox None stands for the host's own side."""
    return next((i for i in result.interfaces if i.name == name and (i.sandbox or None) == sandbox), None)


def _check_mac(where: str, link: Link, entry: Interface | None) -> None:
    if entry is not None and entry.mac:
        _require(where, f"MAC {entry.mac}", (link.mac or "") == entry.mac.lower(), link.mac or "none")


def _place(host: Host, port: Link) -> str:
    master = None if port.master is None else host.link_by_index(port.master)
    return "in no bridge" if master is None else f'in "{master.name}"'


def _on(value: bool) -> str:
    return "on" if value else "off"


def _require(where: str, expected: str, holds: bool, found: object) -> None:
    if not holds:
        raise _drift(where, expected, found)


def _drift(where: str, expected: str, found: object) -> Drift:
    return Drift(f"check {where}: expected {expected}, found {found}")
