"""Links: reading, changing and removing them.

rtnetlink(7), RTM_*LINK; include/uapi/linux/if_link.h. Creation is in `creating`, bridges' own matters in `bridging`.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Sequence

from homeport.host import errors, netlink, uapi
from homeport.host.errors import place
from homeport.host.netlink import decoder
from homeport.host.operating import Operating
from homeport.host.sockets import NetlinkSocket, Refused
from homeport.model.addresses import MacAddress
from homeport.model.errors import InvalidNetns, KernelRefused
from homeport.model.names import IFNAME_MAX
from homeport.ports import Link

_IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, index, flags, change mask
_QUIET = netlink.u32(uapi.IFLA_EXT_MASK, uapi.RTEXT_FILTER_SKIP_STATS)
_MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
_IPVLAN_MODES = {0: "l2", 1: "l3", 2: "l3s"}


def header(index: int = 0, *, family: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """Struct ifinfomsg."""
    return _IFINFOMSG.pack(family, 0, index, flags, change)


def encode_mac(mac: MacAddress) -> bytes:
    """Six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def has_neighbours(body: bytes) -> bool:
    """Whether a link's message is of one that speaks ARP and neighbour discovery over Ethernet.

    A loopback does not, nor a link with NOARP, as ipvlan's in its l3 modes.
    """
    _, kind, _, flags, _ = _IFINFOMSG.unpack_from(body)
    return kind == uapi.ARPHRD_ETHER and not flags & uapi.IFF_NOARP


def link_index(body: bytes) -> int:
    """The interface index of a link message."""
    index: int = _IFINFOMSG.unpack_from(body)[2]
    return index


def link_name(body: bytes) -> str:
    """The name in a link message."""
    return netlink.string(netlink.attributes(body, _IFINFOMSG.size)[uapi.IFLA_IFNAME])


@decoder
def decode_link(body: bytes) -> Link:
    """Pure: an RTM_NEWLINK body."""
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
    found = netlink.attributes(body, _IFINFOMSG.size)
    info = netlink.attributes(found.get(uapi.IFLA_LINKINFO, b""))
    kind = netlink.string(info.get(uapi.IFLA_INFO_KIND, b""))
    data = netlink.attributes(info.get(uapi.IFLA_INFO_DATA, b"")) if kind in ("macvlan", "ipvlan", "bridge") else {}
    is_port = netlink.string(info.get(uapi.IFLA_INFO_SLAVE_KIND, b"")) == "bridge"
    port = netlink.attributes(info.get(uapi.IFLA_INFO_SLAVE_DATA, b"")) if is_port else {}
    mac = found.get(uapi.IFLA_ADDRESS, b"")
    return Link(
        index=index,
        name=netlink.string(found[uapi.IFLA_IFNAME]),
        kind=kind,
        mac=MacAddress(mac.hex(":")) if len(mac) == 6 else None,
        mtu_bytes=netlink.number(found[uapi.IFLA_MTU]),
        up=bool(flags & uapi.IFF_UP),
        running=bool(flags & uapi.IFF_RUNNING),
        promisc=bool(flags & uapi.IFF_PROMISC),
        allmulti=bool(flags & uapi.IFF_ALLMULTI),
        mode=_decode_mode(kind, data),
        parent=_optional_number(found.get(uapi.IFLA_LINK)),
        master=_optional_number(found.get(uapi.IFLA_MASTER)),
        alias=netlink.string(found.get(uapi.IFLA_IFALIAS, b"")),
        vlan_filtering=kind == "bridge" and netlink.number(data.get(uapi.IFLA_BR_VLAN_FILTERING, b"")) != 0,
        hairpin=netlink.number(port.get(uapi.IFLA_BRPORT_MODE, b"")) != 0,
        isolated=netlink.number(port.get(uapi.IFLA_BRPORT_ISOLATED, b"")) != 0,
    )


def _decode_mode(kind: str, data: dict[int, bytes]) -> str:
    if kind == "macvlan":
        return _MACVLAN_MODES.get(netlink.number(data.get(uapi.IFLA_MACVLAN_MODE, b"")), "")
    if kind == "ipvlan":
        return _IPVLAN_MODES.get(netlink.number(data.get(uapi.IFLA_IPVLAN_MODE, b"")), "")
    return ""


def _optional_number(payload: bytes | None) -> int | None:
    """Zero is the kernel's "none" for an interface index."""
    return (netlink.number(payload) or None) if payload else None


