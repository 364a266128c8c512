"""Routes and rules through the kernel, seen by iproute2."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from homeport.model.errors import KernelRefused, MissingLink
from homeport.ports import KernelRoute, Rule

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, Node

pytestmark = pytest.mark.root
DEFAULT = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@pytest.fixture
def addressed(node: Node) -> Node:
    """The node with 10.93.96.2/20 and fd00:93::2/64 on eth1."""
    node.host.add_address("eth1", ip_interface("10.93.96.2/20"))
    node.host.add_address("eth1", ip_interface("fd00:93::2/64"), duplicate_detection=False)
    return node


def seen(ip_json: IpJson, node: Node, family: int, *args: str) -> list[dict[str, Any]]:
    """Static routes only: what the kernel made for addresses is not ours."""
    found = ip_json(node.netns, f"-{family}", "route", "show", *args)
    return [route for route in found if route["protocol"] != "kernel"]


def test_every_field_of_a_route(addressed: Node, ip_json: IpJson) -> None:
    route = KernelRoute(
        dst=ip_network("10.200.0.0/16"),
        gw=ip_address("10.93.96.1"),
        link="eth1",
        src=ip_address("10.93.96.2"),
        table=1000,
        priority=77,
        mtu_bytes=1300,
        advmss=1200,
    )
    addressed.host.add_route(route)
    (found,) = seen(ip_json, addressed, 4, "table", "1000")
    assert (found["dst"], found["gateway"], found["dev"], found["prefsrc"]) == (
        "10.200.0.0/16",
        "10.93.96.1",
        "eth1",
        "10.93.96.2",
    )
    assert (found["metric"], found["metrics"], found["protocol"]) == (77, [{"mtu": 1300, "advmss": 1200}], "boot")
    (read,) = addressed.host.routes(table=1000)
    assert read == KernelRoute(
        dst=route.dst,
        gw=route.gw,
        link="eth1",
        src=route.src,
        table=1000,
        scope=0,
        priority=77,
        mtu_bytes=1300,
        advmss=1200,
        protocol=3,
    )
    addressed.host.delete_route(route)
    assert seen(ip_json, addressed, 4, "table", "1000") == []


@pytest.mark.parametrize("scope", [None, 0, 253])
def test_scope_is_universe_unless_asked(scope: int | None, addressed: Node, ip_json: IpJson) -> None:
    addressed.host.add_route(KernelRoute(dst=ip_network("10.200.0.0/16"), link="eth1", scope=scope))
    (found,) = seen(ip_json, addressed, 4)
    assert found.get("scope") == ("link" if scope == 253 else "global" if "scope" in found else None)


def test_onlink_gateway_outside_the_subnet(addressed: Node, ip_json: IpJson) -> None:
    route = KernelRoute(dst=DEFAULT[4], gw=ip_address("192.0.2.1"), link="eth1")
    with pytest.raises(
        KernelRefused, match=r'add route 0.0.0.0/0 via 192.0.2.1 dev "eth1": network is unreachable'
    ) as no:
        addressed.host.add_route(route)
    assert no.value.details == "ENETUNREACH: Nexthop has invalid gateway"
    addressed.host.add_route(KernelRoute(dst=DEFAULT[4], gw=ip_address("192.0.2.1"), link="eth1", onlink=True))
    (found,) = seen(ip_json, addressed, 4)
    assert found["flags"] == ["onlink"]
    assert [r.onlink for r in addressed.host.routes(family=4) if r.dst == DEFAULT[4]] == [True]


def test_second_ipv4_default_goes_ahead(addressed: Node, ip_json: IpJson) -> None:
    """As the Go plugins' create-without-exclusive does."""
    for gateway in ("10.93.96.1", "10.93.96.9"):
        addressed.host.add_route(KernelRoute(dst=DEFAULT[4], gw=ip_address(gateway), link="eth1"))
    assert [route["gateway"] for route in seen(ip_json, addressed, 4)] == ["10.93.96.9", "10.93.96.1"]
    assert [str(r.gw) for r in addressed.host.routes(family=4) if r.dst == DEFAULT[4]] == ["10.93.96.9", "10.93.96.1"]


