"""What a result puts on an interface, which master it stands on, and what CHECK calls drift; pure parts only."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from homeport.cni.invocations import Attachment
from homeport.model.addresses import MacAddress
from homeport.model.errors import Drift, InvalidNetConf, InvalidNetns
from homeport.model.results import Interface, IPConfig, Result, Route
from homeport.plugins import drift, interfaces, masters
from homeport.ports import KernelRoute, Link, LinkAddress

NET1 = Interface(name="net1", mac="02:00:00:00:00:01", sandbox="/run/netns/x")
BRIDGE = Interface(name="br0")


def at(address: str, gateway: str = "", interface: int | None = 0) -> IPConfig:
    return IPConfig(
        address=ip_interface(address), gateway=ip_address(gateway) if gateway else None, interface=interface
    )


def to(dst: str, gw: str = "", **rest: Any) -> Route:
    return Route(dst=ip_network(dst), gw=ip_address(gw) if gw else None, **rest)


def kernel(dst: str, gw: str = "", **rest: Any) -> KernelRoute:
    return KernelRoute(dst=ip_network(dst), gw=ip_address(gw) if gw else None, link="net1", **rest)


# --- plan --------------------------------------------------------------------------------------------------------


def test_addresses_without_an_interface_are_left_alone() -> None:
    wanted = interfaces.plan(Result(interfaces=(NET1,), ips=(at("10.1.0.2/24"), at("10.2.0.2/24", "", None))), "net1")
    assert wanted.addresses == (ip_interface("10.1.0.2/24"),)


@pytest.mark.parametrize("index", [1, 2])
def test_an_index_that_leads_elsewhere_is_an_error(index: int) -> None:
    with pytest.raises(InvalidNetConf, match=rf"ips\[0\] 10\.1\.0\.2/24 has interface index {index}, expected the one"):
        interfaces.plan(Result(interfaces=(NET1, BRIDGE), ips=(at("10.1.0.2/24", "", index),)), "net1")


GATEWAYS = (at("10.1.0.2/24", "10.1.0.1"), at("10.2.0.2/24", "10.2.0.1"), at("fd00::2/64", "fd00::1"))

ROUTES: list[tuple[Route, KernelRoute]] = [
    (to("10.9.0.0/16"), kernel("10.9.0.0/16", "10.1.0.1")),
    (to("10.9.0.0/16", "10.1.0.7"), kernel("10.9.0.0/16", "10.1.0.7")),
    (to("::/0"), kernel("::/0", "fd00::1")),
    (to("10.9.0.0/16", scope=253), kernel("10.9.0.0/16", scope=253)),
    (to("10.9.0.0/16", scope=0), kernel("10.9.0.0/16", "10.1.0.1", scope=0)),
    (to("10.9.0.0/16", table=0), kernel("10.9.0.0/16", "10.1.0.1", table=254)),
    (
        to("10.9.0.0/16", table=7, priority=5, mtu_bytes=1400, advmss=1300),
        kernel("10.9.0.0/16", "10.1.0.1", table=7, priority=5, mtu_bytes=1400, advmss=1300),
    ),
]


@pytest.mark.parametrize(("route", "expected"), ROUTES)
def test_routes(route: Route, expected: KernelRoute) -> None:
    wanted = interfaces.plan(Result(interfaces=(NET1,), ips=GATEWAYS, routes=(route,)), "net1")
    assert wanted.routes == (expected,)


def test_detection_is_waited_for_only_before_an_ipv6_gateway() -> None:
    def of(*ips: IPConfig) -> interfaces.Addressing:
        return interfaces.plan(Result(interfaces=(NET1,), ips=ips), "net1")

    assert not of(at("fd00::2/64")).await_dad
    assert of(at("fd00::2/64")).has_ipv6
    assert of(at("fd00::2/64", "fd00::1")).await_dad
    assert not of(at("10.1.0.2/24", "10.1.0.1")).await_dad
    assert not of(at("10.1.0.2/24")).has_ipv6


def test_namespace_is_required() -> None:
    with pytest.raises(InvalidNetns, match="CNI_NETNS: missing"):
        interfaces.namespace(Attachment(container_id="c", ifname="net1"))


# --- masters -----------------------------------------------------------------------------------------------------


def led(dst: str, link: str | None) -> KernelRoute:
    return KernelRoute(dst=ip_network(dst), link=link)


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ([], None),
        ([led("10.0.0.0/8", "eth1")], None),
        ([led("0.0.0.0/8", "eth1")], None),
        ([led("0.0.0.0/0", "eth1"), led("0.0.0.0/0", "eth2")], "eth1"),
        ([led("::/0", "eth2"), led("0.0.0.0/0", "eth1")], "eth1"),
        ([led("::/0", "eth2")], "eth2"),
        ([led("0.0.0.0/0", None), led("::/0", "eth2")], "eth2"),
    ],
)
def test_default_route_link(routes: list[KernelRoute], expected: str | None) -> None:
    assert masters.default_route_link(routes) == expected


def test_chained_master() -> None:
    assert masters.chained_master(Result(interfaces=(BRIDGE,))) == "br0"
    for interfaces_given in ((), (BRIDGE, NET1), (Interface(name=""),)):
        with pytest.raises(InvalidNetConf, match="expected one named interface to take as master"):
            masters.chained_master(Result(interfaces=interfaces_given))


# --- drift -------------------------------------------------------------------------------------------------------


def link(**changed: Any) -> Link:
    facts: dict[str, Any] = {
        "index": 2,
        "name": "net1",
        "kind": "macvlan",
        "mac": MacAddress("02:00:00:00:00:01"),
        "mtu_bytes": 1500,
        "up": True,
        "mode": "bridge",
    }
    return Link(**{**facts, **changed})


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"kind": ""}, "found kind physical, expected macvlan"),
        ({"mode": "vepa"}, "found mode vepa, expected bridge"),
        ({"mac": None}, "found MAC address None, expected 02:00:00:00:00:01"),
        ({"up": False}, "found it down, expected up"),
    ],
)
def test_compare_link(changed: dict[str, Any], text: str) -> None:
    drift.compare_link(link(), NET1, kind="macvlan", mode="bridge", netns="/run/netns/x")
    with pytest.raises(Drift) as raised:
        drift.compare_link(link(**changed), NET1, kind="macvlan", mode="bridge", netns="/run/netns/x")
    assert raised.value.msg == f'check "net1" in /run/netns/x: {text}'


def test_the_case_of_a_mac_does_not_matter() -> None:
    shouted = Interface(name="net1", mac="02:00:00:00:00:0A", sandbox="/run/netns/x")
    found = link(mac=MacAddress("02:00:00:00:00:0a"))
    drift.compare_link(found, shouted, kind="macvlan", mode="bridge", netns="/run/netns/x")


def test_an_address_that_failed_detection_is_drift() -> None:
    expected = [ip_interface("fd00::2/64")]
    there = LinkAddress(address=ip_interface("fd00::2/64"))
    drift.compare_addresses([there], expected, ifname="net1", netns="/x")
    failed = LinkAddress(address=ip_interface("fd00::2/64"), failed=True)
    with pytest.raises(Drift, match="failed duplicate detection"):
        drift.compare_addresses([failed], expected, ifname="net1", netns="/x")


@pytest.mark.parametrize(
    ("there", "expected", "same"),
    [
        (kernel("10.9.0.0/16", "10.1.0.1"), kernel("10.9.0.0/16", "10.1.0.1"), True),
        (kernel("10.9.0.0/16", "10.1.0.1", table=100), kernel("10.9.0.0/16", "10.1.0.1"), True),
        (kernel("10.9.0.0/16", "10.1.0.1", table=100), kernel("10.9.0.0/16", "10.1.0.1", table=7), False),
        (kernel("10.9.0.0/16", "10.1.0.2"), kernel("10.9.0.0/16", "10.1.0.1"), False),
        (kernel("10.9.0.0/17", "10.1.0.1"), kernel("10.9.0.0/16", "10.1.0.1"), False),
        (kernel("0.0.0.0/0", "10.1.0.2", table=100), kernel("0.0.0.0/0", "10.1.0.1"), True),
    ],
)
def test_compare_routes(there: KernelRoute, expected: KernelRoute, same: bool) -> None:
    if same:
        drift.compare_routes([there], [expected], ifname="net1", netns="/x")
    else:
        with pytest.raises(Drift, match=r"found no route to 10\.9\.0\.0/16 via 10\.1\.0\.1, expected one"):
            drift.compare_routes([there], [expected], ifname="net1", netns="/x")


def test_own_part_leaves_other_interfaces_addresses_out() -> None:
    result = Result(interfaces=(BRIDGE, NET1), ips=(at("10.1.0.1/24", "", 0), at("10.1.0.2/24", "", 1)))
    assert [str(ip.address) for ip in drift.own_part(result, NET1).ips] == ["10.1.0.2/24"]
