"""The rules and routes sbr decides on, as a table: facts in, plan out."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from itertools import islice
from typing import Any

import pytest

from homeport.model.errors import Drift
from homeport.model.results import Interface, IPConfig, Result, Route
from homeport.plugins import source_routing
from homeport.plugins.source_routing import Plan, Settings
from homeport.ports import KernelRoute, Rule

ALWAYS_IN_USE = frozenset({253, 254, 255})


def at(address: str, gateway: str = "", interface: int | None = 0) -> IPConfig:
    return IPConfig(
        address=ip_interface(address), gateway=ip_address(gateway) if gateway else None, interface=interface
    )


def route(dst: str, gw: str = "", src: str = "", table: int = 254, **rest: Any) -> KernelRoute:
    return KernelRoute(
        dst=ip_network(dst),
        gw=ip_address(gw) if gw else None,
        src=ip_address(src) if src else None,
        link="net1",
        table=table,
        **rest,
    )


def rule(source: str, table: int) -> Rule:
    network = ip_network(source)
    return Rule(family=4 if network.version == 4 else 6, src=network, table=table)


V4 = at("10.93.97.12/20", "10.93.96.1")
V6 = at("fd00:93::12/64", "fd00:93::1")
CONNECTED = route("10.93.96.0/20", src="10.93.97.12", scope=253, protocol=2)
CONNECTED6 = route("fd00:93::/64", protocol=2, priority=256)
LINK_LOCAL = route("fe80::/64", protocol=2, priority=256)
DEFAULT = route("0.0.0.0/0", "10.93.96.1")
BEYOND = route("10.200.0.0/16", "10.93.96.7")
ELSEWHERE = route("10.201.0.0/16", "192.0.2.1", onlink=True)

PLANS: dict[str, tuple[Settings, list[IPConfig], list[KernelRoute], set[int], Plan]] = {
    "one address": (
        Settings(),
        [V4],
        [DEFAULT, CONNECTED, BEYOND],
        set(),
        Plan(
            rules=(rule("10.93.97.12/32", 100),),
            routes=(
                route("10.93.96.0/20", src="10.93.97.12", scope=253, protocol=2, table=100),
                route("0.0.0.0/0", "10.93.96.1", table=100),
                route("0.0.0.0/0", "10.93.96.1", table=100),
                route("10.200.0.0/16", "10.93.96.7", table=100),
            ),
            moved=(DEFAULT, BEYOND, CONNECTED),
        ),
    ),
    "no gateway": (
        Settings(),
        [at("10.93.97.12/20")],
        [CONNECTED],
        set(),
        Plan(
            rules=(rule("10.93.97.12/32", 100),),
            routes=(route("10.93.96.0/20", src="10.93.97.12", scope=253, protocol=2, table=100),),
            moved=(CONNECTED,),
        ),
    ),
    "a table an address, none that is in use": (
        Settings(),
        [V4, V6],
        [CONNECTED, CONNECTED6, LINK_LOCAL],
        {100, 102},
        Plan(
            rules=(rule("10.93.97.12/32", 101), rule("fd00:93::12/128", 103)),
            routes=(
                route("10.93.96.0/20", src="10.93.97.12", scope=253, protocol=2, table=101),
                route("0.0.0.0/0", "10.93.96.1", table=101),
                route("fd00:93::/64", protocol=2, priority=256, table=103),
                route("fe80::/64", protocol=2, priority=256, table=103),
                route("::/0", "fd00:93::1", table=103),
            ),
            moved=(CONNECTED, CONNECTED6),
        ),
    ),
    "a family without an address keeps its routes": (
        Settings(),
        [at("10.93.97.12/20")],
        [CONNECTED6, LINK_LOCAL],
        set(),
        Plan(rules=(rule("10.93.97.12/32", 100),)),
    ),
    "each address takes the routes of its subnet": (
        Settings(),
        [at("10.1.0.5/24"), at("10.2.0.5/24")],
        [
            route("10.1.0.0/24", src="10.1.0.5"),
            route("10.2.0.0/24", src="10.2.0.5"),
            route("10.9.0.0/16", "10.2.0.1"),
            route("10.8.0.0/16"),
        ],
        set(),
        Plan(
            rules=(rule("10.1.0.5/32", 100), rule("10.2.0.5/32", 101)),
            routes=(
                route("10.1.0.0/24", src="10.1.0.5", table=100),
                route("10.8.0.0/16", table=100),
                route("10.2.0.0/24", src="10.2.0.5", table=101),
                route("10.8.0.0/16", table=101),
                route("10.9.0.0/16", "10.2.0.1", table=101),
            ),
            moved=(
                route("10.9.0.0/16", "10.2.0.1"),
                route("10.1.0.0/24", src="10.1.0.5"),
                route("10.2.0.0/24", src="10.2.0.5"),
                route("10.8.0.0/16"),
            ),
        ),
    ),
    "a route by a gateway of no subnet is not lost": (
        Settings(),
        [at("10.93.97.12/20")],
        [ELSEWHERE],
        set(),
        Plan(
            rules=(rule("10.93.97.12/32", 100),),
            routes=(route("10.201.0.0/16", "192.0.2.1", table=100, onlink=True),),
            moved=(ELSEWHERE,),
        ),
    ),
    "a configured gateway takes the place of every other": (
        Settings(gateways={4: ip_address("10.93.96.9")}),
        [V4],
        [DEFAULT, CONNECTED],
        set(),
        Plan(
            rules=(rule("10.93.97.12/32", 100),),
            routes=(
                route("10.93.96.0/20", src="10.93.97.12", scope=253, protocol=2, table=100),
                route("0.0.0.0/0", "10.93.96.9", table=100),
            ),
            moved=(DEFAULT, CONNECTED),
        ),
    ),
    "a named table is left to its owner": (
        Settings(table=500, gateways={4: ip_address("10.93.96.9")}, add_source_hints=True),
        [V4, V6],
        [DEFAULT, CONNECTED],
        {500},
        Plan(rules=(rule("10.93.97.12/32", 500), rule("fd00:93::12/128", 500))),
    ),
    "source hints keep what is connected": (
        Settings(add_source_hints=True),
        [V4, V6],
        [DEFAULT, CONNECTED6],
        set(),
        Plan(
            rules=(rule("10.93.97.12/32", 100), rule("fd00:93::12/128", 101)),
            routes=(
                route("0.0.0.0/0", "10.93.96.1", table=100),
                route("0.0.0.0/0", "10.93.96.1", table=100),
                route("fd00:93::/64", protocol=2, priority=256, table=101),
                route("::/0", "fd00:93::1", table=101),
            ),
            hints=(
                route("10.93.96.0/20", src="10.93.97.12", scope=253),
                route("fd00:93::/64", src="fd00:93::12", protocol=2, priority=256, scope=253),
            ),
            moved=(DEFAULT,),
        ),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_plan(name: str) -> None:
    settings, ips, main, in_use, expected = PLANS[name]
    assert source_routing.plan(settings, ips, ifname="net1", main=main, in_use=ALWAYS_IN_USE | in_use) == expected


def test_free_tables_pass_over_the_kernels_own() -> None:
    in_use = set(range(100, 252))
    assert list(islice(source_routing.free_tables(in_use), 3)) == [252, 256, 257]


OWN = Result(
    interfaces=(Interface(name="br0"), Interface(name="net1", sandbox="/ns")),
    ips=(at("10.1.0.1/24", interface=0), at("10.1.0.2/24", interface=1), at("10.1.0.3/24", interface=None)),
)


def test_own_ips_are_those_of_the_interface_and_those_of_none() -> None:
    assert [str(ip.address.ip) for ip in source_routing.own_ips(OWN, "net1")] == ["10.1.0.2", "10.1.0.3"]


MADE = Result(
    interfaces=(Interface(name="net1", sandbox="/ns"),),
    ips=(V4,),
    routes=(Route(dst=ip_network("10.200.0.0/16")), Route(dst=ip_network("10.201.0.0/16"), table=7)),
)
THERE = [
    route("10.93.96.0/20", src="10.93.97.12", table=100),
    route("0.0.0.0/0", "10.93.96.1", table=100),
    route("10.200.0.0/16", "10.93.96.1", table=100),
]


def check(settings: Settings, rules: list[Rule], routes: list[KernelRoute]) -> None:
    source_routing.check(settings, V4, MADE, ifname="net1", rules=rules, routes=routes)


def test_check_finds_nothing_amiss() -> None:
    check(Settings(), [rule("10.93.97.12/32", 100)], THERE)
    check(Settings(table=500), [rule("10.93.97.12/32", 500)], [])


@pytest.mark.parametrize(
    ("settings", "rules", "routes", "text"),
    [
        (Settings(), [], THERE, "found no rule, expected one to a table of its own"),
        (Settings(), [rule("10.93.97.0/24", 100)], THERE, "found no rule"),
        (Settings(table=500), [rule("10.93.97.12/32", 100)], THERE, "found no rule, expected one to table 500"),
        (Settings(), [rule("10.93.97.12/32", 101)], THERE, "found no default route by 10.93.96.1 in table 101"),
        (Settings(), [rule("10.93.97.12/32", 100)], THERE[:1], "found no default route by 10.93.96.1 in table 100"),
        (Settings(), [rule("10.93.97.12/32", 100)], THERE[1:], "found no route to 10.93.96.0/20 in table 100"),
        (Settings(), [rule("10.93.97.12/32", 100)], THERE[:2], "found no route to 10.200.0.0/16 in table 100"),
        (
            Settings(gateways={4: ip_address("10.93.96.9")}),
            [rule("10.93.97.12/32", 100)],
            THERE,
            "found no default route by 10.93.96.9",
        ),
    ],
)
def test_check_finds_drift(settings: Settings, rules: list[Rule], routes: list[KernelRoute], text: str) -> None:
    with pytest.raises(Drift) as raised:
        check(settings, rules, routes)
    assert text in raised.value.msg
