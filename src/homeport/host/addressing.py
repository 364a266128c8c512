"""Addresses of links.

rtnetlink(7), RTM_*ADDR; include/uapi/linux/if_addr.h; duplicate address detection is RFC 4862 §5.4.
"""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
import struct
import time

from homeport.host import errors, netlink, uapi
from homeport.host.errors import place
from homeport.host.linking import find, link_index, required_index
from homeport.host.netlink import decoder
from homeport.host.operating import Operating
from homeport.host.sockets import Refused
from homeport.model.addresses import IPInterface
from homeport.model.errors import CniError, KernelRefused
from homeport.ports import LinkAddress

_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index


@decoder
def decode_address(body: bytes) -> tuple[int, LinkAddress]:
    """Pure: (the link's index, the address) of an RTM_NEWADDR body."""
    _, prefix, flags, scope, index = _IFADDRMSG.unpack_from(body)
    found = netlink.attributes(body, _IFADDRMSG.size)
    # IFA_ADDRESS is the other end's on a point-to-point link; IPv6 without one has no IFA_LOCAL
    ip = ipaddress.ip_address(found.get(uapi.IFA_LOCAL) or found[uapi.IFA_ADDRESS])
    flags = netlink.number(found.get(uapi.IFA_FLAGS, b"")) or flags
    failed = bool(flags & uapi.IFA_F_DADFAILED)
    return index, LinkAddress(
        address=ipaddress.ip_interface((ip, prefix)),
        scope=scope,
        tentative=bool(flags & uapi.IFA_F_TENTATIVE) and not failed,
        failed=failed,
    )


def encode_address(index: int, address: IPInterface, *, duplicate_detection: bool = True) -> bytes:
    """Pure: the body of RTM_NEWADDR and RTM_DELADDR."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    prefix = address.network.prefixlen
    scope = uapi.RT_SCOPE_HOST if address.version == 4 and address.is_loopback else 0
    body = _IFADDRMSG.pack(family, prefix, 0, scope, index)
    body += netlink.attribute(uapi.IFA_LOCAL, address.packed) + netlink.attribute(uapi.IFA_ADDRESS, address.packed)
    if address.version == 4 and prefix < 31 and not address.is_loopback:  # RFC 3021: a /31 has no broadcast address
        body += netlink.attribute(uapi.IFA_BROADCAST, address.network.broadcast_address.packed)
    if address.version == 6 and not duplicate_detection:
        body += netlink.u32(uapi.IFA_FLAGS, uapi.IFA_F_NODAD)
    return body


def _refused(action: str, name: str, netns: str | None, refusal: Refused) -> CniError:
    if refusal.errno == errno.ENODEV:  # gone since its index was looked up
        return errors.missing_link(name, netns)
    return errors.refused(action, refusal.errno, refusal.text)


class Addressing(Operating):
    """The address verbs of `ports.Host`."""

    def addresses(self, name: str, netns: str | None = None) -> tuple[LinkAddress, ...]:
        with self.netlink(netns) as sock:
            index = required_index(sock, name)
            try:
                found = sock.dump(uapi.RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, index))
            except Refused as refusal:
                raise _refused(f'list addresses of "{name}"{place(netns)}', name, netns, refusal) from refusal
        return tuple(address for owner, address in map(decode_address, found) if owner == index)

    def add_address(
        self, name: str, address: IPInterface, netns: str | None = None, *, duplicate_detection: bool = True
    ) -> None:
        with self.netlink(netns) as sock:
            index = required_index(sock, name)
            body = encode_address(index, address, duplicate_detection=duplicate_detection)
            try:
                sock.change(uapi.RTM_NEWADDR, body, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL)
            except Refused as refusal:
                action = f'add address {address} to "{name}"{place(netns)}'
                raise _refused(action, name, netns, refusal) from refusal
        self._operations.record(lambda: self._remove_address(index, name, address, netns))

    def delete_address(self, name: str, address: IPInterface, netns: str | None = None) -> None:
        """An address, or a link, that is not there is success."""
        with self.netlink(netns) as sock:
            found = find(sock, name=name)
        if found is None:
            return
        index = link_index(found)
        if self._remove_address(index, name, address, netns):
            self._operations.record(lambda: self.add_address(name, address, netns))

    def _remove_address(self, index: int, name: str, address: IPInterface, netns: str | None) -> bool:
        """False when it was not there."""
        with self.netlink(netns) as sock:
            try:
                sock.change(uapi.RTM_DELADDR, encode_address(index, address))
            except Refused as refusal:
                if refusal.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
                    return False
                action = f'delete address {address} from "{name}"{place(netns)}'
                raise errors.refused(action, refusal.errno, refusal.text) from refusal
        return True

    def wait_for_addresses(self, name: str, netns: str | None = None, *, timeout_seconds: float = 5.0) -> None:
        """The kernel tells of every change of an IPv6 address; each time all are read again."""
        end = time.monotonic() + timeout_seconds
        changes = self.open_netlink(netns, groups=uapi.RTMGRP_IPV6_IFADDR)  # it listens before the first reading
        waiting = select.poll()
        waiting.register(changes, select.POLLIN)
        try:
            while True:
                waited_for = [str(found.address) for found in self._unsettled(name, netns)]
                if not waited_for:
                    return
                left = end - time.monotonic()
                if left <= 0 or not waiting.poll(left * 1000):
                    action = f'wait {timeout_seconds} s for {", ".join(waited_for)} on "{name}"{place(netns)}'
                    raise KernelRefused(f"{action}: duplicate address detection has not ended", "ETIMEDOUT")
                changes.discard()
        finally:
            changes.close()

    def _unsettled(self, name: str, netns: str | None) -> list[LinkAddress]:
        found = self.addresses(name, netns)
        for address in found:
            if address.failed:
                text = f'address {address.address} on "{name}"{place(netns)}: another host on the link has it'
                raise KernelRefused(text, "EADDRINUSE: duplicate address detection failed")
        return [address for address in found if address.tentative]
