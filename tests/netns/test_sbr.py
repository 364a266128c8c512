"""The sbr plugin on the real kernel, every verb, behind macvlan + static as users chain it."""

from __future__ import annotations

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.model.errors import CniError, Drift, InvalidNetConf, MissingLink, TryAgainLater
from homeport.model.results import Result
from homeport.plugins import macvlan, sbr
from homeport.ports import Shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, KernelState, MakeNetns, Node

pytestmark = pytest.mark.root

V4 = {"address": "10.93.97.12/20", "gateway": "10.93.96.1"}
V6 = {"address": "fd00:93::12/64", "gateway": "fd00:93::1"}


def conf(plugin_type: str, prev_result: Result | None = None, **keys: Any) -> NetConf:
    whole = {"cniVersion": "1.1.0", "name": "routed", "type": plugin_type, **keys}
    if prev_result is not None:
        whole["prevResult"] = encode_result(prev_result, "1.1.0")
    return netconfs.parse(whole)


def attachment(netns: str | None, ifname: str = "net1") -> Attachment:
    return Attachment(container_id="c1", ifname=ifname, netns_path=netns)


@pytest.fixture
def pod(netns: MakeNetns) -> str:
    """A container's namespace without duplicate address detection, whose second is of no interest here."""
    path = netns("pod")
    dad = "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"
    subprocess.run(["nsenter", f"--net={path}", "--", "sh", "-c", dad], check=True)
    return path


def attach(
    shells: Shells, pod: str, *addresses: dict[str, str], ifname: str = "net1", routes: Any = (), **keys: Any
) -> Result:
    """The interface, made by macvlan."""
    ipam = {"type": "static", "addresses": list(addresses), "routes": list(routes)}
    return macvlan.add(conf("macvlan", master="eth1", ipam=ipam, **keys), attachment(pod, ifname), shells)


