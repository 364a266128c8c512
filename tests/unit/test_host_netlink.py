"""The message format against pyroute2, which reads what we write and writes what we read, and against garbage."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from homeport.host import addressing, bridging, linking, netlink, routing, uapi
from homeport.model.addresses import MacAddress
from homeport.model.errors import DecodeFailure
from homeport.ports import BridgeVlan, KernelRoute, LinkAddress, Rule

DECODERS: list[Callable[[bytes], object]] = [
    linking.decode_link,
    addressing.decode_address,
    lambda body: routing.decode_routes(body, {}),
    routing.decode_rule,
    bridging.decode_vlans,
    lambda body: list(netlink.messages(body)),
    lambda body: netlink.refusal(netlink.Message(uapi.NLMSG_ERROR, uapi.NLM_F_ACK_TLVS, 1, body)),
]


def read_by_pyroute2(kind: Any, body: bytes) -> Any:
    message = kind(netlink.request(16, 0, 1, body))
    message.decode()
    return message


def written_by_pyroute2(message: Any) -> bytes:
    message.encode()
    return bytes(message.data[16:])


def attributes(message: Any) -> dict[str, Any]:
    return {entry[0]: entry[1] for entry in message["attrs"]}


def test_route_is_what_pyroute2_reads() -> None:
    route = KernelRoute(
        dst=ipaddress.ip_network("10.9.0.0/16"),
        gw=ipaddress.ip_address("10.1.2.1"),
        src=ipaddress.ip_address("10.1.2.3"),
        table=1000,
        priority=7,
        mtu_bytes=1300,
        advmss=1200,
        onlink=True,
    )
    read = read_by_pyroute2(rtmsg, routing.encode_route(route, 5))
    assert (read["family"], read["dst_len"], read["scope"], read["type"], read["proto"]) == (2, 16, 0, 1, 3)
    assert read["flags"] == uapi.RTNH_F_ONLINK
    found = attributes(read)
    metrics = attributes(found.pop("RTA_METRICS"))
    assert metrics == {"RTAX_MTU": 1300, "RTAX_ADVMSS": 1200}
    assert found == {
        "RTA_DST": "10.9.0.0",
        "RTA_GATEWAY": "10.1.2.1",
        "RTA_PREFSRC": "10.1.2.3",
        "RTA_TABLE": 1000,
        "RTA_PRIORITY": 7,
        "RTA_OIF": 5,
    }


def test_default_route_has_no_destination_and_the_standard_scope() -> None:
    """`ip route` and the Go plugins leave RTA_DST out, and use scope universe where no scope is configured."""
    read = read_by_pyroute2(rtmsg, routing.encode_route(KernelRoute(dst=ipaddress.ip_network("::/0")), 5))
    assert (read["family"], read["dst_len"], read["scope"], read["table"]) == (10, 0, 0, 254)
    assert "RTA_DST" not in attributes(read)


def test_route_of_pyroute2_is_what_we_read() -> None:
    message = rtmsg()
    message.update(family=2, dst_len=24, table=252, proto=16, scope=253, type=1)
    message["attrs"] = [
        ("RTA_DST", "10.3.0.0"),
        ("RTA_TABLE", 70000),
        ("RTA_PRIORITY", 9),
        ("RTA_MULTIPATH", [{"hops": 0, "oif": 3, "attrs": [("RTA_GATEWAY", "10.1.0.1")]}, {"hops": 0, "oif": 4}]),
    ]
    first, second = routing.decode_routes(written_by_pyroute2(message), {3: "a", 4: "b"})
    assert first == KernelRoute(
        dst=ipaddress.ip_network("10.3.0.0/24"),
        gw=ipaddress.ip_address("10.1.0.1"),
        link="a",
        table=70000,
        scope=253,
        priority=9,
        protocol=16,
    )
    assert (second.gw, second.link) == (None, "b")


@pytest.mark.parametrize("field", [{"type": 6}, {"src_len": 24}, {"tos": 8}, {"flags": uapi.RTM_F_CLONED}])
def test_route_that_a_kernel_route_cannot_say_is_left_out(field: dict[str, int]) -> None:
    message = rtmsg()
    message.update(family=2, dst_len=0, table=254, type=1)
    assert len(routing.decode_routes(written_by_pyroute2(message), {})) == 1
    message = rtmsg()
    message.update(family=2, dst_len=0, table=254, type=1)
    message.update(field)
    assert routing.decode_routes(written_by_pyroute2(message), {}) == ()


def test_address_is_what_pyroute2_reads() -> None:
    body = addressing.encode_address(3, ipaddress.ip_interface("10.1.2.3/24"))
    read = read_by_pyroute2(ifaddrmsg, body)
    assert (read["family"], read["prefixlen"], read["index"], read["scope"]) == (2, 24, 3, 0)
    assert attributes(read) == {"IFA_ADDRESS": "10.1.2.3", "IFA_LOCAL": "10.1.2.3", "IFA_BROADCAST": "10.1.2.255"}


@pytest.mark.parametrize("address", ["10.1.2.3/31", "10.1.2.3/32", "127.0.0.1/8", "fd00::1/64"])
def test_address_without_broadcast(address: str) -> None:
    read = read_by_pyroute2(ifaddrmsg, addressing.encode_address(3, ipaddress.ip_interface(address)))
    assert "IFA_BROADCAST" not in attributes(read)


@pytest.mark.parametrize(
    ("flags", "tentative", "failed"), [(0x80, False, False), (0x40, True, False), (0x48, False, True)]
)
def test_address_of_pyroute2_is_what_we_read(flags: int, tentative: bool, failed: bool) -> None:
    message = ifaddrmsg()
    message.update(family=10, prefixlen=64, index=7, scope=253)
    message["attrs"] = [("IFA_ADDRESS", "fe80::1"), ("IFA_FLAGS", flags)]
    found = LinkAddress(address=ipaddress.ip_interface("fe80::1/64"), scope=253, tentative=tentative, failed=failed)
    assert addressing.decode_address(written_by_pyroute2(message)) == (7, found)


def test_rule_is_what_pyroute2_reads() -> None:
    rule = Rule(family=6, src=ipaddress.ip_network("fd00::3/128"), table=100, priority=5)
    read = read_by_pyroute2(fibmsg, routing.encode_rule(rule))
    assert (read["family"], read["src_len"], read["action"], read["table"]) == (10, 128, 1, 100)
    assert attributes(read) == {"FRA_SRC": "fd00::3", "FRA_TABLE": 100, "FRA_PRIORITY": 5}


@pytest.mark.parametrize(
    "more", [("FRA_FWMARK", 1), ("FRA_IIFNAME", "eth0"), ("FRA_SUPPRESS_PREFIXLEN", 0), ("FRA_DST", "10.0.0.0")]
)
def test_rule_that_selects_by_more_is_no_rule_of_ours(more: tuple[str, Any]) -> None:
    message = fibmsg()
    message.update(family=2, table=254, action=1)
    message["attrs"] = [("FRA_TABLE", 254), ("FRA_PRIORITY", 5)]
    assert routing.decode_rule(written_by_pyroute2(message)) == Rule(family=4, table=254, priority=5)
    message = fibmsg()
    message.update(family=2, table=254, action=1)
    message["attrs"] = [("FRA_TABLE", 254), ("FRA_PRIORITY", 5), more]
    assert routing.decode_rule(written_by_pyroute2(message)) is None


def test_link_of_pyroute2_is_what_we_read() -> None:
    message = ifinfmsg()
    info = [("IFLA_INFO_KIND", "ipvlan"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_IPVLAN_MODE", 2)]})]
    message.update(index=9, flags=uapi.IFF_UP | uapi.IFF_PROMISC)
    message["attrs"] = [
        ("IFLA_IFNAME", "net1"),
        ("IFLA_MTU", 1400),
        ("IFLA_ADDRESS", "0a:58:0a:00:00:01"),
        ("IFLA_LINK", 4),
        ("IFLA_IFALIAS", "an alias"),
        ("IFLA_LINKINFO", {"attrs": info}),
    ]
    found = linking.decode_link(written_by_pyroute2(message))
    assert (found.index, found.name, found.kind, found.mode, found.parent) == (9, "net1", "ipvlan", "l3s", 4)
    assert (found.mac, found.mtu_bytes, found.alias) == (MacAddress("0a:58:0a:00:00:01"), 1400, "an alias")
    assert (found.up, found.promisc, found.running, found.master) == (True, True, False, None)


def test_vlan_ranges_come_back_as_they_went() -> None:
    vlans = (BridgeVlan(first=10, last=20), BridgeVlan(first=30, last=30, pvid=True, untagged=True))
    bodies = [bridging.encode_vlan(3, vlan, on_bridge=False)[len(linking.header()) :] for vlan in vlans]
    spec = b"".join(netlink.attributes(body)[uapi.IFLA_AF_SPEC] for body in bodies)
    assert bridging.decode_vlans(linking.header(3) + netlink.nested(uapi.IFLA_AF_SPEC, spec)) == vlans


def test_refusal_tells_the_kernels_own_words() -> None:
    asked = netlink.request(16, 0, 1, b"1234567")
    body = struct.pack("=i", -errno.EEXIST) + asked + b"\0" + netlink.text(uapi.NLMSGERR_ATTR_MSG, "already there")
    message = netlink.Message(uapi.NLMSG_ERROR, uapi.NLM_F_ACK_TLVS, 1, body)
    assert netlink.refusal(message) == (errno.EEXIST, "already there")
    assert netlink.refusal(message._replace(flags=0)) == (errno.EEXIST, "")


@given(st.binary(max_size=200))
def test_garbage_is_a_decode_failure_or_a_value(body: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(body)
        except DecodeFailure:
            continue


@given(st.binary(max_size=40), st.integers(0, 0x3FFF), st.binary(max_size=40))
def test_attributes_round_trip(first: bytes, kind: int, second: bytes) -> None:
    encoded = netlink.attribute(kind, first) + netlink.attribute(1, second)
    assert list(netlink.each_attribute(encoded)) == [(kind, first), (1, second)]
    assert len(encoded) % 4 == 0
