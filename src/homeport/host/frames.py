"""Ethernet frames of ARP and of IPv6 neighbour discovery: pure encoding and decoding, no I/O.

RFC 826 (ARP), RFC 5227 (probe and announcement), RFC 4861 §4.3, §4.4 (neighbour solicitation and advertisement),
RFC 2464 (IPv6 multicast over Ethernet).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from homeport.model.addresses import IPAddress, MacAddress

ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ARP_REQUEST, _ARP_REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_ICMPV6 = 58
_OVERRIDE = 0x20000000
_SOURCE_LAYER, _TARGET_LAYER = 1, 2
_BROADCAST = b"\xff" * 6
ALL_NODES = IPv6Address("ff02::1")
_UNSPECIFIED = IPv6Address("::")


def announcements(address: IPAddress, mac: MacAddress) -> tuple[bytes, ...]:
    """What tells every neighbour that `address` is at `mac`.

    For IPv4 both an ARP request and a reply: RFC 5227 §3 prefers the request, and some peers update their cache
    on a reply only.
    """
    here = _raw(mac)
    if isinstance(address, IPv4Address):
        request = _arp(_ARP_REQUEST, here, address, bytes(6), address)
        return request, _arp(_ARP_REPLY, here, address, _BROADCAST, address)
    option = struct.pack("!BB6s", _TARGET_LAYER, 1, here)
    message = struct.pack("!BBHI16s", _ADVERTISEMENT, 0, 0, _OVERRIDE, address.packed) + option
    return (_ipv6(here, address, ALL_NODES, message),)


def probe(address: IPAddress, mac: MacAddress) -> bytes:
    """A question for `address` that teaches nobody anything: sender 0.0.0.0 (RFC 5227 §2.1.1), or `::` as in DAD."""
    here = _raw(mac)
    if isinstance(address, IPv4Address):
        return _arp(_ARP_REQUEST, here, IPv4Address(0), bytes(6), address)
    message = struct.pack("!BBHI16s", _SOLICITATION, 0, 0, 0, address.packed)
    return _ipv6(here, _UNSPECIFIED, solicited_node(address), message)


def answer(frame: bytes, address: IPAddress, mac: MacAddress) -> MacAddress | None:
    """The MAC that claims `address` in this frame; None for a frame about anything else, or our own probe.

    RFC 5227 §2.1.1: a claim is any ARP packet whose sender address is the probed one, and also a probe of another
    host for it. RFC 4862 §5.4.3, §5.4.4 say the same of IPv6. A claim under our own MAC counts: the MAC moves with
    the address (R9), so an old holder that still answers does so with the MAC we may have by now.
    """
    if isinstance(address, IPv4Address):
        return _arp_claim(frame, address, _raw(mac))
    return _discovery_claim(frame, address, _raw(mac))


def solicited_node(address: IPv6Address) -> IPv6Address:
    """RFC 4291 §2.7.1: ff02::1:ff00:0/104 and the low 24 bits of the address."""
    return IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(address) & 0xFFFFFF)


def multicast_mac(address: IPv6Address) -> bytes:
    """RFC 2464 §7."""
    return b"\x33\x33" + address.packed[12:]


def _arp(kind: int, sender: bytes, sender_ip: IPv4Address, target: bytes, target_ip: IPv4Address) -> bytes:
    body = _ARP.pack(1, 0x0800, 6, 4, kind, sender, sender_ip.packed, target, target_ip.packed)
    return _BROADCAST + sender + struct.pack("!H", ETH_P_ARP) + body


def _ipv6(sender: bytes, source: IPv6Address, destination: IPv6Address, message: bytes) -> bytes:
    """An ICMPv6 message; hop limit 255, or receivers drop it (RFC 4861 §7.1)."""
    pseudo = source.packed + destination.packed + struct.pack("!II", len(message), _ICMPV6)
    message = message[:2] + struct.pack("!H", _checksum(pseudo + message)) + message[4:]
    packet = _IPV6.pack(6 << 28, len(message), _ICMPV6, 255, source.packed, destination.packed) + message
    return multicast_mac(destination) + sender + struct.pack("!H", ETH_P_IPV6) + packet


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _arp_claim(frame: bytes, address: IPv4Address, here: bytes) -> MacAddress | None:
    if len(frame) < 14 + _ARP.size or frame[12:14] != struct.pack("!H", ETH_P_ARP):
        return None
    hardware, protocol, _, _, kind, sender, sender_ip, _, target_ip = _ARP.unpack_from(frame, 14)
    if (hardware, protocol) != (1, 0x0800):
        return None
    claims = sender_ip == address.packed
    probes = kind == _ARP_REQUEST and sender_ip == bytes(4) and target_ip == address.packed and sender != here
    return MacAddress(sender.hex(":")) if claims or probes else None


def _discovery_claim(frame: bytes, address: IPv6Address, here: bytes) -> MacAddress | None:
    if len(frame) < 14 + 40 + 24 or frame[12:14] != struct.pack("!H", ETH_P_IPV6):
        return None
    _, _, header, hops, source, _ = _IPV6.unpack_from(frame, 14)
    kind, target = frame[54], frame[62:78]
    if header != _ICMPV6 or hops != 255 or target != address.packed:  # RFC 4861 §7.1: 255, or it came from afar
        return None
    sender = frame[6:12]
    probes = kind == _SOLICITATION and source == bytes(16) and sender != here
    return MacAddress(sender.hex(":")) if kind == _ADVERTISEMENT or probes else None


def _raw(mac: MacAddress) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
