"""Links: making them where they belong.

rtnetlink(7), RTM_NEWLINK with IFLA_NET_NS_FD: the request is sent from the parent's namespace, where IFLA_LINK is
looked up, and names the namespace in which the kernel creates the link. A link created on the host and moved would
cost a grace period more, some 19 ms, and would be seen by everybody on the host under a passing name.
"""

from __future__ import annotations

import errno

from homeport.host import errors, netlink, uapi
from homeport.host.errors import place
from homeport.host.linking import Linking, decode_link, encode_mac, header, refuse_pattern, required, required_index
from homeport.host.sockets import NetlinkSocket, Refused
from homeport.model.addresses import MacAddress
from homeport.model.errors import KernelRefused
from homeport.ports import Link

_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}


class Creating(Linking):
    """The `create_*` verbs of `ports.Host` but for bridges."""

    def create_macvlan(
        self,
        name: str,
        *,
        netns: str | None,
        parent: str,
        parent_netns: str | None = None,
        mode: str = "bridge",
        mtu_bytes: int | None = None,
        mac: MacAddress | None = None,
        bc_queue_len: int | None = None,
    ) -> Link:
        data = netlink.u32(uapi.IFLA_MACVLAN_MODE, _mode(_MACVLAN_MODES, "macvlan", name, mode))
        if bc_queue_len is not None:
            data += netlink.u32(uapi.IFLA_MACVLAN_BC_QUEUE_LEN, bc_queue_len)
        attributes = _plain(mtu_bytes, mac)
        return self._create_above(name, netns, "macvlan", data, attributes, parent, parent_netns)

    def create_ipvlan(
        self,
        name: str,
        *,
        netns: str | None,
        parent: str,
        parent_netns: str | None = None,
        mode: str = "l2",
        mtu_bytes: int | None = None,
    ) -> Link:
        data = netlink.u16(uapi.IFLA_IPVLAN_MODE, _mode(_IPVLAN_MODES, "ipvlan", name, mode))
        return self._create_above(name, netns, "ipvlan", data, _plain(mtu_bytes, None), parent, parent_netns)

    def create_veth(
        self,
        name: str,
        *,
        netns: str | None,
        peer: str,
        peer_netns: str | None = None,
        mtu_bytes: int | None = None,
        mac: MacAddress | None = None,
        peer_mac: MacAddress | None = None,
    ) -> tuple[Link, Link]:
        action = f'create veth "{name}"{place(netns)} with peer "{peer}"{place(peer_netns)}'
        refuse_pattern(action, peer)
        with self.netlink(peer_netns) as sock, self._namespace_descriptor(peer_netns) as there:
            other = header() + netlink.text(uapi.IFLA_IFNAME, peer) + _plain(mtu_bytes, peer_mac)
            other += netlink.u32(uapi.IFLA_NET_NS_FD, there)
            data = netlink.nested(uapi.VETH_INFO_PEER, other)
            made = self._create(sock, name, netns, "veth", data, _plain(mtu_bytes, mac), action)
            return made, decode_link(required(sock, peer))

    def supports_kind(self, kind: str) -> bool:
        """Asks for one without a parent and in a name no link can have: a kernel that knows the kind refuses that."""
        info = netlink.nested(uapi.IFLA_LINKINFO, netlink.text(uapi.IFLA_INFO_KIND, kind))
        with self.netlink(None) as sock:
            try:
                sock.change(uapi.RTM_NEWLINK, header() + netlink.text(uapi.IFLA_IFNAME, "/") + info, uapi.NLM_F_CREATE)
            except Refused as refusal:
                if refusal.errno == errno.EOPNOTSUPP:
                    return False
                if refusal.errno == errno.EINVAL:
                    return True
                raise errors.refused(f"ask for links of kind {kind}", refusal.errno, refusal.text) from refusal
        raise KernelRefused(f"ask for links of kind {kind}: found a link of an impossible name made", "0")

    def create_dummy(self, name: str, *, netns: str | None = None) -> Link:
        with self.netlink(netns) as sock:
            return self._create(sock, name, netns, "dummy", b"", b"", f'create dummy "{name}"{place(netns)}')

    def _create_above(
        self,
        name: str,
        netns: str | None,
        kind: str,
        data: bytes,
        attributes: bytes,
        parent: str,
        parent_netns: str | None,
    ) -> Link:
        """A link on top of another one."""
        action = f'create {kind} "{name}"{place(netns)} on "{parent}"{place(parent_netns)}'
        with self.netlink(parent_netns) as sock:
            attributes += netlink.u32(uapi.IFLA_LINK, required_index(sock, parent))
            return self._create(sock, name, netns, kind, data, attributes, action)

    def _create(
        self, sock: NetlinkSocket, name: str, netns: str | None, kind: str, data: bytes, attributes: bytes, action: str
    ) -> Link:
        """Sends from `sock`'s namespace, creates in `netns`, and returns what is there then."""
        refuse_pattern(action, name)
        info = netlink.text(uapi.IFLA_INFO_KIND, kind)
        if data:
            info += netlink.nested(uapi.IFLA_INFO_DATA, data)
        body = header() + netlink.text(uapi.IFLA_IFNAME, name) + attributes + netlink.nested(uapi.IFLA_LINKINFO, info)
        with self.netlink(netns) as target, self._namespace_descriptor(netns) as there:
            try:
                sock.change(
                    uapi.RTM_NEWLINK,
                    body + netlink.u32(uapi.IFLA_NET_NS_FD, there),
                    uapi.NLM_F_CREATE | uapi.NLM_F_EXCL,
                )
            except Refused as refusal:
                raise errors.creation_refused(action, kind, refusal.errno, refusal.text) from refusal
            made = decode_link(required(target, name))
        self._operations.record(lambda: self._delete_created(made.index, netns))
        return made


def _plain(mtu_bytes: int | None, mac: MacAddress | None) -> bytes:
    mtu = b"" if mtu_bytes is None else netlink.u32(uapi.IFLA_MTU, mtu_bytes)
    return mtu if mac is None else mtu + netlink.attribute(uapi.IFLA_ADDRESS, encode_mac(mac))


def _mode(modes: dict[str, int], kind: str, name: str, mode: str) -> int:
    if mode not in modes:
        expected = ", ".join(modes)
        raise KernelRefused(f'create {kind} "{name}": found mode "{mode}", expected one of {expected}', "EINVAL")
    return modes[mode]
