"""bridge: a veth pair between the container and a Linux bridge of the node.

Behaves as the reference plugin of that name, except where docs/compatibility.md says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.errors import CniError, InvalidNetConf, InvalidNetns, PluginNotAvailable, SeveralErrors, Unsupported
from homeport.model.names import AttachmentKey
from homeport.model.results import Interface, Result
from homeport.plugins import antispoof, delegation, drift, interfaces, masquerade
from homeport.plugins.bridge import bridging, checking, gateways, netconfs
from homeport.ports import Host, Link, Shells

TYPE = "bridge"


def add(conf: NetConf, attachment: Attachment, shells: Shells) -> Result:
    """The result's interfaces: the bridge, its port, the container's, then the VLAN gateway if there is one."""
    wanted = netconfs.parse(conf, attachment)
    host, key, netns = shells.host, _key(conf, attachment), interfaces.namespace(attachment)
    with host.operation():
        # The address first: it is what fails most often, and nothing that others share has been touched then.
        allocated = delegation.request(conf, attachment, shells) if wanted.has_ipam else Result()
        addressed = gateways.complete(wanted, allocated)
        bridge = bridging.ensure_bridge(host, wanted)
        mac = wanted.mac or delegation.moving_mac(conf, attachment, shells)
        port, container = bridging.plug(host, wanted, key, netns, mac)
        delegation.note_mac(conf, attachment, shells, container.mac)
        made = _result(conf, attachment, [bridge, port, container], addressed)
        if wanted.macspoofchk and container.mac is not None:
            antispoof.forbid_spoofing(host, key, host_ifname=port.name, mac=container.mac)
        if wanted.has_ipam:
            bridging.set_duplicate_detection(host, attachment.ifname, netns, wanted.enabledad)
            interfaces.configure(host, attachment.ifname, netns, made)
        elif wanted.container_up:
            host.set_link(attachment.ifname, netns, up=True)
        gateway = bridging.serve(host, wanted, bridge, made.ips)
        if wanted.ip_masq and made.ips:
            masquerade.masquerade(host, key, [ip.address for ip in made.ips])
        if wanted.container_up:
            port = bridging.await_port(host, shells.clock, port.name)
        # Read again: a bridge takes another MAC with its first port, unless it was given one.
        bridge = bridging.existing_bridge(host, wanted)
    return _result(conf, attachment, [bridge, port, container, *([gateway] if gateway else [])], addressed)


def delete(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """The link goes before its address is free for another; rules go in any case."""
    wanted = netconfs.parse(conf, attachment)
    host, key = shells.host, _key(conf, attachment)

    def remove_link_and_address() -> None:
        _remove_link(host, attachment, bridging.host_ifname(key))
        delegation.give_back(conf, attachment, shells)

    actions = [remove_link_and_address]
    if wanted.ip_masq:
        actions.append(lambda: masquerade.stop_masquerading(host, key))
    if wanted.macspoofchk:
        actions.append(lambda: antispoof.allow_spoofing(host, key))
    with host.operation(undo_on_error=False):
        _do_all(actions)


def check(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Raises `Drift` naming the first thing that is not as ADD left it."""
    wanted = netconfs.parse(conf, attachment)
    recorded = drift.require_prev_result(conf)
    host, key = shells.host, _key(conf, attachment)
    with host.operation():
        delegation.check(conf, attachment, shells)
        bridge = checking.check_bridge(host, wanted)
        container = checking.check_container(host, wanted, attachment, recorded)
        port = checking.check_port(host, wanted, bridge, container, recorded)
        checking.check_gateways(host, wanted, recorded)
        if wanted.ip_masq and wanted.has_ipam:
            own = drift.own_part(recorded, drift.made_interface(recorded, attachment))
            masquerade.check_masquerade(host, key, [ip.address for ip in own.ips])
        if wanted.macspoofchk and container.mac is not None:
            antispoof.check_spoofing_forbidden(host, key, host_ifname=port.name, mac=container.mac)


def gc(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Addresses, masquerading and spoofing rules of attachments that are gone; links went with their namespaces."""
    wanted = netconfs.parse(conf, attachment)
    host, valid = shells.host, conf.valid_attachments
    if valid is None:
        raise InvalidNetConf('key "cni.dev/valid-attachments": missing, expected a list')
    actions = [
        lambda: _unless_unused(wanted.ip_masq, lambda: masquerade.stop_masquerading_except(host, conf.name, valid)),
        lambda: _unless_unused(wanted.macspoofchk, lambda: antispoof.allow_spoofing_except(host, conf.name, valid)),
        lambda: delegation.gc(conf, attachment, shells),
    ]
    with host.operation(undo_on_error=False):
        _do_all(actions)


def status(conf: NetConf, attachment: Attachment, shells: Shells) -> None:
    """Whether the bridge could be used, nftables answers where it is needed, and IPAM is ready."""
    wanted = netconfs.parse(conf, attachment)
    host = shells.host
    try:
        present = host.link(wanted.bridge)
        if present is not None:
            bridging.require_usable(present, wanted)
        elif not host.supports_kind("bridge"):
            raise Unsupported("this kernel has no bridges")
        if wanted.ip_masq or wanted.macspoofchk:
            host.run_nft([{"list": {"tables": None}}])
    except CniError as e:
        raise PluginNotAvailable(f"bridge plugin: {e.msg}", e.details) from e
    delegation.status(conf, attachment, shells)


def _key(conf: NetConf, attachment: Attachment) -> AttachmentKey:
    return AttachmentKey(conf.name, attachment.container_id, attachment.ifname)


def _remove_link(host: Host, attachment: Attachment, port: str) -> None:
    """Removes the pair from either end. Another kind of link under the container's name is not what ADD made."""
    netns = attachment.netns_path
    with suppress(InvalidNetns):  # it is gone, perhaps since a moment ago, and the link with it
        link = None if netns is None else host.link(attachment.ifname, netns)
        if link is not None and link.kind == "veth":
            host.delete_links([attachment.ifname], netns)
    # Still there when the namespace lives on without its name, or CNI_NETNS was not given.
    host.delete_links([port])


def _result(conf: NetConf, attachment: Attachment, links: Sequence[Link], addressed: Result) -> Result:
    """`links` in the order of the result; the container's is at the index that its addresses have."""
    made = tuple(
        Interface(
            name=link.name,
            mac=link.mac,
            sandbox=attachment.netns_path if position == gateways.CONTAINER_INDEX else None,
        )
        for position, link in enumerate(links)
    )
    return msgspec.structs.replace(addressed, interfaces=made, dns=conf.dns or addressed.dns)


def _do_all(actions: list[Callable[[], None]]) -> None:
    """Goes on past each error, then raises them together."""
    errors: list[CniError] = []
    for action in actions:
        try:
            action()
        except CniError as e:
            errors.append(e)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise SeveralErrors(errors)


def _unless_unused(used: bool, collect: Callable[[], None]) -> None:
    """Collects what an earlier form of the configuration may have left, where the machine has nftables at all."""
    try:
        collect()
    except Unsupported:
        if used:
            raise
