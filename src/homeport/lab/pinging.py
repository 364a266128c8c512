"""Echo requests from inside many namespaces at once. I/O: raw ICMP and ICMPv6 sockets.

RFC 792 and RFC 4443 §4. Each request leaves from the address it is bound to, so a rule `from ADDRESS lookup TABLE`
decides its way, exactly as for a program that answers on that address.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from homeport.host.namespaces import Entrance
from homeport.model.addresses import IPAddress
from homeport.model.errors import KernelRefused

_AGAIN_SECONDS = 0.2
_HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_STAMP = struct.Struct("!Q")
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}


class Echo(msgspec.Struct, frozen=True):
    """From the namespace at `netns`, bound to `source`."""

    netns: str
    source: IPAddress
    destination: IPAddress


class Outcome(msgspec.Struct, frozen=True):
    """`milliseconds` until the reply; None, and then why not."""

    milliseconds: float | None
    reason: str = ""


def ping(echoes: Sequence[Echo], entrance: Entrance, *, timeout_seconds: float = 3.0) -> Mapping[Echo, Outcome]:
    """Asks all at once and repeats until each was answered or the time is over (an address may still be tentative)."""
    sockets: dict[tuple[str, IPAddress], socket.socket] = {}
    try:
        for echo in echoes:
            if (echo.netns, echo.source) not in sockets:
                sockets[echo.netns, echo.source] = _open(entrance, echo.netns, echo.source)
        return _converse(echoes, sockets, time.monotonic() + timeout_seconds)
    finally:
        for opened in sockets.values():
            opened.close()


def _converse(
    echoes: Sequence[Echo], sockets: Mapping[tuple[str, IPAddress], socket.socket], deadline: float
) -> Mapping[Echo, Outcome]:
    identifier = os.getpid() & 0xFFFF
    number = {echo: n for n, echo in enumerate(echoes)}
    answered: dict[Echo, Outcome] = {}
    reasons: dict[Echo, str] = {}
    bound: set[tuple[str, IPAddress]] = set()
    with selectors.DefaultSelector() as selector:
        for place, opened in sockets.items():
            selector.register(opened, selectors.EVENT_READ, place)
        while len(answered) < len(number) and (now := time.monotonic()) < deadline:
            for echo in number.keys() - answered.keys():
                place = (echo.netns, echo.source)
                reasons[echo] = _send(sockets[place], echo, identifier, number[echo], bound)
            until = min(now + _AGAIN_SECONDS, deadline)
            while len(answered) < len(number) and (left := until - time.monotonic()) > 0:
                for ready, _ in selector.select(left):
                    netns, source = ready.data
                    for n, sender, milliseconds in _received(sockets[netns, source], source.version, identifier):
                        asked = echoes[n] if n < len(echoes) else None
                        if asked and (asked.netns, asked.source, str(asked.destination)) == (netns, source, sender):
                            answered.setdefault(asked, Outcome(milliseconds))
    return {echo: answered.get(echo) or Outcome(None, reasons.get(echo) or "no reply") for echo in echoes}


def _open(entrance: Entrance, netns: str, source: IPAddress) -> socket.socket:
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if source.version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    try:
        opened = entrance.open_socket(netns, family, socket.SOCK_RAW, protocol)
    except OSError as e:
        name = errno.errorcode.get(e.errno or 0, str(e.errno))
        raise KernelRefused(f'open an ICMP socket in "{netns}": {name}') from e
    opened.setblocking(False)
    return opened


def _send(opened: socket.socket, echo: Echo, identifier: int, number: int, bound: set[tuple[str, IPAddress]]) -> str:
    """Why it could not be sent, or the empty string."""
    version = echo.source.version
    payload = _STAMP.pack(time.monotonic_ns())
    header = _HEADER.pack(_REQUEST[version], 0, 0, identifier, number)
    if version == 4:  # of ICMPv6 the kernel computes the checksum (RFC 3542 §3.1)
        header = _HEADER.pack(_REQUEST[version], 0, _checksum(header + payload), identifier, number)
    try:
        if (echo.netns, echo.source) not in bound:
            opened.bind((str(echo.source), 0))
            bound.add((echo.netns, echo.source))
        opened.sendto(header + payload, (str(echo.destination), 0))
    except OSError as e:
        return os.strerror(e.errno or 0).lower()
    return ""


def _received(opened: socket.socket, version: int, identifier: int) -> Iterable[tuple[int, str, float]]:
    """(sequence number, sender, milliseconds) of each echo reply that waits in the socket."""
    while True:
        try:
            packet, sender = opened.recvfrom(2048)
        except OSError:  # nothing more for now, or an ICMP error that came back: asked again anyway
            return
        if version == 4:
            packet = packet[(packet[0] & 0xF) * 4 :]  # the IP header comes with it; IHL counts 32-bit words
        if len(packet) < _HEADER.size + _STAMP.size:
            continue
        kind, _, _, its_identifier, number = _HEADER.unpack_from(packet)
        if kind == _REPLY[version] and its_identifier == identifier:
            (sent,) = _STAMP.unpack_from(packet, _HEADER.size)
            yield number, sender[0], (time.monotonic_ns() - sent) / 1e6


def _checksum(data: bytes) -> int:
    """RFC 1071; `data` has an even length."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
