"""Every deliberate difference from the reference plugins is there: both sides of each row of docs/compatibility.md.

A test is named for the row's ID. When one fails because the reference plugins came to behave as we do, its row goes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.differential.cases import DUAL, GATEWAYS, ROUTED, SBR, bridge, host_local, macvlan, static
from tests.differential.sides import Answer, Call, Json, Side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.differential.cases import Plugin
    from tests.differential.twins import Twins

pytestmark = pytest.mark.root

ROW = re.compile(r"^\| `([a-z0-9-]+)` \|", re.MULTILINE)


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    page = Path(__file__).parents[2] / "docs" / "compatibility.md"
    rows = ROW.findall(page.read_text())
    tests = [name.removeprefix("test_is_").replace("_", "-") for name in globals() if name.startswith("test_is_")]
    assert sorted(rows) == sorted(tests)


def add(twins: Twins, *plugins: Plugin, **more: Any) -> tuple[Call, Answer, Answer]:
    call = Call(plugins, **more)
    return call, *twins.add(call)


def show(side: Side, place: str, *argv: str) -> list[Json]:
    """`ip -j` on the node or in the pod."""
    out = side.inside(side.node if place == "node" else side.pod, "ip", "-j", *argv)
    return [entry for entry in json.loads(out or "[]") if entry]


def links(side: Side, place: str) -> set[str]:
    return {link["ifname"] for link in show(side, place, "link", "show")}


def codes(*answers: Answer) -> list[int]:
    return [answer.code for answer in answers]


def kept(side: Side) -> set[str]:
    """The addresses host-local has in its files."""
    return {path.name for path in (side.data / "networks").rglob("10.*")}


def lose(side: Side) -> None:
    subprocess.run(["ip", "netns", "delete", side.pod.rsplit("/", 1)[1]], check=True)


# --- results and errors ---------------------------------------------------------------------------------------------


def test_is_empty_dns(twins: Twins) -> None:
    _, theirs, ours = add(twins, macvlan(DUAL))
    assert theirs.value["dns"] == {}
    assert "dns" not in ours.value


def test_is_ipam_dns(twins: Twins) -> None:
    _, theirs, ours = add(twins, bridge(ROUTED))
    assert theirs.value["dns"] == {}
    assert ours.value["dns"]["nameservers"] == ["10.1.2.53"]


def test_is_loopback_versions(twins: Twins) -> None:
    _, theirs, ours = add(twins, {"type": "loopback"}, version="0.4.0")
    assert [ip.get("version") for ip in theirs.value["ips"]] == [None, None]
    assert [ip.get("version") for ip in ours.value["ips"]] == ["4", "6"]


@pytest.mark.parametrize(
    ("plugin", "more", "code"),
    [
        (bridge(DUAL, vlan=5000), {}, 7),
        (bridge(DUAL, hairpinMode=True, promiscMode=True), {}, 7),
        (bridge(DUAL, mtu="big"), {}, 7),
        (bridge({"type": "no-such-ipam"}), {}, 105),
        (bridge({"type": "static"}), {}, 7),
        (bridge(static("10.1.2.3")), {}, 7),
        (bridge(DUAL), {"netns": "/run/netns/none"}, 8),
        (macvlan(DUAL, mode="odd"), {}, 7),
        (macvlan(DUAL, mtu=9000), {}, 7),
        ({"type": "macvlan", "master": "none0", "ipam": DUAL}, {}, 104),
        (macvlan(host_local(subnet="10.1.2.0/24", rangeStart="10.9.9.9")), {}, 7),
        (SBR, {}, 7),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) and "type" in value else None,
)
def test_is_error_codes(twins: Twins, plugin: Plugin, more: dict[str, str], code: int) -> None:
    _, theirs, ours = add(twins, plugin, **more)
    assert codes(theirs, ours) == [999, code]


def test_is_unknown_args(twins: Twins) -> None:
    _, theirs, ours = add(twins, bridge(static("10.1.2.3/24")), args="K8S_POD_NAME=web-0")
    assert codes(theirs, ours) == [999, 0]


def test_is_key_case(twins: Twins) -> None:
    add(twins, bridge(static("10.1.2.3/24"), ISGATEWAY=True))
    present = [show(side, "node", "-4", "address", "show", "dev", "br0") for side in (twins.theirs, twins.ours)]
    assert [bool(found) for found in present] == [True, False]


def test_is_spec_versions(their_bin: Path, our_bin: Path) -> None:
    def version(directory: Path) -> Json:
        environ = {"CNI_COMMAND": "VERSION", "CNI_PATH": str(directory), "PATH": str(Path(sys.executable).parent)}
        done = subprocess.run([directory / "bridge"], input=b"{}", env=environ, capture_output=True, check=True)
        found: Json = json.loads(done.stdout)
        return found

    theirs, ours = version(their_bin), version(our_bin)
    assert "1.1.0" not in theirs["supportedVersions"]
    assert set(ours["supportedVersions"]) == {*theirs["supportedVersions"], "1.1.0"}


# --- links and routes -----------------------------------------------------------------------------------------------


def test_is_queue_length(twins: Twins) -> None:
    add(twins, macvlan(DUAL))
    lengths = [show(side, "pod", "link", "show", "dev", "eth0")[0].get("txqlen") for side in (twins.theirs, twins.ours)]
    assert lengths == [None, 1000]


def test_is_route_metrics(twins: Twins) -> None:
    routes = [{"dst": "10.9.0.0/16", "gw": "10.1.2.9", "mtu": 1300, "priority": 7}]
    add(twins, macvlan(static("10.1.2.3/24", routes=routes)))
    theirs, ours = (show(side, "pod", "route", "show", "10.9.0.0/16")[0] for side in (twins.theirs, twins.ours))
    assert ("metric" in theirs, "metrics" in theirs) == (False, False)
    assert (ours["metric"], ours["metrics"]) == (7, [{"mtu": 1300}])


def test_is_newer_keys(twins: Twins) -> None:
    add(twins, bridge(DUAL, portIsolation=True))
    found = []
    for side in (twins.theirs, twins.ours):
        (port,) = [link for link in show(side, "node", "-d", "link", "show") if link.get("master") == "br0"]
        found.append(port["linkinfo"]["info_slave_data"]["isolated"])
    assert found == [False, True]


def test_is_bridge_mac_key(twins: Twins) -> None:
    _, theirs, ours = add(twins, bridge(DUAL, mac="02:11:22:33:44:77"))
    assert theirs.value["interfaces"][2]["mac"] != "02:11:22:33:44:77"
    assert ours.value["interfaces"][2]["mac"] == "02:11:22:33:44:77"


def test_is_default_route_twice(twins: Twins) -> None:
    """IPAM's default route has no gateway of its own, and isDefaultGateway adds one that has."""
    ipam = host_local(subnet="10.1.2.0/24", routes=[{"dst": "0.0.0.0/0"}])
    _, theirs, ours = add(twins, bridge(ipam, isDefaultGateway=True))
    assert codes(theirs, ours) == [999, 0]
    assert ours.value["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}]


def test_is_gateway_in_subnet(twins: Twins) -> None:
    _, theirs, ours = add(twins, bridge(static("10.1.2.1/24"), isGateway=True))
    assert theirs.value["ips"][0]["gateway"] == "10.1.2.1"  # the container's own
    assert ours.code == 7


def test_is_gateway_among_others(twins: Twins) -> None:
    twins.inside("node", "ip", "link", "add", "br0", "type", "bridge")
    for address in ("10.7.7.7/24", "10.1.2.1/24"):
        twins.inside("node", "ip", "address", "add", address, "dev", "br0")
    _, theirs, ours = add(twins, bridge(static("10.1.2.3/24"), isGateway=True))
    assert codes(theirs, ours) == [999, 0]


# --- filters --------------------------------------------------------------------------------------------------------


def ruleset(side: Side, chain: str) -> list[Json]:
    """The rules of our chain, none without it."""
    listed = json.loads(side.inside(side.node, "nft", "-j", "list", "ruleset"))["nftables"]
    return [
        i["rule"] for i in listed if "rule" in i and (i["rule"]["table"], i["rule"]["chain"]) == ("homeport", chain)
    ]


def iptables(side: Side) -> list[str]:
    saved = side.inside(side.node, "iptables-save", "-t", "nat").splitlines()
    return [line for line in saved if line.startswith("-A CNI-")]


def test_is_masquerading_by_nftables(twins: Twins) -> None:
    add(twins, bridge(static("10.1.2.3/24"), isGateway=True, ipMasq=True))
    assert iptables(twins.theirs)
    assert not ruleset(twins.theirs, "masq")
    assert not iptables(twins.ours)
    assert [rule["comment"] for rule in ruleset(twins.ours, "masq")] == ["net c1 eth0"]


def test_is_masquerading_ends(twins: Twins) -> None:
    """A DEL after the namespace is gone, as after every crash and reboot of a container."""
    call, theirs, ours = add(twins, bridge(static("10.1.2.3/24"), isGateway=True, ipMasq=True))
    for side, made in ((twins.theirs, theirs), (twins.ours, ours)):
        lose(side)
        assert side.delete(call, made.value).code == 0
    assert iptables(twins.theirs)
    assert not ruleset(twins.ours, "masq")


def test_is_antispoof_table(twins: Twins) -> None:
    add(twins, bridge(DUAL, macspoofchk=True))
    theirs = twins.theirs.inside(twins.theirs.node, "nft", "list", "tables")
    ours = twins.ours.inside(twins.ours.node, "nft", "list", "tables")
    assert theirs.split("\n")[0] == "table bridge nat"
    assert ours.split("\n")[0] == "table bridge homeport"


# --- CHECK ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plugins",
    [(macvlan(ROUTED),), (bridge(),), (macvlan(static("10.1.2.3/24", gateways=GATEWAYS)), SBR)],
    ids=["route-without-gateway", "no-ipam", "sbr"],
)
def test_is_false_alarms(twins: Twins, plugins: Sequence[Plugin]) -> None:
    call, theirs, ours = add(twins, *plugins)
    assert codes(twins.theirs.check(call, theirs.value), twins.ours.check(call, ours.value)) == [999, 0]


