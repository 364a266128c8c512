"""Making bridges and plugging containers into them. Acts on the kernel through the host port.

A bridge, its gateway address, the interface of a VLAN gateway and forwarding are shared by the attachments of the
node. Whoever comes first makes them, and they stay, also when that ADD fails: another may be using them by then. Only
a bridge that the failing ADD made, and nobody else has plugged into, goes again with all that is on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from homeport.model.addresses import Family, IPInterface, MacAddress
from homeport.model.errors import InvalidNetConf, KernelRefused, LinkExists, MissingLink, Unsupported
from homeport.model.names import AttachmentKey
from homeport.model.results import IPConfig
from homeport.plugins.bridge.gateways import gateway_addresses, in_the_way
from homeport.plugins.bridge.netconfs import BridgeConf
from homeport.ports import BridgeVlan, Clock, Host, Link

_PORT_TIMEOUT_SECONDS = 2.5
_PORT_POLL_SECONDS = 0.005
_NO_MAC = MacAddress("00:00:00:00:00:00")  # of a bridge that lost its last port before its MAC was set

_FORWARDING: dict[Family, str] = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def host_ifname(key: AttachmentKey) -> str:
    """The host side's name. The same attachment has the same one, so DEL finds it without the container."""
    return _veth_name(key.network, key.container_id, key.ifname)


def ensure_bridge(host: Host, conf: BridgeConf) -> Link:
    """The bridge, made if it is not there, and up. Its MAC is the one that `serve` keeps."""
    bridge = host.link(conf.bridge) or _make_bridge(host, conf)
    require_usable(bridge, conf)
    with host.operation(undo_on_error=False):
        _refuse_router_advertisements(host, conf.bridge)
        if not bridge.up or (conf.promisc and not bridge.promisc):
            bridge = host.set_link(conf.bridge, up=True, promisc=conf.promisc or None)
    return bridge


def require_usable(link: Link, conf: BridgeConf) -> None:
    """Raises `InvalidNetConf` unless the link can serve as the bridge of this configuration."""
    if link.kind != "bridge":
        raise InvalidNetConf(
            f'key "bridge": found "{conf.bridge}" to be a {link.kind or "physical"} link, expected a bridge'
        )
    if conf.vlan_filtering and not link.vlan_filtering:
        key = "vlan" if conf.vlan else "vlanTrunk"
        raise InvalidNetConf(
            f'key "{key}": found bridge "{conf.bridge}" without VLAN filtering, on which every port is in one LAN: '
            f"expected a bridge with vlan_filtering 1"
        )


def existing_bridge(host: Host, conf: BridgeConf) -> Link:
    """The bridge as it is now: its MAC changes with its ports unless it was set."""
    bridge = host.link(conf.bridge)
    if bridge is None:
        raise MissingLink(f'look up bridge "{conf.bridge}": it was removed meanwhile')
    return bridge


def plug(host: Host, conf: BridgeConf, key: AttachmentKey, netns: str, mac: MacAddress | None) -> tuple[Link, Link]:
    """A veth pair with one end a port of the bridge: (the port, the container's side, still down)."""
    port = host_ifname(key)
    container, peer = host.create_veth(
        key.ifname, netns=netns, peer=port, peer_netns=None, mtu_bytes=conf.mtu_bytes, mac=mac
    )
    _make_port(host, conf, port, hairpin=conf.hairpin, isolated=conf.port_isolation)
    return peer, container


def set_duplicate_detection(host: Host, ifname: str, netns: str, enabled: bool) -> None:
    """IPv6 duplicate address detection in the container. Off, its addresses can be used at once."""
    for key, value in (("accept_dad", "1" if enabled else "0"), *((("enhanced_dad", "1"),) if enabled else ())):
        path = f"net/ipv6/conf/{ifname}/{key}"
        if host.read_sysctl(path, netns) is not None:
            host.write_sysctl(path, value, netns)


def serve(host: Host, conf: BridgeConf, bridge: Link, ips: Sequence[IPConfig]) -> Link | None:
    """Makes the node the gateway of these addresses, where it is to be one; returns the gateway interface of a VLAN."""
    if not conf.is_gateway or not ips:
        return None
    with host.operation(undo_on_error=False):
        link = _ensure_vlan_gateway(host, conf) if conf.vlan else bridge
        wanted = gateway_addresses(ips)
        for address in wanted:
            _ensure_address(host, link, address, force=conf.force_address)
        mac = link.mac if link.mac != _NO_MAC else existing_bridge(host, conf).mac
        if mac is not None:
            # A bridge whose MAC was never set takes the lowest of its ports' MACs: a gateway's may not change so. Not
            # set before it has a port, since the kernel then leaves its state unknown.
            host.set_link(link.name, mac=mac)
        families: set[Family] = {address.version for address in wanted}
        for family in sorted(families):
            if forwarding(host, family) != "1":
                host.write_sysctl(_FORWARDING[family], "1")
    return link if conf.vlan else None


