"""The rules about routes: default routes, gateways, and source based routing."""

from __future__ import annotations

import pytest
from tests.lint_manifests import (
    host_local,
    listed,
    plugin,
    require_firing,
    require_silent,
    static,
    whereabouts,
    workload,
)

from homeport.lint.checking import check
from homeport.lint.fixing import fix

RANGE = '"range":"10.1.0.0/24"'
SBR, OVERRIDE = '{"type":"sbr"}', '{"type":"route-override"}'
MARKED_SBR = '{"type":«"sbr"}'
EVERYWHERE = '"routes":[{"dst":"0.0.0.0/0"}]'


def net(ipam: str, *more: str, name: str = "net", master: str = "eth1") -> str:
    return listed(plugin("macvlan", ipam, f'"master":"{master}"'), *more, name=name)


def pool(keys: str, *more: str, name: str = "net", master: str = "eth1") -> str:
    return net(whereabouts(keys), *more, name=name, master=master)


def default(name: str, number: int, keys: str = "", *more: str) -> str:
    ipam = f'"range":"10.{number}.0.0/24","gateway":"10.{number}.0.254","exclude":["10.{number}.0.254"],{EVERYWHERE}'
    return pool(ipam + keys, *more, name=name, master=f"eth{number}")


def selection(*entries: str) -> str:
    return "'[" + ",".join(entries) + "]'"


TWO = default("a", 1) + default("b", 2)

FIRING = [
    ("sbr-without-addresses", listed(plugin("macvlan"), MARKED_SBR)),
    ("sbr-without-addresses", listed(plugin("bridge", "{}"), MARKED_SBR)),
    ("sbr-without-gateway", pool(RANGE, MARKED_SBR)),
    ("sbr-without-gateway", net(static("10.1.0.5/24"), MARKED_SBR)),
    ("sbr-without-gateway", net('{"type":"static"}', MARKED_SBR)),
    ("sbr-twice", pool(RANGE, SBR, MARKED_SBR)),
    ("sbr-not-last", pool(RANGE, MARKED_SBR, OVERRIDE)),
    ("route-family", pool(RANGE + ',"routes":[{"dst":"10.9.0.0/16","gw":«"fd00::1"}]')),
    ("route-family", pool('"range":"fd00::/64","routes":[{"dst":"::/0","gw":«"10.1.0.1"}]')),
    ("route-gateway-outside", pool(RANGE + ',"routes":[{"dst":"10.9.0.0/16","gw":«"10.2.0.1"}]')),
    ("route-gateway-outside", net(static("10.1.0.5/24")[:-1] + ',"routes":[{"dst":"10.9.0.0/16","gw":«"10.1.1.1"}]}')),
    (
        "route-gateway-outside",
        net(host_local('"subnet":"10.1.0.0/25","routes":[{"dst":"0.0.0.0/0","gw":«"10.1.0.129"}]')),
    ),
    ("takes-default-route", pool(RANGE + ',"routes":[{"dst":«"0.0.0.0/0"}]')),
    ("takes-default-route", listed(plugin("bridge", whereabouts(RANGE), '"isDefaultGateway":«true'))),
    ("default-routes", TWO + workload("a,«b")),
    ("default-routes", default("a", 1) + workload("a,«a")),
    (
        "default-routes",
        default("a", 1)
        + listed(plugin("bridge", whereabouts('"range":"10.3.0.0/24"'), '"isDefaultGateway":true'), name="c")
        + workload("a,«c"),
    ),
    (
        "default-route-twice",
        TWO
        + workload(
            selection('{"name":"a","default-route":["10.1.0.254"]}', '{"name":"b","default-route":«["10.2.0.254"]}')
        ),
    ),
    ("default-route-twice", workload(selection('{"name":"a","default-route":«["10.1.0.1","10.1.0.2"]}'))),
    ("default-route-outside", pool(RANGE) + workload(selection('{"name":"net","default-route":«["10.2.0.1"]}'))),
    ("default-route-outside", pool(RANGE) + workload(selection('{"name":"net","default-route":«["fd00::1"]}'))),
    (
        "default-route-outside",
        net('{"type":"static"}')
        + workload(selection('{"name":"net","ips":["10.1.0.5/25"],"default-route":«["10.1.0.129"]}')),
    ),
    ("subnet-twice", pool(RANGE, name="a") + pool(RANGE, name="b") + workload("a,«b")),
    ("subnet-twice", pool(RANGE, name="a") + pool('"range":"10.1.0.0/16"', name="b", master="eth2") + workload("a,«b")),
]