def find(sock: NetlinkSocket, *, name: str = "", index: int = 0) -> bytes | None:
    """The link's message; None when the kernel says ENODEV, or the name is one no link can have."""
    if not name and index <= 0:
        return None
    wanted = netlink.text(uapi.IFLA_IFNAME, name) if name else b""
    try:
        return sock.get(uapi.RTM_GETLINK, header(index) + wanted + _QUIET)
    except Refused as refusal:
        too_long = len(name.encode()) > IFNAME_MAX
        if refusal.errno == errno.ENODEV or (too_long and refusal.errno in (errno.ERANGE, errno.EINVAL)):
            return None
        action = f'read link "{name or index}"{place(sock.netns)}'
        raise errors.refused(action, refusal.errno, refusal.text) from refusal


def required(sock: NetlinkSocket, name: str) -> bytes:
    """The link's message; raises `MissingLink`."""
    found = find(sock, name=name)
    if found is None:
        raise errors.missing_link(name, sock.netns)
    return found


def required_index(sock: NetlinkSocket, name: str) -> int:
    """The link's index; raises `MissingLink`. Within one conversation a name is looked up once."""
    index = sock.indexes.get(name)
    if index is None:
        index = sock.indexes[name] = link_index(required(sock, name))
    return index


def refuse_pattern(action: str, name: str) -> None:
    """The kernel would take a `%d` in a new name for the next free number, and give the link another name."""
    if "%" in name:
        raise KernelRefused(f'{action}: found "%" in the name "{name}", expected none', "EINVAL")


class Linking(Operating):
    """The link verbs of `ports.Host` but for creation."""

    def link(self, name: str, netns: str | None = None) -> Link | None:
        with self.netlink(netns) as sock:
            found = find(sock, name=name)
        return None if found is None else decode_link(found)

    def link_by_index(self, index: int, netns: str | None = None) -> Link | None:
        with self.netlink(netns) as sock:
            found = find(sock, index=index)
        return None if found is None else decode_link(found)

    def links(self, netns: str | None = None) -> tuple[Link, ...]:
        with self.netlink(netns) as sock:
            try:
                found = sock.dump(uapi.RTM_GETLINK, header() + _QUIET)
            except Refused as refusal:
                raise errors.refused(f"list links{place(netns)}", refusal.errno, refusal.text) from refusal
        return tuple(map(decode_link, found))

    def set_link(
        self,
        name: str,
        netns: str | None = None,
        *,
        up: bool | None = None,
        rename: str | None = None,
        mtu_bytes: int | None = None,
        mac: MacAddress | None = None,
        master: str | None = None,
        promisc: bool | None = None,
        alias: str | None = None,
    ) -> Link:
        action = f'change link "{name}"{place(netns)}'
        if rename is not None:
            refuse_pattern(action, rename)
        with self.netlink(netns) as sock:
            before = required(sock, name) if self._operations.recording else b""
            index = link_index(before) if before else required_index(sock, name)
            above = required_index(sock, master) if master else (None if master is None else 0)
            wanted = _Change(
                up=up, name=rename, mtu_bytes=mtu_bytes, mac=mac, master=above, promisc=promisc, alias=alias
            )
            self._operations.record(lambda: self._restore(before, wanted, netns))  # a refusal may come half-way
            if rename is not None:
                sock.indexes.clear()
            _apply(sock, index, wanted, action)
            after = find(sock, index=index)
        if after is None:
            raise errors.missing_link(rename or name, netns or self._own)
        return decode_link(after)

    def _restore(self, body: bytes, changed: _Change, netns: str | None) -> None:
        """Gives back what `changed` took. `body` is the link's message from before."""
        before = decode_link(body)
        with self.netlink(netns) as sock:
            found = find(sock, index=before.index)
            if found is not None:
                sock.indexes.clear()
                undone = changed.undone(before, renamed=link_name(found) != before.name)
                _apply(sock, before.index, undone, f'restore link "{before.name}"{place(netns)}')

    def delete_links(self, names: Iterable[str], netns: str | None = None) -> None:
        """A deletion has no inverse: an operation that fails later does not bring the links back."""
        names = list(dict.fromkeys(names))
        try:
            with self.netlink(netns) as sock:
                found = [body for name in names if (body := find(sock, name=name)) is not None]
                _delete(sock, found, f"delete {', '.join(names)}{place(netns)}")
        except InvalidNetns:
            return

    def _delete_created(self, index: int, netns: str | None) -> None:
        """The inverse of a creation: by index, since the name may be another link's by now."""
        with self.netlink(netns) as sock:
            found = find(sock, index=index)
            if found is not None:
                _delete(sock, [found], f"delete link {index}{place(netns)}")