def port_vlans(conf: BridgeConf) -> tuple[BridgeVlan, ...]:
    """The VLANs a port of this configuration is in, but for the bridge's default one."""
    if conf.vlan:
        return (BridgeVlan(first=conf.vlan, last=conf.vlan, pvid=True, untagged=True),)
    return conf.trunk


def forwarding(host: Host, family: Family) -> str:
    """Whether the node forwards packets of this family: "1" or "0", or "unknown" without that family."""
    return host.read_sysctl(_FORWARDING[family]) or "unknown"


def await_port(host: Host, clock: Clock, port: str) -> Link:
    """The port once it forwards frames; raises `KernelRefused` when it does not in time."""
    deadline = clock.monotonic() + _PORT_TIMEOUT_SECONDS
    while True:
        link = host.link(port)
        if link is None:
            raise MissingLink(f'wait for bridge port "{port}": it was removed meanwhile')
        if link.running:
            return link
        if clock.monotonic() >= deadline:
            raise KernelRefused(f'wait for bridge port "{port}": still down after {_PORT_TIMEOUT_SECONDS} seconds')
        clock.sleep(_PORT_POLL_SECONDS)


def _make_bridge(host: Host, conf: BridgeConf) -> Link:
    try:
        with host.operation(undo_on_error=False):
            made = host.create_bridge(conf.bridge, mtu_bytes=conf.mtu_bytes, vlan_filtering=conf.vlan_filtering)
    except LinkExists:
        # Another ADD was faster: what it made must fit us just the same.
        return existing_bridge(host, conf)
    except Unsupported as e:
        if conf.vlan_filtering and host.supports_kind("bridge"):
            raise Unsupported(f'create bridge "{conf.bridge}": this kernel\'s bridges have no VLANs', e.details) from e
        raise
    host.on_undo(lambda: _withdraw_bridge(host, conf, made))
    return made


def _withdraw_bridge(host: Host, conf: BridgeConf, made: Link) -> None:
    """Removes the bridge that a failing ADD made, unless another attachment is plugged into it."""
    own = _veth_name(conf.bridge, str(conf.vlan))
    links = host.links()
    is_there = any((link.index, link.name) == (made.index, made.name) for link in links)
    if is_there and all(link.master != made.index or link.name == own for link in links):
        host.delete_links([own, made.name])


def _make_port(host: Host, conf: BridgeConf, ifname: str, *, hairpin: bool = False, isolated: bool = False) -> None:
    """Up last: no frame may pass before the port is in its VLANs and in no other."""
    _refuse_router_advertisements(host, ifname)
    host.set_link(ifname, master=conf.bridge)
    if conf.vlan_filtering and not conf.preserve_default_vlan:
        for vlan in host.bridge_vlans(ifname):
            host.delete_bridge_vlan(ifname, vlan)
    for vlan in port_vlans(conf):
        host.add_bridge_vlan(ifname, vlan)
    if hairpin or isolated:
        host.set_bridge_port(ifname, hairpin=hairpin or None, isolated=isolated or None)
    host.set_link(ifname, up=True)


def _ensure_vlan_gateway(host: Host, conf: BridgeConf) -> Link:
    """The host's own interface in the VLAN `conf.vlan`: an end of a veth pair whose other end is a port in it."""
    present = host.link(conf.vlan_ifname)
    if present is not None:
        return present
    port = _veth_name(conf.bridge, str(conf.vlan))
    host.create_veth(conf.vlan_ifname, netns=None, peer=port, peer_netns=None, mtu_bytes=conf.mtu_bytes)
    _make_port(host, conf, port)
    return host.set_link(conf.vlan_ifname, up=True)


def _ensure_address(host: Host, link: Link, wanted: IPInterface, *, force: bool) -> None:
    """Gives the gateway its address; another that cannot stand beside it is an error unless `force`."""
    present = [a.address for a in host.addresses(link.name)]
    if wanted in present:
        return
    others = in_the_way(present, wanted)
    if others and not force:
        found = ", ".join(str(a) for a in others)
        raise InvalidNetConf(
            f'add gateway address {wanted} to "{link.name}": found {found} there, expected none in its way: '
            "remove it, or set forceAddress"
        )
    for other in others:
        host.delete_address(link.name, other)
    try:
        host.add_address(link.name, wanted)
    except KernelRefused:
        # Another ADD may have been faster.
        if wanted not in (a.address for a in host.addresses(link.name)):
            raise


def _refuse_router_advertisements(host: Host, ifname: str) -> None:
    """The node's routes are not for the containers on the LAN to give."""
    key = f"net/ipv6/conf/{ifname}/accept_ra"
    if host.read_sysctl(key) not in (None, "0"):
        host.write_sysctl(key, "0")


def _veth_name(*parts: str) -> str:
    return "veth" + hashlib.sha256(" ".join(parts).encode()).hexdigest()[:11]