SILENT = {
    "sbr with a gateway": pool(RANGE + ',"gateway":"10.1.0.254","exclude":["10.1.0.254"]', SBR),
    "sbr with gateways of its own": pool(RANGE, '{"type":"sbr","gateways":["10.1.0.254"]}'),
    "sbr with a table": pool(RANGE, '{"type":"sbr","table":120}'),
    "sbr with a default route": pool(RANGE + ',"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.254"}]', SBR),
    "sbr behind host-local, which has a gateway": listed(plugin("bridge", host_local('"subnet":"10.1.0.0/24"')), SBR),
    "sbr behind a range of the node's own file": net('{"type":"whereabouts","network_name":"x"}', SBR),
    "sbr behind a plugin of others": listed('{"type":"flannel"}', SBR),
    "sbr behind one that gives addresses after all": listed(plugin("macvlan"), '{"type":"our-ipam-chain"}', SBR),
    "sbr behind route-override": pool(RANGE + ',"gateway":"10.1.0.254","exclude":["10.1.0.254"]', OVERRIDE, SBR),
    "sbr before tuning": pool(RANGE + ',"gateway":"10.1.0.254","exclude":["10.1.0.254"]', SBR, '{"type":"tuning"}'),
    "a gateway that is a neighbour": pool(RANGE + ',"routes":[{"dst":"10.9.0.0/16","gw":"10.1.0.200"}]'),
    "a link-local gateway": pool('"range":"fd00::/64","routes":[{"dst":"fd01::/64","gw":"fe80::1"}]'),
    "a gateway behind another route": pool(
        RANGE + ',"routes":[{"dst":"169.254.1.1/32"},{"dst":"10.9.0.0/16","gw":"169.254.1.1"}]'
    ),
    "a gateway of a subnet that DHCP may give": listed(
        plugin("macvlan", '{"type":"dhcp"}'),
        plugin("ipvlan", whereabouts(RANGE + ',"routes":[{"dst":"10.9.0.0/16","gw":"10.2.0.1"}]')),
    ),
    "a static network whose addresses pods ask for": listed(
        plugin("macvlan", '{"type":"static","routes":[{"dst":"10.9.0.0/16","gw":"10.2.0.1"}]}')
    ),
    "a default route in a table of its own": pool(RANGE + ',"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.9","table":9}]'),
    "a default route that sbr takes along": pool(RANGE + ',"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.9"}]', SBR),
    "one default gateway of each family": workload(
        selection('{"name":"a","default-route":["10.1.0.1"]}', '{"name":"a","default-route":["fd00::1"]}')
    ),
    "a default gateway that is a neighbour": pool(RANGE)
    + workload(selection('{"name":"net","default-route":["10.1.0.1","fe80::1"]}')),
    "a default gateway of an address asked for": pool(RANGE)
    + workload(selection('{"name":"net","ips":["10.2.0.5/24"],"default-route":["10.2.0.1"]}')),
    "a default gateway of somebody else's subnet": net('{"type":"dhcp"}')
    + workload(selection('{"name":"net","default-route":["10.2.0.1"]}')),
    "two subnets": pool(RANGE, name="a") + pool('"range":"10.2.0.0/24"', name="b") + workload("a,b"),
    "one network twice": pool(RANGE) + workload("net,net"),
    "one subnet, and sbr in one": pool(RANGE, name="a")
    + pool(RANGE + ',"gateway":"10.1.0.254","exclude":["10.1.0.254"]', SBR, name="b")
    + workload("a,b"),
}


@pytest.mark.parametrize(("rule", "marked"), [pytest.param(r, m, id=f"{r}-{n}") for n, (r, m) in enumerate(FIRING)])
def test_a_rule_fires_where_the_mistake_stands(rule: str, marked: str) -> None:
    require_firing(rule, marked)


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT.keys())
def test_what_is_right_is_silent(text: str) -> None:
    require_silent(text, "unknown-plugin", "unknown-network", "no-range")


@pytest.mark.parametrize(
    "text",
    [
        TWO + workload(selection('{"name":"a","default-route":["10.1.0.254"]}', '{"name":"b"}')),
        default("a", 1) + default("b", 2, "", SBR) + workload("a,b"),
        default("a", 1)
        + pool('"range":"fd00::/64","routes":[{"dst":"::/0","gw":"fd00::9"}]', name="b", master="eth2")
        + workload("a,b"),
    ],
    ids=["one is said to have it", "sbr takes one along", "one of each family"],
)
def test_one_default_route_is_no_clash(text: str) -> None:
    require_silent(text, "takes-default-route")


def test_sbr_is_moved_behind_what_adds_routes() -> None:
    text = pool(RANGE, SBR, OVERRIDE, '{"type":"tuning"}')
    fixed = fix({"a.yaml": text}).texts["a.yaml"]
    assert fixed.index("route-override") < fixed.index("tuning") < fixed.index("sbr")
    assert "sbr-not-last" not in {f.rule for f in check({"a.yaml": fixed}).findings}
