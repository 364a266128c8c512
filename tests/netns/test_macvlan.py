"""The macvlan plugin on the real kernel: ADD; what it made is looked at with iproute2."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment, Command
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.model.errors import (
    CniError,
    InvalidNetConf,
    LinkExists,
    MissingLink,
    PoolExhausted,
)
from homeport.model.results import Result
from homeport.plugins import interfaces, macvlan
from homeport.ports import Shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, KernelState, MakeNetns, Node

pytestmark = pytest.mark.root

ADDRESS = "10.93.97.12/20"
STATIC = {"type": "static", "addresses": [{"address": ADDRESS, "gateway": "10.93.96.1"}]}

DUAL_STACK = {
    "type": "static",
    "addresses": [
        {"address": ADDRESS, "gateway": "10.93.96.1"},
        {"address": "fd00:93::12/64", "gateway": "fd00:93::1"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}


def conf(command: Command | None = None, /, **keys: Any) -> NetConf:
    whole = {"cniVersion": "1.1.0", "name": "macnet", "type": "macvlan", "master": "eth1", **keys}
    return netconfs.parse(whole, command=command)


def with_prev(found: NetConf, result: Result) -> NetConf:
    return netconfs.parse({**found.raw, "prevResult": encode_result(result, "1.1.0")})


def attachment(netns: str | None, /, container_id: str = "c1", **args: str) -> Attachment:
    return Attachment(container_id=container_id, ifname="net1", netns_path=netns, args=args)


def ip(netns: str, *argv: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", "--", "ip", *argv], check=True)


def only(ip_json: IpJson, netns: str, ifname: str = "net1") -> dict[str, Any]:
    (link,) = (entry for entry in ip_json(netns, "address", "show") if entry["ifname"] == ifname)
    return link


def host_local(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "host-local", "subnet": "10.93.96.0/20", "dataDir": str(tmp_path / "networks"), **keys}


def taken(tmp_path: Path) -> list[str]:
    """The addresses host-local has given out."""
    directory = tmp_path / "networks" / "macnet"
    return sorted(path.name for path in directory.glob("10.*")) if directory.exists() else []


# --- ADD ---------------------------------------------------------------------------------------------------------


def test_add_stacks_the_interface_on_its_master(shells: Shells, node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    result = macvlan.add(conf(ipam={**STATIC, "routes": [{"dst": "10.200.0.0/16"}]}), attachment(pod), shells)

    link = only(ip_json, pod)
    (uplink,) = (entry for entry in ip_json(node.netns, "link", "show") if entry["ifname"] == "eth1")
    assert link["linkinfo"]["info_kind"] == "macvlan"
    assert link["linkinfo"]["info_data"]["mode"] == "bridge"
    assert link["link_index"] == uplink["ifindex"]
    assert "UP" in link["flags"]
    assert ("10.93.97.12", 20) in {(a["local"], a["prefixlen"]) for a in link["addr_info"]}
    routes = {r["dst"]: r for r in ip_json(pod, "-4", "route", "show")}
    assert routes["10.200.0.0/16"]["gateway"] == "10.93.96.1"
    assert encode_result(result, "1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "mac": link["address"], "sandbox": pod}],
        "ips": [{"interface": 0, "address": ADDRESS, "gateway": "10.93.96.1"}],
        "routes": [{"dst": "10.200.0.0/16"}],
    }


def test_the_interface_reaches_its_network(shells: Shells, node: Node, netns: MakeNetns) -> None:
    pod = netns("pod")
    macvlan.add(conf(ipam=STATIC), attachment(pod), shells)
    subprocess.run(["nsenter", f"--net={pod}", "--", "ping", "-c1", "-W2", "10.93.96.1"], check=True, timeout=10)


def test_add_dual_stack_has_settled_addresses_when_there_is_a_gateway(
    shells: Shells, netns: MakeNetns, ip_json: IpJson
) -> None:
    pod = netns("pod")
    macvlan.add(conf(ipam=DUAL_STACK), attachment(pod), shells)

    found = {a["local"]: a for a in only(ip_json, pod)["addr_info"]}
    assert not found["fd00:93::12"].get("tentative")
    defaults = [r for v in "46" for r in ip_json(pod, f"-{v}", "route", "show", "default")]
    assert [r["gateway"] for r in defaults] == ["10.93.96.1", "fd00:93::1"]
    keep = ["nsenter", f"--net={pod}", "--", "cat", "/proc/sys/net/ipv6/conf/net1/keep_addr_on_down"]
    assert subprocess.run(keep, capture_output=True, check=True).stdout == b"1\n"


def test_add_without_ipam_makes_a_bare_link(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    result = macvlan.add(conf(), attachment(pod), shells)
    link = only(ip_json, pod)
    assert "UP" in link["flags"]
    assert [a for a in link["addr_info"] if a["family"] == "inet"] == []
    assert result.ips == ()
    assert [i.name for i in result.interfaces] == ["net1"]


def test_a_route_keeps_its_table_scope_priority_mtu_and_advmss(
    shells: Shells, netns: MakeNetns, ip_json: IpJson
) -> None:
    pod = netns("pod")
    routes = [
        {"dst": "10.200.0.0/16", "priority": 77, "mtu": 1400, "advmss": 1300, "table": 50},
        {"dst": "10.201.0.0/16", "scope": 253},
    ]
    macvlan.add(conf(ipam={**STATIC, "routes": routes}), attachment(pod), shells)

    (there,) = ip_json(pod, "-4", "route", "show", "table", "50")
    assert (there["dst"], there["gateway"], there["metric"]) == ("10.200.0.0/16", "10.93.96.1", 77)
    assert there["metrics"] == [{"mtu": 1400, "advmss": 1300}]
    (connected,) = (r for r in ip_json(pod, "-4", "route", "show") if r["dst"] == "10.201.0.0/16")
    assert connected["scope"] == "link"
    assert "gateway" not in connected


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_modes(mode: str, shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    made = conf(mode=mode)
    result = macvlan.add(made, attachment(pod), shells)
    assert only(ip_json, pod)["linkinfo"]["info_data"]["mode"] == mode
    macvlan.check(with_prev(made, result), attachment(pod), shells)


def test_mtu_and_broadcast_queue(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    macvlan.add(conf(mtu=1400, bcqueuelen=2000), attachment(pod), shells)
    link = only(ip_json, pod)
    assert link["mtu"] == 1400
    assert link["linkinfo"]["info_data"]["bcqueuelen"] == 2000


MACS = [
    ({"mac": "02:00:00:00:00:01"}, {}, "02:00:00:00:00:01"),
    ({"mac": "02:00:00:00:00:01"}, {"MAC": "02-00-00-00-00-0A"}, "02:00:00:00:00:0a"),
    (
        {"mac": "02:00:00:00:00:01", "runtimeConfig": {"mac": "02:00:00:00:00:03"}},
        {"MAC": "02:00:00:00:00:02"},
        "02:00:00:00:00:03",
    ),
]


@pytest.mark.parametrize(("keys", "args", "expected"), MACS)
def test_the_runtimes_mac_goes_before_cni_args_and_those_before_the_configuration(
    keys: dict[str, Any], args: dict[str, str], expected: str, shells: Shells, netns: MakeNetns, ip_json: IpJson
) -> None:
    pod = netns("pod")
    result = macvlan.add(conf(**keys), attachment(pod, **args), shells)
    assert only(ip_json, pod)["address"] == expected
    assert result.interfaces[0].mac == expected


def test_without_master_it_stands_on_the_default_routes_interface(
    shells: Shells, node: Node, netns: MakeNetns, ip_json: IpJson
) -> None:
    ip(node.netns, "address", "add", "10.93.96.2/20", "dev", "eth1")
    ip(node.netns, "route", "add", "default", "via", "10.93.96.1")
    pod = netns("pod")
    made = conf(master="")
    result = macvlan.add(made, attachment(pod), shells)
    assert only(ip_json, pod)["link_index"] == only(ip_json, node.netns, "eth1")["ifindex"]

    ip(node.netns, "route", "delete", "default")  # where it leads now is not the attachment's business
    macvlan.check(with_prev(made, result), attachment(pod), shells)


def test_a_master_inside_the_container(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    ip(pod, "link", "add", "inner", "type", "veth", "peer", "name", "other")
    made = conf(master="inner", linkInContainer=True, ipam=STATIC)
    result = macvlan.add(made, attachment(pod), shells)
    assert only(ip_json, pod)["link"] == "inner"
    macvlan.check(with_prev(made, result), attachment(pod), shells)
    macvlan.delete(made, attachment(pod), shells)
    assert "net1" not in {link["ifname"] for link in ip_json(pod, "link", "show")}


def test_dns_is_the_configurations_own_else_of_ipam(shells: Shells, netns: MakeNetns) -> None:
    ipam = {**STATIC, "dns": {"nameservers": ["10.0.0.1"]}}
    result = macvlan.add(conf(ipam=ipam, dns={"nameservers": ["10.0.0.2"]}), attachment(netns("one")), shells)
    assert result.dns.nameservers == ("10.0.0.2",)
    result = macvlan.add(conf(ipam=ipam), attachment(netns("two")), shells)
    assert result.dns.nameservers == ("10.0.0.1",)


def test_add_announces_the_address(
    shells: Shells, node: Node, netns: MakeNetns, wait_until: Any, ip_json: IpJson
) -> None:
    """R9: neighbours who remember the address with another MAC learn the new one at once."""
    ip(node.lan, "neighbour", "add", "10.93.97.12", "lladdr", "02:00:00:00:00:99", "dev", "lan0", "nud", "stale")
    pod = netns("pod")
    result = macvlan.add(conf(ipam=STATIC), attachment(pod), shells)

    def learnt() -> bool:
        (entry,) = ip_json(node.lan, "neighbour", "show", "10.93.97.12", "dev", "lan0")
        return bool(entry["lladdr"] == result.interfaces[0].mac)

    wait_until(learnt)


def test_a_master_without_carrier_is_no_reason_to_fail(
    shells: Shells, node: Node, netns: MakeNetns, ip_json: IpJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Duplicate detection does not end there, and nobody hears an announcement."""
    monkeypatch.setattr(interfaces, "_DAD_TIMEOUT_SECONDS", 0.1)
    ip(node.lan, "link", "set", "lan0", "down")
    pod = netns("pod")
    macvlan.add(conf(ipam=DUAL_STACK), attachment(pod), shells)
    assert {"10.93.97.12", "fd00:93::12"} <= {a["local"] for a in only(ip_json, pod)["addr_info"]}
    assert [r["gateway"] for v in "46" for r in ip_json(pod, f"-{v}", "route", "show", "default")] == [
        "10.93.96.1",
        "fd00:93::1",
    ]


