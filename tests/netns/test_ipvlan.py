"""The ipvlan plugin on a kernel that has ipvlan; what it made is looked at with iproute2."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.model.errors import CniError, Drift, InvalidNetConf, LinkExists, PoolExhausted
from homeport.model.results import Result
from homeport.plugins import ipvlan, macvlan, sbr
from homeport.ports import Shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, KernelState, MakeNetns, Node

pytestmark = pytest.mark.root

ADDRESS = "10.93.97.12/20"
STATIC = {"type": "static", "addresses": [{"address": ADDRESS, "gateway": "10.93.96.1"}]}


@pytest.fixture(scope="module", autouse=True)
def kernel_with_ipvlan() -> None:
    """Tries one in a namespace that is gone at once."""
    try_one = "ip link add v0 type veth && ip link add i0 link v0 type ipvlan"
    made = subprocess.run(["unshare", "--net", "sh", "-c", try_one], capture_output=True, check=False)
    if b"Unknown device type" in made.stderr:
        pytest.skip("kernel lacks ipvlan")
    assert made.returncode == 0, made.stderr


def conf(prev_result: Result | None = None, **keys: Any) -> NetConf:
    whole = {"cniVersion": "1.1.0", "name": "ipnet", "type": "ipvlan", "master": "eth1", "ipam": STATIC, **keys}
    if prev_result is not None:
        whole["prevResult"] = encode_result(prev_result, "1.1.0")
    return netconfs.parse(whole)


def attachment(netns: str | None, /, ifname: str = "net1", container_id: str = "c1") -> Attachment:
    return Attachment(container_id=container_id, ifname=ifname, netns_path=netns)


def ip(netns: str, *argv: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", "--", "ip", *argv], check=True)


def ping(netns: str, *argv: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", "--", "ping", "-c1", "-W2", *argv], check=True, timeout=10)


def only(ip_json: IpJson, netns: str, ifname: str = "net1") -> dict[str, Any]:
    (link,) = (entry for entry in ip_json(netns, "address", "show") if entry["ifname"] == ifname)
    return link


def host_local(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "host-local", "subnet": "10.93.96.0/20", "dataDir": str(tmp_path), **keys}


def taken(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "ipnet").glob("10.*"))


# --- ADD ---------------------------------------------------------------------------------------------------------


def test_add_stacks_the_interface_on_its_master(shells: Shells, node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    result = ipvlan.add(conf(ipam={**STATIC, "routes": [{"dst": "10.200.0.0/16"}]}), attachment(pod), shells)
    link, uplink = only(ip_json, pod), only(ip_json, node.netns, "eth1")
    assert link["linkinfo"]["info_kind"] == "ipvlan"
    assert link["linkinfo"]["info_data"]["mode"] == "l2"
    assert link["link_index"] == uplink["ifindex"]
    assert link["address"] == uplink["address"]
    assert "UP" in link["flags"]
    assert [(a["local"], a["prefixlen"]) for a in link["addr_info"] if a["family"] == "inet"] == [("10.93.97.12", 20)]
    assert encode_result(result, "1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "net1", "mac": uplink["address"], "sandbox": pod}],
        "ips": [{"interface": 0, "address": ADDRESS, "gateway": "10.93.96.1"}],
        "routes": [{"dst": "10.200.0.0/16"}],
    }
    ping(pod, "10.93.96.1")


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_modes(mode: str, shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    made = conf(mode=mode, mtu=1400, ipam={"type": "static", "addresses": [{"address": ADDRESS}]})
    result = ipvlan.add(made, attachment(pod), shells)
    link = only(ip_json, pod)
    assert link["linkinfo"]["info_data"]["mode"] == mode
    assert link["mtu"] == 1400
    ipvlan.check(conf(result, **{k: made.raw[k] for k in ("mode", "mtu", "ipam")}), attachment(pod), shells)


def test_two_containers_reach_each_other(shells: Shells, netns: MakeNetns, tmp_path: Path) -> None:
    pods = [netns("pod"), netns("pod")]
    results = [
        ipvlan.add(conf(ipam=host_local(tmp_path)), attachment(pod, container_id=f"c{n}"), shells)
        for n, pod in enumerate(pods)
    ]
    ping(pods[0], str(results[1].ips[0].address.ip))


def test_dual_stack_has_settled_addresses(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    addresses = [{"address": ADDRESS, "gateway": "10.93.96.1"}, {"address": "fd00:93::12/64", "gateway": "fd00:93::1"}]
    ipvlan.add(
        conf(ipam={"type": "static", "addresses": addresses, "routes": [{"dst": "::/0"}]}), attachment(pod), shells
    )
    found = {a["local"]: a for a in only(ip_json, pod)["addr_info"]}
    assert not found["fd00:93::12"].get("tentative")
    assert [r["gateway"] for r in ip_json(pod, "-6", "route", "show", "default")] == ["fd00:93::1"]
    ping(pod, "fd00:93::1")


def test_without_master_it_stands_on_the_default_routes_interface(
    shells: Shells, node: Node, netns: MakeNetns, ip_json: IpJson
) -> None:
    ip(node.netns, "-6", "address", "add", "fd00:93::2/64", "dev", "eth1", "nodad")
    ip(node.netns, "-6", "route", "add", "default", "via", "fd00:93::1")
    pod = netns("pod")
    result = ipvlan.add(conf(master=""), attachment(pod), shells)
    assert only(ip_json, pod)["link_index"] == only(ip_json, node.netns, "eth1")["ifindex"]
    ip(node.netns, "-6", "route", "delete", "default")
    ipvlan.check(conf(result, master=""), attachment(pod), shells)


def test_a_master_inside_the_container(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    ip(pod, "link", "add", "inner", "type", "veth", "peer", "name", "other")
    ip(pod, "link", "set", "inner", "up")
    keys: dict[str, Any] = {"master": "inner", "linkInContainer": True}
    result = ipvlan.add(conf(**keys), attachment(pod), shells)
    assert only(ip_json, pod)["link"] == "inner"
    ipvlan.check(conf(result, **keys), attachment(pod), shells)


def test_chained_it_takes_addresses_and_master_from_prev_result(
    shells: Shells, node: Node, netns: MakeNetns, ip_json: IpJson
) -> None:
    """The addresses another plugin found for the host's interface go to the container's own link on it."""
    pod = netns("pod")
    before = netconfs.parse(
        {
            "cniVersion": "1.1.0",
            "name": "ipnet",
            "type": "ipvlan",
            "prevResult": {
                "cniVersion": "1.1.0",
                "interfaces": [{"name": "eth1"}],
                "ips": [{"interface": 0, "address": ADDRESS, "gateway": "10.93.96.1"}],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dns": {"nameservers": ["10.0.0.1"]},
            },
        }
    )
    result = ipvlan.add(before, attachment(pod), shells)
    assert [(i.name, i.sandbox) for i in result.interfaces] == [("net1", pod)]
    assert [(str(i.address), i.interface) for i in result.ips] == [(ADDRESS, 0)]
    assert result.dns.nameservers == ("10.0.0.1",)
    assert only(ip_json, pod)["link_index"] == only(ip_json, node.netns, "eth1")["ifindex"]
    assert [r["gateway"] for r in ip_json(pod, "route", "show", "default")] == ["10.93.96.1"]
    ipvlan.check(conf(result, master="", ipam={}), attachment(pod), shells)


def test_stacked_on_an_ipvlan_it_stands_on_that_ones_parent(shells: Shells, node: Node, netns: MakeNetns) -> None:
    ip(node.netns, "link", "add", "iv0", "link", "eth1", "type", "ipvlan", "mode", "l2")
    pod = netns("pod")
    result = ipvlan.add(conf(master="iv0"), attachment(pod), shells)
    ipvlan.check(conf(result, master="iv0"), attachment(pod), shells)


@pytest.mark.parametrize(
    ("dns", "expected"), [({}, ("10.0.0.1",)), ({"nameservers": ["10.0.0.2"]}, ("10.0.0.2",))], ids=["ipam", "own"]
)
def test_dns_is_the_configurations_own_or_else_ipams(
    dns: dict[str, Any], expected: tuple[str, ...], shells: Shells, netns: MakeNetns
) -> None:
    ipam = {**STATIC, "dns": {"nameservers": ["10.0.0.1"]}}
    assert ipvlan.add(conf(ipam=ipam, dns=dns), attachment(netns("pod")), shells).dns.nameservers == expected


# --- failing ADD leaves nothing ----------------------------------------------------------------------------------

UNREACHABLE = {"routes": [{"dst": "10.9.0.0/16", "gw": "192.0.2.1"}]}
WRONG: list[tuple[str, dict[str, Any], type[CniError]]] = [
    ("no address", {"ipam": {"type": "static"}}, InvalidNetConf),
    ("unreachable gateway", {"ipam": {**STATIC, **UNREACHABLE}}, CniError),
]


@pytest.mark.parametrize(("keys", "error"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_failing_add_leaves_nothing(
    keys: dict[str, Any],
    error: type[CniError],
    shells: Shells,
    node: Node,
    netns: MakeNetns,
    kernel_state: KernelState,
) -> None:
    pod = netns("pod")
    before = kernel_state(pod), kernel_state(node.netns)
    with pytest.raises(error):
        ipvlan.add(conf(**keys), attachment(pod), shells)
    assert (kernel_state(pod), kernel_state(node.netns)) == before


def test_a_failure_after_ipam_gives_the_address_back(
    shells: Shells, netns: MakeNetns, kernel_state: KernelState, tmp_path: Path
) -> None:
    pod = netns("pod")
    before = kernel_state(pod)
    with pytest.raises(CniError):
        ipvlan.add(conf(ipam=host_local(tmp_path, **UNREACHABLE)), attachment(pod), shells)
    assert taken(tmp_path) == []
    assert kernel_state(pod) == before


def test_an_exhausted_range_leaves_no_interface(
    shells: Shells, netns: MakeNetns, kernel_state: KernelState, tmp_path: Path
) -> None:
    ipam = host_local(tmp_path, rangeStart="10.93.97.12", rangeEnd="10.93.97.12")
    first, second = netns("pod"), netns("pod")
    ipvlan.add(conf(ipam=ipam), attachment(first), shells)
    before = kernel_state(second)
    with pytest.raises(PoolExhausted):
        ipvlan.add(conf(ipam=ipam), attachment(second, container_id="c2"), shells)
    assert kernel_state(second) == before


def test_an_interface_of_that_name_stays_as_it_is(shells: Shells, netns: MakeNetns, kernel_state: KernelState) -> None:
    pod = netns("pod")
    ip(pod, "link", "add", "net1", "type", "veth", "peer", "name", "other")
    before = kernel_state(pod)
    with pytest.raises(LinkExists):
        ipvlan.add(conf(), attachment(pod), shells)
    assert kernel_state(pod) == before


def test_a_master_that_carries_macvlan_is_refused(shells: Shells, netns: MakeNetns, kernel_state: KernelState) -> None:
    """The kernel lets a device carry one kind only."""
    pod, other = netns("pod"), netns("pod")
    plain = netconfs.parse({"cniVersion": "1.1.0", "name": "n", "type": "macvlan", "master": "eth1"})
    macvlan.add(plain, attachment(other), shells)
    before = kernel_state(pod)
    with pytest.raises(CniError, match=r"busy|invalid"):
        ipvlan.add(conf(), attachment(pod), shells)
    assert kernel_state(pod) == before


# --- DEL and CHECK -----------------------------------------------------------------------------------------------


def test_delete_removes_all_and_may_be_repeated(
    shells: Shells, node: Node, netns: MakeNetns, kernel_state: KernelState, tmp_path: Path
) -> None:
    pod = netns("pod")
    before = kernel_state(pod), kernel_state(node.netns)
    made = conf(ipam=host_local(tmp_path))
    ipvlan.add(made, attachment(pod), shells)
    for _ in range(2):
        ipvlan.delete(made, attachment(pod), shells)
        assert (kernel_state(pod), kernel_state(node.netns)) == before
        assert taken(tmp_path) == []


CHECKED = {**STATIC, "routes": [{"dst": "10.200.0.0/16"}, {"dst": "0.0.0.0/0"}]}
DRIFTS: list[tuple[str, str]] = [
    (f"ip address delete {ADDRESS} dev net1", f"expected {ADDRESS} among them"),
    ("ip route delete 10.200.0.0/16", "found no route to 10.200.0.0/16 via 10.93.96.1"),
    ("ip route delete default", "found no route to 0.0.0.0/0"),
    ("ip link set net1 type ipvlan mode l3", "found mode l3, expected l2"),
    ("ip link set net1 down", "found it down"),
    ("ip link set net1 down; ip link set net1 name net9", "no such interface"),
    ("ip link delete net1", "no such interface"),
]


def test_check_finds_drift(shells: Shells, netns: MakeNetns) -> None:
    for change, text in DRIFTS:
        pod = netns("pod")
        result = ipvlan.add(conf(ipam=CHECKED), attachment(pod), shells)
        made = conf(result, ipam=CHECKED)
        ipvlan.check(made, attachment(pod), shells)
        subprocess.run(["nsenter", f"--net={pod}", "--", "sh", "-ec", change], check=True)
        with pytest.raises(Drift) as raised:
            ipvlan.check(made, attachment(pod), shells)
        assert text in raised.value.msg, change
        subprocess.run(["ip", "netns", "delete", Path(pod).name], check=True)


def test_check_finds_another_parent_and_another_mac(shells: Shells, node: Node, netns: MakeNetns) -> None:
    pod = netns("pod")
    result = ipvlan.add(conf(), attachment(pod), shells)
    ip(node.netns, "link", "add", "eth2", "type", "veth", "peer", "name", "other")
    with pytest.raises(Drift, match='from master "eth2"'):
        ipvlan.check(conf(result, master="eth2"), attachment(pod), shells)
    ip(node.netns, "link", "set", "eth1", "address", "02:00:00:00:00:55")
    with pytest.raises(Drift, match="found MAC address 02:00:00:00:00:55"):
        ipvlan.check(conf(result), attachment(pod), shells)


def test_the_chain_users_run_ipvlan_then_sbr(shells: Shells, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    result = ipvlan.add(conf(ipam=CHECKED), attachment(pod), shells)
    chained = netconfs.parse(
        {"cniVersion": "1.1.0", "name": "ipnet", "type": "sbr", "prevResult": encode_result(result, "1.1.0")}
    )
    sbr.add(chained, attachment(pod), shells)
    sbr.check(chained, attachment(pod), shells)
    ipvlan.check(conf(result, ipam=CHECKED), attachment(pod), shells)
    ping(pod, "-I", "10.93.97.12", "10.93.96.1")
    for _ in range(2):
        sbr.delete(chained, attachment(pod), shells)
        ipvlan.delete(conf(result, ipam=CHECKED), attachment(pod), shells)
    assert [r for r in ip_json(pod, "rule", "show") if r["src"] != "all"] == []
    assert [link["ifname"] for link in ip_json(pod, "link", "show")] == ["lo"]
