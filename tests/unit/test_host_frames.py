"""ARP and neighbour discovery frames, byte by byte from the RFCs."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeport.host import frames
from homeport.model.addresses import IPAddress, MacAddress

HERE, THERE = MacAddress("0a:00:00:00:00:01"), MacAddress("0a:00:00:00:00:02")
V4, V6 = ipaddress.ip_address("10.93.97.12"), ipaddress.ip_address("fd00:93::12")

# RFC 5227 §2.1.1: sender hardware address ours, sender IP all zero, target hardware address zero, target IP probed
ARP_PROBE = bytes.fromhex(
    "ffffffffffff 0a0000000001 08060001 0800 06 04 0001 0a0000000001 00000000 000000000000 0a5d610c"
)
# RFC 5227 §2.3: identical to the probe but for the sender IP
ARP_ANNOUNCEMENT = bytes.fromhex(
    "ffffffffffff 0a0000000001 08060001 0800 06 04 0001 0a0000000001 0a5d610c 000000000000 0a5d610c"
)


def test_arp_probe_and_announcement() -> None:
    assert frames.probe(V4, HERE) == ARP_PROBE
    request, reply = frames.announcements(V4, HERE)
    assert request == ARP_ANNOUNCEMENT
    assert reply[:20] == ARP_ANNOUNCEMENT[:20]
    assert reply[20:22] == b"\x00\x02"


def ones_complement_sum(data: bytes) -> int:
    total = 0
    for offset in range(0, len(data), 2):
        total += int.from_bytes(data[offset : offset + 2], "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("frame", [frames.probe(V6, HERE), *frames.announcements(V6, HERE)])
def test_icmpv6_is_one_that_receivers_accept(frame: bytes) -> None:
    """RFC 4861 §7.1: hop limit 255 and a valid checksum (RFC 4443 §2.3), or it is dropped silently."""
    packet = frame[14:]
    length = int.from_bytes(packet[4:6], "big")
    assert (packet[6], packet[7], length) == (58, 255, len(packet) - 40)
    pseudo = packet[8:40] + length.to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert ones_complement_sum(pseudo + packet[40:]) == 0xFFFF


def test_solicitation_is_that_of_duplicate_address_detection() -> None:
    frame = frames.probe(V6, HERE)
    assert frame[:6].hex(":") == "33:33:ff:00:00:12"
    assert ipaddress.IPv6Address(frame[22:38]) == ipaddress.ip_address("::")
    assert ipaddress.IPv6Address(frame[38:54]) == ipaddress.ip_address("ff02::1:ff00:12")
    assert (frame[54], frame[62:78], len(frame)) == (135, V6.packed, 78)  # RFC 4861 §4.3: no option from `::`


def test_advertisement_overrides_and_carries_the_mac() -> None:
    (frame,) = frames.announcements(V6, HERE)
    assert frame[:6].hex(":") == "33:33:00:00:00:01"
    assert (frame[54], frame[58] & 0xE0) == (136, 0x20)
    assert frame[78:] == b"\x02\x01" + bytes.fromhex("0a0000000001")


@pytest.mark.parametrize("address", [V4, V6])
class TestAnswer:
    def test_announcement_of_another_is_a_claim(self, address: IPAddress) -> None:
        for frame in frames.announcements(address, THERE):
            assert frames.answer(frame, address, HERE) == THERE

    def test_claim_under_our_own_mac_counts(self, address: IPAddress) -> None:
        """R9: the MAC moves with the address, so an old holder answers with it too."""
        for frame in frames.announcements(address, HERE):
            assert frames.answer(frame, address, HERE) == HERE

    def test_probe_of_another_is_a_claim_and_our_own_is_not(self, address: IPAddress) -> None:
        assert frames.answer(frames.probe(address, THERE), address, HERE) == THERE
        assert frames.answer(frames.probe(address, HERE), address, HERE) is None

    def test_other_addresses_are_none_of_our_business(self, address: IPAddress) -> None:
        other = address + 1
        for frame in (*frames.announcements(other, THERE), frames.probe(other, THERE)):
            assert frames.answer(frame, address, HERE) is None

    @given(garbage=st.binary(max_size=120))
    def test_garbage_is_no_answer(self, address: IPAddress, garbage: bytes) -> None:
        assert frames.answer(garbage, address, HERE) is None


def test_advertisement_from_afar_is_no_answer() -> None:
    """RFC 4861 §7.1.2: a hop limit below 255 means that a router forwarded it."""
    (frame,) = frames.announcements(V6, THERE)
    assert frames.answer(frame[:21] + b"\xfe" + frame[22:], V6, HERE) is None
