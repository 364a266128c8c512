"""Bridges, their ports and their VLANs.

rtnetlink(7) with AF_BRIDGE; include/uapi/linux/if_bridge.h, `struct bridge_vlan_info`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from homeport.host import errors, netlink, uapi
from homeport.host.creating import Creating
from homeport.host.errors import place
from homeport.host.linking import decode_link, header, link_index, required, required_index
from homeport.host.netlink import decoder
from homeport.host.sockets import Refused
from homeport.ports import BridgeVlan, Link

_AF_BRIDGE = getattr(socket, "AF_BRIDGE", 7)
_VLAN_INFO = struct.Struct("=HH")  # flags, VLAN ID


@decoder
def decode_vlans(body: bytes, offset: int = 16) -> tuple[BridgeVlan, ...]:
    """Pure: the VLANs of a port's RTM_NEWLINK of family AF_BRIDGE, ascending, ranges as the kernel joined them."""
    found = netlink.attributes(body, offset).get(uapi.IFLA_AF_SPEC, b"")
    vlans = []
    first = 0
    for kind, payload in netlink.each_attribute(found):
        if kind != uapi.IFLA_BRIDGE_VLAN_INFO:
            continue
        flags, vid = _VLAN_INFO.unpack_from(payload)
        if flags & uapi.BRIDGE_VLAN_INFO_RANGE_BEGIN:
            first = vid
            continue
        is_end = flags & uapi.BRIDGE_VLAN_INFO_RANGE_END
        vlans.append(
            BridgeVlan(
                first=first if is_end else vid,
                last=vid,
                pvid=bool(flags & uapi.BRIDGE_VLAN_INFO_PVID),
                untagged=bool(flags & uapi.BRIDGE_VLAN_INFO_UNTAGGED),
            )
        )
    return tuple(vlans)


def encode_vlan(index: int, vlan: BridgeVlan, *, on_bridge: bool) -> bytes:
    """Pure: the body of RTM_SETLINK (add) and RTM_DELLINK (delete)."""
    flags = (vlan.pvid and uapi.BRIDGE_VLAN_INFO_PVID) | (vlan.untagged and uapi.BRIDGE_VLAN_INFO_UNTAGGED)
    if vlan.first == vlan.last:
        entries = [(flags, vlan.first)]
    else:
        entries = [
            (flags | uapi.BRIDGE_VLAN_INFO_RANGE_BEGIN, vlan.first),
            (flags | uapi.BRIDGE_VLAN_INFO_RANGE_END, vlan.last),
        ]
    spec = [netlink.attribute(uapi.IFLA_BRIDGE_VLAN_INFO, _VLAN_INFO.pack(*entry)) for entry in entries]
    if on_bridge:
        spec.insert(0, netlink.u16(uapi.IFLA_BRIDGE_FLAGS, uapi.BRIDGE_FLAGS_SELF))
    return header(index, family=_AF_BRIDGE) + netlink.nested(uapi.IFLA_AF_SPEC, *spec)