def ip(netns: str, *argv: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", "--", "ip", *argv], check=True)


def rules(ip_json: IpJson, netns: str, family: int = 4) -> list[tuple[str, str]]:
    return [(r["src"], r["table"]) for r in ip_json(netns, f"-{family}", "rule", "show") if r["src"] != "all"]


def table(ip_json: IpJson, netns: str, number: int | str, family: int = 4) -> dict[str, dict[str, Any]]:
    """By destination."""
    exists = [
        r
        for r in ip_json(netns, f"-{family}", "route", "show", "table", "all")
        if r.get("table", "main") == str(number) and r.get("type", "unicast") == "unicast"
    ]
    return {r["dst"]: r for r in exists}


# --- ADD ---------------------------------------------------------------------------------------------------------


def test_add_moves_the_routes_to_a_table_of_the_address(shells: Shells, pod: str, ip_json: IpJson) -> None:
    result = attach(shells, pod, V4, routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.200.0.0/16", "gw": "10.93.96.7"}])
    passed = sbr.add(conf("sbr", result), attachment(pod), shells)

    assert passed == result
    assert rules(ip_json, pod) == [("10.93.97.12", "100")]
    found = table(ip_json, pod, 100)
    assert set(found) == {"default", "10.93.96.0/20", "10.200.0.0/16"}
    assert found["default"]["gateway"] == "10.93.96.1"
    assert found["10.200.0.0/16"]["gateway"] == "10.93.96.7"
    assert found["10.93.96.0/20"]["prefsrc"] == "10.93.97.12"
    assert table(ip_json, pod, "main") == {}


def test_traffic_leaves_by_the_interface_of_its_source(shells: Shells, pod: str, netns: MakeNetns, node: Node) -> None:
    other = netns("other")
    ip(pod, "link", "add", "eth0", "type", "veth", "peer", "name", "gw0", "netns", Path(other).name)
    ip(pod, "address", "add", "192.0.2.2/24", "dev", "eth0")
    ip(pod, "link", "set", "eth0", "up")
    ip(pod, "route", "add", "default", "via", "192.0.2.1")
    ip(node.lan, "address", "add", "198.51.100.1/32", "dev", "lo")
    ip(node.lan, "link", "set", "lo", "up")
    sbr.add(conf("sbr", attach(shells, pod, V4)), attachment(pod), shells)
    ping = ["nsenter", f"--net={pod}", "--", "ping", "-c1", "-W2", "-I", "10.93.97.12", "198.51.100.1"]
    subprocess.run(ping, check=True, timeout=10)


def test_each_address_has_a_table_of_its_own(shells: Shells, pod: str, ip_json: IpJson) -> None:
    result = attach(shells, pod, V4, V6)
    sbr.add(conf("sbr", result), attachment(pod), shells)
    assert rules(ip_json, pod) == [("10.93.97.12", "100")]
    assert rules(ip_json, pod, 6) == [("fd00:93::12", "101")]
    assert table(ip_json, pod, 101, 6)["default"]["gateway"] == "fd00:93::1"
    assert "fd00:93::/64" in table(ip_json, pod, 101, 6)
    assert table(ip_json, pod, 100, 6) == {}
    assert set(table(ip_json, pod, "main", 6)) <= {"fe80::/64"}


def test_a_table_that_anything_uses_is_not_taken(shells: Shells, pod: str, ip_json: IpJson) -> None:
    ip(pod, "link", "set", "lo", "up")
    ip(pod, "rule", "add", "fwmark", "1", "lookup", "100")
    ip(pod, "route", "add", "unreachable", "10.0.0.0/8", "table", "101")
    ip(pod, "-6", "rule", "add", "from", "fd00::1", "lookup", "102")
    sbr.add(conf("sbr", attach(shells, pod, V4)), attachment(pod), shells)
    assert ("10.93.97.12", "103") in rules(ip_json, pod)


def test_a_named_table_gets_rules_only(shells: Shells, pod: str, ip_json: IpJson, kernel_state: KernelState) -> None:
    result = attach(shells, pod, V4, V6)
    before = kernel_state(pod)["routes"]
    sbr.add(conf("sbr", result, table=1000), attachment(pod), shells)
    assert rules(ip_json, pod) == [("10.93.97.12", "1000")]
    assert rules(ip_json, pod, 6) == [("fd00:93::12", "1000")]
    assert kernel_state(pod)["routes"] == before


def test_configured_gateways_take_the_place_of_the_addresses(shells: Shells, pod: str, ip_json: IpJson) -> None:
    result = attach(shells, pod, V4, V6, routes=[{"dst": "0.0.0.0/0"}])
    sbr.add(conf("sbr", result, gateways=["10.93.96.9", "fd00:93::9"]), attachment(pod), shells)
    assert table(ip_json, pod, 100)["default"]["gateway"] == "10.93.96.9"
    assert table(ip_json, pod, 101, 6)["default"]["gateway"] == "fd00:93::9"


def test_source_hints_keep_the_connected_routes(shells: Shells, pod: str, ip_json: IpJson) -> None:
    result = attach(shells, pod, V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.200.0.0/16"}])
    made = conf("sbr", result, addSourceHints=True)
    sbr.add(made, attachment(pod), shells)
    main = table(ip_json, pod, "main")
    assert set(main) == {"10.93.96.0/20"}
    assert (main["10.93.96.0/20"]["prefsrc"], main["10.93.96.0/20"]["scope"]) == ("10.93.97.12", "link")
    assert table(ip_json, pod, "main", 6)["fd00:93::/64"]["prefsrc"] == "fd00:93::12"
    assert set(table(ip_json, pod, 100)) == {"default", "10.93.96.0/20", "10.200.0.0/16"}
    sbr.check(made, attachment(pod), shells)


def test_adds_at_once_in_one_namespace_choose_different_tables(shells: Shells, pod: str, ip_json: IpJson) -> None:
    count = 8
    results = {
        f"net{n}": attach(shells, pod, {"address": f"10.93.97.{n}/32"}, ifname=f"net{n}") for n in range(1, count + 1)
    }
    start = threading.Barrier(count)

    def route(ifname: str) -> None:
        start.wait(5)
        sbr.add(conf("sbr", results[ifname]), attachment(pod, ifname), shells)

    with ThreadPoolExecutor(count) as pool:
        assert list(pool.map(route, results)) == [None] * count
    assert sorted(number for _, number in rules(ip_json, pod)) == [str(100 + n) for n in range(count)]


def test_the_lock_is_the_one_the_reference_plugin_takes(shells: Shells, pod: str, wait_until: Any) -> None:
    result = attach(shells, pod, V4)
    with subprocess.Popen(["flock", pod, "sh", "-c", "echo locked; read _"], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"locked\n"
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(sbr.add, conf("sbr", result), attachment(pod), shells)
            with pytest.raises(TimeoutError):
                adding.result(0.2)
            other.stdin.write(b"\n")
            other.stdin.flush()
            assert adding.result(10) == result


WRONG: list[tuple[str, dict[str, Any], type[CniError], str]] = [
    ("table", {"table": 0}, InvalidNetConf, 'key "table": found 0'),
    ("table text", {"table": "100"}, InvalidNetConf, 'key "table": found "100"'),
    ("gateway", {"gateways": ["nonsense"]}, InvalidNetConf, 'key "gateways[0]": found "nonsense"'),
    ("two of a family", {"gateways": ["10.93.96.1", "10.93.96.2"]}, InvalidNetConf, "expected one gateway of a family"),
    ("unreachable gateway", {"gateways": ["192.0.2.1"]}, CniError, "192.0.2.1"),
]


@pytest.mark.parametrize(("keys", "error", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_failing_add_leaves_everything_as_it_was(
    keys: dict[str, Any],
    error: type[CniError],
    text: str,
    shells: Shells,
    pod: str,
    kernel_state: KernelState,
) -> None:
    result = attach(shells, pod, V4, V6, routes=[{"dst": "0.0.0.0/0"}])
    before = kernel_state(pod)
    with pytest.raises(error) as raised:
        sbr.add(conf("sbr", result, **keys), attachment(pod), shells)
    assert text in raised.value.msg
    assert kernel_state(pod) == before


def test_a_failure_at_the_end_puts_moved_routes_back(shells: Shells, pod: str, kernel_state: KernelState) -> None:
    result = attach(shells, pod, V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.200.0.0/16"}])
    before = kernel_state(pod)
    host = shells.host

    def add_and_fail() -> None:
        with host.operation():
            sbr.add(conf("sbr", result), attachment(pod), shells)
            assert kernel_state(pod) != before
            raise TryAgainLater("a later plugin of the chain")

    with pytest.raises(TryAgainLater) as raised:
        add_and_fail()
    assert not getattr(raised.value, "__notes__", [])
    after = kernel_state(pod)
    assert after["rules"] == before["rules"]
    assert sorted(map(str, after["routes"])) == sorted(map(str, before["routes"]))


def test_add_needs_a_chain_an_address_and_the_interface(shells: Shells, pod: str) -> None:
    with pytest.raises(InvalidNetConf, match='key "prevResult": missing'):
        sbr.add(conf("sbr"), attachment(pod), shells)
    bare = macvlan.add(conf("macvlan", master="eth1"), attachment(pod), shells)
    with pytest.raises(InvalidNetConf, match='found no address of "net1"'):
        sbr.add(conf("sbr", bare), attachment(pod), shells)
    result = attach(shells, pod, V4, ifname="net2")
    ip(pod, "link", "delete", "net2")
    with pytest.raises(MissingLink, match=r'"net2" in .*: no such interface'):
        sbr.add(conf("sbr", result), attachment(pod, "net2"), shells)


# --- DEL ---------------------------------------------------------------------------------------------------------


def test_delete_removes_its_rules_and_tables_and_may_be_repeated(shells: Shells, pod: str, ip_json: IpJson) -> None:
    ip(pod, "rule", "add", "from", "10.93.97.0/24", "lookup", "500")
    ip(pod, "rule", "add", "from", "10.93.97.99", "lookup", "501")
    others = rules(ip_json, pod)
    made = conf("sbr", attach(shells, pod, V4, V6))
    sbr.add(made, attachment(pod), shells)
    for _ in range(2):
        sbr.delete(made, attachment(pod), shells)
        assert rules(ip_json, pod) == others
        assert rules(ip_json, pod, 6) == []
        assert table(ip_json, pod, 100) == table(ip_json, pod, 101, 6) == {}


@pytest.mark.parametrize("known_by", ["interface", "prevResult"])
def test_delete_knows_its_rules_from_the_interface_or_from_prev_result(
    known_by: str, shells: Shells, pod: str, ip_json: IpJson
) -> None:
    result = attach(shells, pod, V4)
    sbr.add(conf("sbr", result), attachment(pod), shells)
    if known_by == "prevResult":
        ip(pod, "link", "delete", "net1")
        sbr.delete(conf("sbr"), attachment(pod), shells)  # nobody says which rules were its own
        assert rules(ip_json, pod) == [("10.93.97.12", "100")]
    sbr.delete(conf("sbr", result if known_by == "prevResult" else None), attachment(pod), shells)
    assert rules(ip_json, pod) == []


def test_delete_of_a_named_table_leaves_other_tables_and_all_routes(shells: Shells, pod: str, ip_json: IpJson) -> None:
    result = attach(shells, pod, V4)
    made = conf("sbr", result, table=1000)
    sbr.add(made, attachment(pod), shells)
    ip(pod, "rule", "add", "from", "10.93.97.12", "lookup", "1001")
    ip(pod, "route", "add", "10.5.0.0/16", "via", "10.93.96.1", "table", "1000")
    sbr.delete(made, attachment(pod), shells)
    assert rules(ip_json, pod) == [("10.93.97.12", "1001")]
    assert "10.5.0.0/16" in table(ip_json, pod, 1000)


@pytest.mark.parametrize("gone", ["vanished", "unnamed", "lifted pin"])
def test_delete_without_the_namespace_succeeds_and_leaves_no_file(
    gone: str, shells: Shells, pod: str, tmp_path: Path
) -> None:
    made = conf("sbr", attach(shells, pod, V4))
    sbr.add(made, attachment(pod), shells)
    path: str | None = pod
    if gone == "unnamed":
        path = None
    elif gone == "vanished":
        subprocess.run(["ip", "netns", "delete", Path(pod).name], check=True)
    else:
        path = str(tmp_path / "stale")
        Path(path).touch()
    sbr.delete(made, attachment(path), shells)
    assert Path(pod).exists() == (gone != "vanished")


# --- CHECK, STATUS, GC -------------------------------------------------------------------------------------------

DRIFTS: list[tuple[str, tuple[str, ...], str]] = [
    ("rule", ("rule", "delete", "from", "10.93.97.12"), 'source 10.93.97.12 of "net1": found no rule'),
    ("default", ("route", "delete", "default", "table", "100"), "found no default route by 10.93.96.1 in table 100"),
    ("connected", ("route", "delete", "10.93.96.0/20", "table", "100"), "found no route to 10.93.96.0/20"),
    ("route", ("route", "delete", "10.200.0.0/16", "table", "100"), "found no route to 10.200.0.0/16"),
    ("v6 rule", ("-6", "rule", "delete", "from", "fd00:93::12"), 'source fd00:93::12 of "net1": found no rule'),
    ("v6 default", ("-6", "route", "delete", "default", "table", "101"), "found no default route by fd00:93::1"),
]


@pytest.mark.parametrize(("change", "text"), [d[1:] for d in DRIFTS], ids=[d[0] for d in DRIFTS])
def test_check_finds_drift(change: tuple[str, ...], text: str, shells: Shells, pod: str) -> None:
    made = conf("sbr", attach(shells, pod, V4, V6, routes=[{"dst": "0.0.0.0/0"}, {"dst": "10.200.0.0/16"}]))
    sbr.add(made, attachment(pod), shells)
    sbr.check(made, attachment(pod), shells)
    ip(pod, *change)
    with pytest.raises(Drift) as raised:
        sbr.check(made, attachment(pod), shells)
    assert text in raised.value.msg


def test_the_interface_plugins_check_holds_after_its_routes_moved(shells: Shells, pod: str) -> None:
    keys: dict[str, Any] = {
        "master": "eth1",
        "ipam": {"type": "static", "addresses": [V4], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.200.0.0/16"}]},
    }
    result = macvlan.add(conf("macvlan", **keys), attachment(pod), shells)
    sbr.add(conf("sbr", result, gateways=["10.93.96.9"]), attachment(pod), shells)
    macvlan.check(conf("macvlan", result, **keys), attachment(pod), shells)
    ip(pod, "route", "delete", "10.200.0.0/16", "table", "100")
    with pytest.raises(Drift, match=r"found no route to 10\.200\.0\.0/16"):
        macvlan.check(conf("macvlan", result, **keys), attachment(pod), shells)


def test_check_of_a_vanished_namespace(shells: Shells, pod: str) -> None:
    result = attach(shells, pod, V4)
    subprocess.run(["ip", "netns", "delete", Path(pod).name], check=True)
    with pytest.raises(Drift, match="found no network namespace"):
        sbr.check(conf("sbr", result), attachment(pod), shells)
    with pytest.raises(InvalidNetConf, match='key "prevResult": missing'):
        sbr.check(conf("sbr"), attachment(pod), shells)


def test_status_and_gc(shells: Shells) -> None:
    sbr.status(conf("sbr", table=5), attachment(None), shells)
    sbr.gc(conf("sbr"), attachment(None), shells)
    with pytest.raises(InvalidNetConf):
        sbr.status(conf("sbr", gateways=["x"]), attachment(None), shells)
