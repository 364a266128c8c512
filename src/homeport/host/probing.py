"""Asking the neighbours whether anybody has an address.

RFC 5227 §2.1.1 "Probe Details" for IPv4, RFC 4862 §5.4 (duplicate address detection) for IPv6; packet(7). Silence is
taken for proof that an address is free (R8), so everything that could make us deaf is an error: a link that is down
or has no carrier, one that does not do ARP, frames the kernel had to drop.
"""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import time

from homeport.host import errors, frames
from homeport.host.errors import place
from homeport.host.linking import decode_link, has_neighbours, required
from homeport.host.operating import Operating
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import KernelRefused

_PROBES = 3  # RFC 5227 PROBE_NUM; the answer to one may get lost
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS = 1, 6
_PACKET_MR_MULTICAST = 0
_SO_ATTACH_FILTER = 26
# Classic BPF, `ip6 proto 58 and icmp6 type 135 or 136` on an Ethernet frame: other traffic must not fill the buffer.
_NEIGHBOUR_DISCOVERY = (
    (0x30, 0, 0, 20),  # A = next header
    (0x15, 0, 4, 58),  # not ICMPv6: drop
    (0x30, 0, 0, 54),  # A = ICMPv6 type
    (0x15, 1, 0, 135),
    (0x15, 0, 1, 136),
    (0x06, 0, 0, 0xFFFF),  # keep
    (0x06, 0, 0, 0),  # drop
)


class ArpProbe:
    """`ports.Probe`, sharing the way into namespaces with a `Kernel`.

    Probe from the parent, not from the macvlan that is to have the address: once the MAC has moved with the address
    (R9), the old holder's macvlan takes a broadcast under that MAC for its own and does not deliver it.
    """

    def __init__(self, host: Operating) -> None:
        self._host = host

    def answers(
        self, address: IPAddress, *, link: str, netns: str | None = None, timeout_seconds: float = 0.5
    ) -> MacAddress | None:
        action = f'probe {address} from "{link}"{place(netns)}'
        with self._host.netlink(netns) as sock:
            body = required(sock, link)
        found = decode_link(body)
        if found.mac is None or not has_neighbours(body):
            raise KernelRefused(f"{action}: the link does not do neighbour discovery", "EOPNOTSUPP")
        if not found.running:
            raise KernelRefused(f"{action}: the link is down or has no carrier", "ENETDOWN")
        listening = self._host.open_socket(netns, socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            _listen(listening, address, found.index, link)
            return _ask(listening, address, found.mac, timeout_seconds, action)
        except OSError as error:
            raise errors.refused(action, error.errno or 0) from error
        finally:
            self._host.close_packet_socket(listening)


def _listen(listening: socket.socket, address: IPAddress, index: int, link: str) -> None:
    """Binds last: the filter and the memberships are in place when the first frame arrives."""
    if address.version == 4:
        listening.bind((link, frames.ETH_P_ARP))
        return
    program = b"".join(struct.pack("=HBBI", *step) for step in _NEIGHBOUR_DISCOVERY)
    kept = ctypes.create_string_buffer(program)
    filtering = struct.pack("@HP", len(_NEIGHBOUR_DISCOVERY), ctypes.addressof(kept))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtering)
    for group in (frames.ALL_NODES, frames.solicited_node(address)):
        membership = struct.pack("@iHH8s", index, _PACKET_MR_MULTICAST, 6, frames.multicast_mac(group))
        listening.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
    listening.bind((link, frames.ETH_P_IPV6))


def _ask(
    listening: socket.socket, address: IPAddress, mac: MacAddress, timeout_seconds: float, action: str
) -> MacAddress | None:
    """Sends the probes evenly spread over the time, and hears out the last one as long as the first."""
    waiting = select.poll()
    waiting.register(listening, select.POLLIN)
    question = frames.probe(address, mac)
    start = time.monotonic()
    for turn in range(1, _PROBES + 1):
        listening.send(question)
        turn_ends = start + timeout_seconds * turn / _PROBES
        while (left := turn_ends - time.monotonic()) > 0:
            if waiting.poll(left * 1000):
                claimed = frames.answer(listening.recv(2048), address, mac)
                if claimed is not None:
                    return claimed
    _, dropped = struct.unpack("=II", listening.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    if dropped:
        raise KernelRefused(f"{action}: the kernel dropped {dropped} frames, so silence proves nothing", "ENOBUFS")
    return None