class Bridging(Creating):
    """The bridge verbs of `ports.Host`."""

    def create_bridge(
        self, name: str, *, netns: str | None = None, mtu_bytes: int | None = None, vlan_filtering: bool = False
    ) -> Link:
        data = netlink.u8(uapi.IFLA_BR_VLAN_FILTERING, 1) if vlan_filtering else b""
        attributes = b"" if mtu_bytes is None else netlink.u32(uapi.IFLA_MTU, mtu_bytes)
        with self.netlink(netns) as sock:
            action = f'create bridge "{name}"{place(netns)}'
            return self._create(sock, name, netns, "bridge", data, attributes, action)

    def set_bridge_port(
        self, name: str, netns: str | None = None, *, hairpin: bool | None = None, isolated: bool | None = None
    ) -> None:
        with self.netlink(netns) as sock:
            before = decode_link(required(sock, name))
            settings = b"" if hairpin is None else netlink.u8(uapi.IFLA_BRPORT_MODE, int(hairpin))
            if isolated is not None:
                settings += netlink.u8(uapi.IFLA_BRPORT_ISOLATED, int(isolated))
            if not settings:
                return
            body = header(before.index, family=_AF_BRIDGE) + netlink.nested(uapi.IFLA_PROTINFO, settings)
            try:
                sock.change(uapi.RTM_SETLINK, body)
            except Refused as refusal:
                action = f'change bridge port "{name}"{place(netns)}'
                raise errors.refused(action, refusal.errno, refusal.text) from refusal
        old_hairpin = None if hairpin is None else before.hairpin
        old_isolated = None if isolated is None else before.isolated
        self._operations.record(lambda: self.set_bridge_port(name, netns, hairpin=old_hairpin, isolated=old_isolated))

    def bridge_vlans(self, name: str, netns: str | None = None) -> tuple[BridgeVlan, ...]:
        mask = netlink.u32(uapi.IFLA_EXT_MASK, uapi.RTEXT_FILTER_BRVLAN_COMPRESSED)
        with self.netlink(netns) as sock:
            index = required_index(sock, name)
            try:
                found = sock.dump(uapi.RTM_GETLINK, header(family=_AF_BRIDGE) + mask)
            except Refused as refusal:
                if refusal.errno == errno.EOPNOTSUPP:  # a kernel without bridges has no VLANs on them
                    return ()
                raise errors.refused(f'list VLANs of "{name}"{place(netns)}', refusal.errno, refusal.text) from refusal
        ours = [body for body in found if link_index(body) == index]
        return tuple(vlan for body in ours for vlan in decode_vlans(body))

    def add_bridge_vlan(
        self, name: str, vlan: BridgeVlan, netns: str | None = None, *, on_bridge: bool = False
    ) -> None:
        before = self.bridge_vlans(name, netns) if self._operations.recording else ()
        self._change_vlan(uapi.RTM_SETLINK, name, vlan, netns, on_bridge=on_bridge)
        self._operations.record(lambda: self._restore_vlans(name, vlan, before, netns, on_bridge=on_bridge))

    def delete_bridge_vlan(
        self, name: str, vlan: BridgeVlan, netns: str | None = None, *, on_bridge: bool = False
    ) -> None:
        """A VLAN that the port does not have is success."""
        before = self.bridge_vlans(name, netns) if self._operations.recording else ()
        self._change_vlan(uapi.RTM_DELLINK, name, vlan, netns, on_bridge=on_bridge)
        self._operations.record(lambda: self._restore_vlans(name, vlan, before, netns, on_bridge=on_bridge))

    def _change_vlan(self, kind: int, name: str, vlan: BridgeVlan, netns: str | None, *, on_bridge: bool) -> None:
        with self.netlink(netns) as sock:
            index = required_index(sock, name)
            try:
                sock.change(kind, encode_vlan(index, vlan, on_bridge=on_bridge))
            except Refused as refusal:
                if kind == uapi.RTM_DELLINK and refusal.errno == errno.ENOENT:
                    return
                ids = f"{vlan.first}" if vlan.first == vlan.last else f"{vlan.first}-{vlan.last}"
                verb = "add" if kind == uapi.RTM_SETLINK else "delete"
                action = f'{verb} VLAN {ids} on "{name}"{place(netns)}'
                raise errors.refused(action, refusal.errno, refusal.text) from refusal

    def _restore_vlans(
        self, name: str, touched: BridgeVlan, before: Iterable[BridgeVlan], netns: str | None, *, on_bridge: bool
    ) -> None:
        """Makes the IDs that `touched` names what they were."""
        bare = BridgeVlan(first=touched.first, last=touched.last)
        self._change_vlan(uapi.RTM_DELLINK, name, bare, netns, on_bridge=on_bridge)
        for vlan in before:
            first, last = max(vlan.first, touched.first), min(vlan.last, touched.last)
            if first <= last or vlan.pvid:  # a new PVID took the flag from the old one
                kept = vlan if vlan.pvid else BridgeVlan(first=first, last=last, untagged=vlan.untagged)
                self._change_vlan(uapi.RTM_SETLINK, name, kept, netns, on_bridge=on_bridge)