class _Change:
    """The attributes of one RTM_SETLINK; None leaves one alone, a `master` of 0 takes the link out of its bridge."""

    def __init__(
        self,
        *,
        up: bool | None = None,
        promisc: bool | None = None,
        name: str | None = None,
        mtu_bytes: int | None = None,
        mac: MacAddress | None = None,
        master: int | None = None,
        alias: str | None = None,
    ) -> None:
        self.up, self.promisc, self.name, self.mtu_bytes = up, promisc, name, mtu_bytes
        self.mac, self.master, self.alias = mac, master, alias

    def encode(self, index: int) -> bytes | None:
        """The message's body, or None when nothing is to change."""
        mask = (self.up is not None and uapi.IFF_UP) | (self.promisc is not None and uapi.IFF_PROMISC)
        flags = ((self.up and uapi.IFF_UP) or 0) | ((self.promisc and uapi.IFF_PROMISC) or 0)
        parts = []
        if self.name is not None:
            parts.append(netlink.text(uapi.IFLA_IFNAME, self.name))
        if self.mtu_bytes is not None:
            parts.append(netlink.u32(uapi.IFLA_MTU, self.mtu_bytes))
        if self.mac is not None:
            parts.append(netlink.attribute(uapi.IFLA_ADDRESS, encode_mac(self.mac)))
        if self.master is not None:
            parts.append(netlink.u32(uapi.IFLA_MASTER, self.master))
        if self.alias is not None:
            parts.append(netlink.attribute(uapi.IFLA_IFALIAS, self.alias.encode()))
        return header(index, flags=flags, change=mask) + b"".join(parts) if parts or mask else None

    def steps(self) -> Sequence[_Change]:
        """In one request the kernel changes the name before the flags, but an old one renames no link that is up."""
        if self.name is None or self.up is not False:
            return (self,)
        rest = _Change(name=self.name, mtu_bytes=self.mtu_bytes, mac=self.mac, master=self.master, alias=self.alias)
        return _Change(up=False, promisc=self.promisc), rest

    def undone(self, before: Link, *, renamed: bool) -> _Change:
        """As it was in `before`, for what this change touches."""
        return _Change(
            up=None if self.up is None else before.up,
            promisc=None if self.promisc is None else before.promisc,
            name=before.name if renamed else None,
            mtu_bytes=None if self.mtu_bytes is None else before.mtu_bytes,
            mac=None if self.mac is None else before.mac,
            master=None if self.master is None else before.master or 0,
            alias=None if self.alias is None else before.alias,
        )


def _apply(sock: NetlinkSocket, index: int, change: _Change, action: str) -> None:
    for step in change.steps():
        body = step.encode(index)
        if body is None:
            continue
        try:
            sock.change(uapi.RTM_SETLINK, body)
        except Refused as refusal:
            if refusal.errno == errno.EEXIST and step.name is not None:
                raise errors.name_taken(f'{action}, rename to "{step.name}"', refusal.text) from refusal
            raise errors.refused(action, refusal.errno, refusal.text) from refusal


def _delete(sock: NetlinkSocket, found: Sequence[bytes], action: str) -> None:
    """Removes links in one request: the kernel waits for a grace period once a request, not once a link."""
    sock.indexes.clear()
    indexes = [link_index(body) for body in found]
    if not indexes:
        return
    if len(indexes) == 1:
        _refusable(sock, uapi.RTM_DELLINK, header(indexes[0]), action)
        return
    group = 1 << 31 | netlink.number(os.urandom(4))  # 32 bits; nobody else's group may be deleted with ours
    before = [netlink.attributes(body, _IFINFOMSG.size).get(uapi.IFLA_GROUP, bytes(4)) for body in found]
    try:
        for index in indexes:
            _refusable(sock, uapi.RTM_SETLINK, header(index) + netlink.u32(uapi.IFLA_GROUP, group), action)
        _refusable(sock, uapi.RTM_DELLINK, header() + netlink.u32(uapi.IFLA_GROUP, group), action)
    except BaseException:
        for index, old in zip(indexes, before, strict=True):
            _refusable(sock, uapi.RTM_SETLINK, header(index) + netlink.attribute(uapi.IFLA_GROUP, old), action)
        raise


def _refusable(sock: NetlinkSocket, kind: int, body: bytes, action: str) -> None:
    """A change to a link that may be gone by now, which is as good as done."""
    try:
        sock.change(kind, body)
    except Refused as refusal:
        if refusal.errno != errno.ENODEV:
            raise errors.refused(action, refusal.errno, refusal.text) from refusal