def test_second_ipv6_default_joins(addressed: Node, ip_json: IpJson) -> None:
    for gateway in ("fd00:93::1", "fd00:93::9"):
        addressed.host.add_route(KernelRoute(dst=DEFAULT[6], gw=ip_address(gateway), link="eth1"))
    (found,) = seen(ip_json, addressed, 6)
    assert sorted(hop["gateway"] for hop in found["nexthops"]) == ["fd00:93::1", "fd00:93::9"]
    read = [route for route in addressed.host.routes(family=6) if route.dst == DEFAULT[6]]
    assert sorted(str(route.gw) for route in read) == ["fd00:93::1", "fd00:93::9"]
    assert {route.link for route in read} == {"eth1"}


def test_same_route_twice_is_refused(addressed: Node) -> None:
    route = KernelRoute(dst=DEFAULT[4], gw=ip_address("10.93.96.1"), link="eth1")
    addressed.host.add_route(route)
    with pytest.raises(KernelRefused, match="file exists") as refused:
        addressed.host.add_route(route)
    assert refused.value.details == "EEXIST"


def test_replace_and_its_undoing(addressed: Node, ip_json: IpJson) -> None:
    old = KernelRoute(dst=DEFAULT[4], gw=ip_address("10.93.96.1"), link="eth1", mtu_bytes=1300)
    addressed.host.add_route(old)
    before = seen(ip_json, addressed, 4)

    def run() -> None:
        with addressed.host.operation():
            new = KernelRoute(dst=DEFAULT[4], gw=ip_address("10.93.96.9"), link="eth1")
            addressed.host.add_route(new, replace=True)
            assert [route["gateway"] for route in seen(ip_json, addressed, 4)] == ["10.93.96.9"]
            addressed.host.add_route(KernelRoute(dst=ip_network("10.7.0.0/16"), link="eth1"), replace=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert seen(ip_json, addressed, 4) == before


@pytest.mark.parametrize("family", [4, 6])
def test_operation_undoes_routes_and_only_its_own(family: int, addressed: Node, ip_json: IpJson) -> None:
    """A route like the operation's own, of another priority, was there before and stays."""
    gateway = ip_address("10.93.96.1" if family == 4 else "fd00:93::1")
    mine = KernelRoute(dst=DEFAULT[family], gw=gateway, link="eth1")
    for priority in (500, 2000):
        addressed.host.add_route(KernelRoute(dst=DEFAULT[family], gw=gateway, link="eth1", priority=priority))
    before = seen(ip_json, addressed, family)

    def run() -> None:
        with addressed.host.operation():
            addressed.host.add_route(mine)
            addressed.host.delete_route(KernelRoute(dst=DEFAULT[family], priority=500))
            assert len(seen(ip_json, addressed, family)) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert seen(ip_json, addressed, family) == before


def test_deleting_what_is_not_there(addressed: Node) -> None:
    addressed.host.delete_route(KernelRoute(dst=DEFAULT[4]))
    addressed.host.delete_route(KernelRoute(dst=DEFAULT[6], table=4711))
    addressed.host.delete_route(KernelRoute(dst=DEFAULT[4], link="nope0"))
    addressed.host.delete_rule(Rule(family=6, table=4711))


def test_missing_link_of_a_route(addressed: Node) -> None:
    with pytest.raises(MissingLink, match='link "nope0"'):
        addressed.host.add_route(KernelRoute(dst=DEFAULT[4], link="nope0"))
    assert addressed.host.routes(link="nope0") == ()


def test_listing_matches_iproute2(addressed: Node, ip_json: IpJson) -> None:
    for table in (254, 1000, 70000):
        for dst in ("10.50.0.0/16", "fd50::/48"):
            addressed.host.add_route(KernelRoute(dst=ip_network(dst), link="eth1", table=table))
    addressed.host.add_route(KernelRoute(dst=ip_network("10.60.0.0/16"), link="lo"))

    def key(dst: str) -> str:
        return {"default": "0.0.0.0/0"}.get(dst, dst if "/" in dst else f"{dst}/{128 if ':' in dst else 32}")

    for family in (4, 6):
        theirs = sorted(key(route["dst"]) for route in ip_json(addressed.netns, f"-{family}", "route", "show"))
        assert sorted(str(route.dst) for route in addressed.host.routes(family=family)) == theirs
    assert {str(route.dst) for route in addressed.host.routes(table=70000)} == {"10.50.0.0/16", "fd50::/48"}
    assert {str(route.dst) for route in addressed.host.routes(link="lo", family=4)} == {"10.60.0.0/16"}
    assert {route.table for route in addressed.host.routes(table=None)} == {254, 1000, 70000}
    assert addressed.host.routes(table=99) == ()


def test_blackholes_are_not_unicast_but_take_their_table(addressed: Node) -> None:
    add = ["ip", "route", "add", "blackhole", "10.66.0.0/16", "table", "166"]
    subprocess.run(["nsenter", f"--net={addressed.netns}", *add], check=True)
    add = ["ip", "rule", "add", "fwmark", "7", "lookup", "167"]
    subprocess.run(["nsenter", f"--net={addressed.netns}", *add], check=True)
    assert addressed.host.routes(table=166) == ()
    assert {166, 167} <= addressed.host.tables_in_use()
    assert 168 not in addressed.host.tables_in_use()


RULES = [
    (4, "10.93.96.2/32", 1000, None),
    (4, "10.93.0.0/16", 70000, 50),
    (6, "fd00:93::2/128", 1000, None),
    (6, None, 1001, 60),
]


@pytest.mark.parametrize(("family", "src", "table", "priority"), RULES)
def test_rules(family: Any, src: str | None, table: int, priority: int | None, node: Node, ip_json: IpJson) -> None:
    rule = Rule(family=family, src=ip_network(src) if src else None, table=table, priority=priority)
    before = ip_json(node.netns, f"-{family}", "rule")
    node.host.add_rule(rule)
    (added,) = [found for found in ip_json(node.netns, f"-{family}", "rule") if found not in before]
    assert added["table"] == str(table)
    assert added["src"] == (src.split("/")[0] if src else "all")
    assert priority in (None, added["priority"])
    (read,) = [found for found in node.host.rules() if found.table == table]
    assert (read.family, read.src, read.priority) == (family, rule.src, added["priority"])
    node.host.delete_rule(rule)
    assert ip_json(node.netns, f"-{family}", "rule") == before
    node.host.delete_rule(rule)


def test_same_rule_twice(node: Node) -> None:
    """The kernel refuses the second only where both have the same priority."""
    rule = Rule(family=4, src=ip_network("10.1.2.3/32"), table=100, priority=50)
    node.host.add_rule(rule)
    with pytest.raises(
        KernelRefused, match=r"add rule IPv4 from 10.1.2.3/32 lookup 100 priority 50: file exists"
    ) as no:
        node.host.add_rule(rule)
    assert no.value.details.startswith("EEXIST")


def test_rules_that_select_by_more_are_left_out(node: Node) -> None:
    for more in (["fwmark", "7"], ["iif", "eth1"], ["from", "10.1.0.0/16", "to", "10.2.0.0/16"]):
        subprocess.run(["nsenter", f"--net={node.netns}", "ip", "rule", "add", *more, "lookup", "99"], check=True)
    assert [rule for rule in node.host.rules() if rule.table == 99] == []


def test_operation_undoes_rules(node: Node, ip_json: IpJson) -> None:
    old = Rule(family=4, src=ip_network("10.1.2.3/32"), table=100, priority=1234)
    node.host.add_rule(old)
    before = ip_json(node.netns, "rule")
    steps: list[Callable[[], None]] = [
        lambda: node.host.add_rule(Rule(family=4, src=ip_network("10.1.2.3/32"), table=100)),
        lambda: node.host.add_rule(Rule(family=4, src=ip_network("10.1.2.4/32"), table=101)),
        lambda: node.host.delete_rule(old),
    ]

    def run() -> None:
        with node.host.operation():
            for step in steps:
                step()
            assert ip_json(node.netns, "rule") != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert ip_json(node.netns, "rule") == before