@pytest.mark.parametrize(
    "change",
    ["ip link set br0 down", "ip address delete 10.1.2.1/24 dev br0", "sysctl -qw net.ipv4.ip_forward=0"],
)
def test_is_drift_found(twins: Twins, change: str) -> None:
    call, theirs, ours = add(twins, bridge(static("10.1.2.3/24"), isGateway=True))
    twins.inside("node", *change.split())
    assert codes(twins.theirs.check(call, theirs.value), twins.ours.check(call, ours.value)) == [0, 102]


# --- DEL ------------------------------------------------------------------------------------------------------------


def test_is_failed_add(twins: Twins) -> None:
    """The last step fails: a route by a gateway that is nowhere."""
    routes = [{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]
    _, theirs, ours = add(twins, bridge(host_local(subnet="10.1.2.0/24", routes=routes)))
    assert theirs.code
    assert ours.code
    assert links(twins.theirs, "pod") == {"lo", "eth0"}
    assert links(twins.ours, "pod") == {"lo"}
    assert "br0" in links(twins.theirs, "node")
    assert "br0" not in links(twins.ours, "node")
    assert not kept(twins.ours)


def test_is_del_without_netns(twins: Twins) -> None:
    """CNI_NETNS is empty, the namespace is there: the address may not be free while an interface has it."""
    call, theirs, ours = add(twins, bridge(host_local(subnet="10.1.2.0/24")))
    unnamed = Call(call.plugins, netns="")
    assert codes(twins.theirs.delete(unnamed, theirs.value), twins.ours.delete(unnamed, ours.value)) == [0, 0]
    assert (kept(twins.theirs), links(twins.theirs, "pod")) == (set(), {"lo", "eth0"})
    assert (kept(twins.ours), links(twins.ours, "pod")) == (set(), {"lo"})


def test_is_del_own_kind(twins: Twins) -> None:
    twins.inside("pod", "ip", "link", "add", "eth0", "type", "bridge")
    call = Call([macvlan(DUAL)])
    assert codes(*twins.both(lambda side: side.delete(call))) == [0, 0]
    assert links(twins.theirs, "pod") == {"lo"}
    assert links(twins.ours, "pod") == {"lo", "eth0"}


# --- sbr ------------------------------------------------------------------------------------------------------------


def test_is_sbr_families(twins: Twins) -> None:
    add(twins, macvlan(static("10.1.2.3/24", "fd00:1::3/64", gateways=GATEWAYS)), SBR)

    def destinations(side: Side, family: str, table: str) -> set[str]:
        routes = show(side, "pod", family, "route", "show", "table", "all")
        return {route["dst"] for route in routes if route.get("table", "main") == table}

    theirs, ours = twins.theirs, twins.ours
    assert "fe80::/64" in destinations(theirs, "-6", "100")  # the table of the IPv4 address
    assert destinations(ours, "-6", "100") == set()
    assert "fe80::/64" not in destinations(theirs, "-6", "main")
    assert destinations(ours, "-6", "main") == {"fe80::/64"}


def test_is_sbr_free_table(twins: Twins) -> None:
    twins.inside("pod", "ip", "route", "add", "blackhole", "10.77.0.0/16", "table", "100")
    add(twins, macvlan(static("10.1.2.3/24", gateways=GATEWAYS)), SBR)
    theirs, ours = (
        next(rule["table"] for rule in show(side, "pod", "rule", "show") if rule["src"] == "10.1.2.3")
        for side in (twins.theirs, twins.ours)
    )
    assert (theirs, ours) == ("100", "101")


def test_is_sbr_second_del(twins: Twins) -> None:
    call, theirs, ours = add(twins, macvlan(host_local(subnet="10.1.2.0/24")), SBR)
    for expected in ([0, 0], [999, 0]):
        gone = twins.theirs.delete(call, theirs.value), twins.ours.delete(call, ours.value)
        assert codes(*gone) == expected


def test_is_sbr_vanished_netns(twins: Twins) -> None:
    """The container died with its namespace: being last in the chain, sbr keeps the address from being freed."""
    call, theirs, ours = add(twins, macvlan(host_local(subnet="10.1.2.0/24")), SBR)
    for side in (twins.theirs, twins.ours):
        lose(side)
    assert codes(twins.theirs.delete(call, theirs.value), twins.ours.delete(call, ours.value)) == [999, 0]
    assert kept(twins.theirs) == {"10.1.2.2"}
    assert kept(twins.ours) == set()


def test_is_sbr_check(twins: Twins) -> None:
    _, theirs, ours = add(twins, macvlan(static("10.1.2.3/24", gateways=GATEWAYS)), SBR)
    twins.inside("pod", "ip", "rule", "delete", "from", "10.1.2.3")
    sbr = Call([SBR])
    assert codes(twins.theirs.check(sbr, theirs.value), twins.ours.check(sbr, ours.value)) == [0, 102]


# --- VLANs: on a kernel that keeps them apart -----------------------------------------------------------------------


@pytest.mark.guest
def test_is_default_vlan(twins: Twins, has_bridge_vlans: None) -> None:
    add(twins, bridge(DUAL, vlan=100))
    found = []
    for side in (twins.theirs, twins.ours):
        (port,) = [link["ifname"] for link in show(side, "node", "link", "show") if link.get("master") == "br0"]
        (entry,) = json.loads(side.inside(side.node, "bridge", "-j", "vlan", "show", "dev", port))
        found.append([vlan["vlan"] for vlan in entry["vlans"]])
    assert found == [[1, 100], [100]]


@pytest.mark.guest
def test_is_vlan_needs_filtering(twins: Twins, has_bridge_vlans: None) -> None:
    twins.inside("node", "ip", "link", "add", "br0", "type", "bridge")
    _, theirs, ours = add(twins, bridge(DUAL, vlan=100))
    assert codes(theirs, ours) == [0, 7]