def test_an_address_that_another_host_has_is_refused(
    shells: Shells, node: Node, netns: MakeNetns, kernel_state: KernelState
) -> None:
    ip(node.lan, "address", "add", "fd00:93::12/64", "dev", "lan0", "nodad")
    pod = netns("pod")
    before = kernel_state(pod)
    with pytest.raises(CniError, match=r"fd00:93::12.*another host on the link has it"):
        macvlan.add(conf(ipam=DUAL_STACK), attachment(pod), shells)
    assert kernel_state(pod) == before


def test_ipv6_that_is_switched_off_is_switched_on(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    """Runtimes start containers with IPv6 disabled everywhere."""
    pod = netns("pod")
    for scope in ("all", "default"):
        disable = f"echo 1 > /proc/sys/net/ipv6/conf/{scope}/disable_ipv6"
        subprocess.run(["nsenter", f"--net={pod}", "--", "sh", "-c", disable], check=True)
    ipam = {"type": "static", "addresses": [{"address": "fd00:93::12/64"}]}
    macvlan.add(conf(ipam=ipam), attachment(pod), shells)
    assert "fd00:93::12" in {a["local"] for a in only(ip_json, pod)["addr_info"]}


def test_the_kernel_tells_neighbours_of_later_changes(shells: Shells, netns: MakeNetns) -> None:
    pod = netns("pod")
    macvlan.add(conf(ipam=STATIC), attachment(pod), shells)
    for key in ("ipv4/conf/net1/arp_notify", "ipv6/conf/net1/ndisc_notify"):
        read = ["nsenter", f"--net={pod}", "--", "cat", f"/proc/sys/net/{key}"]
        assert subprocess.run(read, capture_output=True, check=True).stdout == b"1\n"


# --- failing ADD leaves nothing ----------------------------------------------------------------------------------

WRONG: list[tuple[str, dict[str, Any], dict[str, str], type[CniError], str]] = [
    ("missing master", {"master": "eth9"}, {}, MissingLink, 'find master "eth9" on the host: no such interface'),
    ("no default route", {"master": ""}, {}, MissingLink, "found no default route in the main table"),
    ("mtu too large", {"mtu": 9000}, {}, InvalidNetConf, 'key "mtu": found 9000, expected 0 to 1500'),
    ("mtu negative", {"mtu": -1}, {}, InvalidNetConf, 'key "mtu": found -1, expected 0 to 1500'),
    ("mtu no number", {"mtu": "1500"}, {}, InvalidNetConf, 'key "mtu": found "1500", expected int'),
    ("mode", {"mode": "source"}, {}, InvalidNetConf, 'key "mode": found "source", expected one of'),
    ("mac", {"mac": "nonsense"}, {}, InvalidNetConf, 'key "mac": found "nonsense"'),
    ("mac in args", {}, {"MAC": "02:00"}, InvalidNetConf, 'key "CNI_ARGS MAC": found "02:00"'),
    ("queue", {"bcqueuelen": -1}, {}, InvalidNetConf, 'key "bcqueuelen": found -1'),
    ("no address", {"ipam": {"type": "static"}}, {}, InvalidNetConf, 'plugin "static" gave no address'),
    (
        "unreachable gateway",
        {"ipam": {**STATIC, "routes": [{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]}},
        {},
        CniError,
        "10.9.0.0/16",
    ),
]


@pytest.mark.parametrize(("keys", "args", "error", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_failing_add_leaves_nothing(
    keys: dict[str, Any],
    args: dict[str, str],
    error: type[CniError],
    text: str,
    shells: Shells,
    node: Node,
    netns: MakeNetns,
    kernel_state: KernelState,
) -> None:
    pod = netns("pod")
    before = kernel_state(pod), kernel_state(node.netns)
    with pytest.raises(error) as raised:
        macvlan.add(conf(**keys), attachment(pod, **args), shells)
    assert text in raised.value.msg
    assert not getattr(raised.value, "__notes__", [])  # nothing went wrong while undoing
    assert (kernel_state(pod), kernel_state(node.netns)) == before


def test_a_failure_after_ipam_gives_the_address_back(
    shells: Shells, netns: MakeNetns, kernel_state: KernelState, tmp_path: Path
) -> None:
    pod = netns("pod")
    before = kernel_state(pod)
    ipam = host_local(tmp_path, routes=[{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}])
    with pytest.raises(CniError):
        macvlan.add(conf(ipam=ipam), attachment(pod), shells)
    assert taken(tmp_path) == []
    assert kernel_state(pod) == before


def test_an_exhausted_range_leaves_no_interface(
    shells: Shells, netns: MakeNetns, kernel_state: KernelState, tmp_path: Path
) -> None:
    ipam = host_local(tmp_path, rangeStart="10.93.97.12", rangeEnd="10.93.97.12")
    first, second = netns("pod"), netns("pod")
    macvlan.add(conf(ipam=ipam), attachment(first, container_id="c1"), shells)
    before = kernel_state(second)
    with pytest.raises(PoolExhausted):
        macvlan.add(conf(ipam=ipam), attachment(second, container_id="c2"), shells)
    assert kernel_state(second) == before
    assert taken(tmp_path) == ["10.93.97.12"]


def test_an_interface_of_that_name_stays_as_it_is(
    shells: Shells, netns: MakeNetns, kernel_state: KernelState, tmp_path: Path
) -> None:
    pod = netns("pod")
    ip(pod, "link", "add", "net1", "type", "veth", "peer", "name", "other")
    before = kernel_state(pod)
    made = conf(ipam=host_local(tmp_path))
    with pytest.raises(LinkExists):
        macvlan.add(made, attachment(pod), shells)
    assert kernel_state(pod) == before
    assert taken(tmp_path) == []
    macvlan.delete(made, attachment(pod), shells)  # a runtime's DEL after the failure
    assert kernel_state(pod) == before
