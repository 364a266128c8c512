"""The bridge plugin on a real kernel: what ADD makes, what DEL leaves, what passes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.netns.bridge.observing import STATIC, must, names, reaches, rules, static

from homeport.model.errors import InvalidNetConf, KernelRefused, LinkExists, Unsupported

if TYPE_CHECKING:
    from tests.netns.bridge.conftest import Attach, Attaching
    from tests.netns.conftest import IpJson, NftJson, Node

pytestmark = pytest.mark.root


def test_add_gives_bridge_port_and_container(attach: Attach, node: Node, ip_json: IpJson) -> None:
    it = attach(bridge="br7", ipam=STATIC)
    result = it.add()

    made, port, inner = result.interfaces
    assert (made.name, made.sandbox, port.sandbox, inner.name, inner.sandbox) == ("br7", None, None, "eth0", it.netns)
    assert [ip.interface for ip in result.ips] == [2]
    (link,) = ip_json(node.netns, "link", "show", "dev", port.name)
    assert link["master"] == "br7"
    assert link["operstate"] == "UP"
    assert link["address"] == port.mac
    (link,) = ip_json(node.netns, "link", "show", "dev", "br7")
    assert link["address"] == made.mac
    (link,) = ip_json(it.netns, "address", "show", "dev", "eth0")
    assert link["address"] == inner.mac
    assert [a["local"] for a in link["addr_info"] if a["family"] == "inet"] == ["10.1.2.3"]
    (address,) = ip_json(node.netns, "address", "show", "dev", "br7")
    assert not [a for a in address["addr_info"] if a["family"] == "inet"]


def test_containers_reach_each_other_and_the_gateway(attach: Attach, wait_until: Callable[..., None]) -> None:
    one = attach(isGateway=True, ipam=static("10.1.2.3/24", "fd00:1::3/64"))
    two = attach(isGateway=True, ipam=static("10.1.2.4/24", "fd00:1::4/64"))
    for it in (one, two):
        it.add()
    for address in ("10.1.2.4", "10.1.2.1", "fd00:1::4"):
        assert reaches(one.netns, address), address
    wait_until(lambda: reaches(one.netns, "fd00:1::1"))  # the node's own duplicate detection takes its time


def test_isolated_ports_reach_the_gateway_only(attach: Attach) -> None:
    one = attach(isGateway=True, portIsolation=True, ipam=static("10.1.2.3/24"))
    two = attach(isGateway=True, portIsolation=True, ipam=static("10.1.2.4/24"))
    for it in (one, two):
        it.add()
    assert reaches(one.netns, "10.1.2.1")
    assert not reaches(one.netns, "10.1.2.4")


def test_masquerading_gives_a_way_out(
    attach: Attach, node: Node, nft_json: NftJson, wait_until: Callable[..., None]
) -> None:
    must(node.netns, "ip", "address", "add", "10.93.96.2/20", "dev", "eth1")
    must(node.netns, "ip", "address", "add", "fd00:93::2/64", "dev", "eth1", "nodad")
    hidden = attach(isDefaultGateway=True, ipMasq=True, ipam=static("10.1.2.3/24", "fd00:1::3/64"))
    seen = attach(isDefaultGateway=True, ipam=static("10.1.2.4/24", "fd00:1::4/64"))
    hidden.add()
    seen.add()

    # Nobody on the LAN has a route back to the containers, so only a masqueraded one is answered.
    assert reaches(hidden.netns, "10.93.96.1")
    wait_until(lambda: reaches(hidden.netns, "fd00:93::1"))
    assert not reaches(seen.netns, "10.93.96.1")
    assert must(node.netns, "sysctl", "-n", "net.ipv4.ip_forward").strip() == "1"
    assert must(node.netns, "sysctl", "-n", "net.ipv6.conf.all.forwarding").strip() == "1"

    assert rules(nft_json, node.netns) == ["net c1 eth0", "net c1 eth0"]
    hidden.delete()
    assert rules(nft_json, node.netns) == []


def test_traffic_inside_the_subnet_keeps_its_source(attach: Attach, node: Node) -> None:
    one = attach(isGateway=True, ipMasq=True, ipam=static("10.1.2.3/24"))
    two = attach(isGateway=True, ipMasq=True, ipam=static("10.1.2.4/24"))
    for it in (one, two):
        it.add()
    must(node.netns, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    must(two.netns, "nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }")
    must(two.netns, "nft", "add rule inet t c ip saddr 10.1.2.3 counter")
    assert reaches(one.netns, "10.1.2.4")
    chain = json.loads(must(two.netns, "nft", "-j", "list", "chain", "inet", "t", "c"))["nftables"]
    (rule,) = [item["rule"] for item in chain if "rule" in item]
    assert rule["expr"][-1]["counter"]["packets"] >= 1


def test_spoofed_frames_are_dropped(attach: Attach, node: Node, nft_json: NftJson) -> None:
    it = attach(isGateway=True, macspoofchk=True, ipam=STATIC)
    it.add()
    assert reaches(it.netns, "10.1.2.1")
    must(it.netns, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    assert not reaches(it.netns, "10.1.2.1")
    it.delete()
    assert rules(nft_json, node.netns) == []


def test_port_and_bridge_settings(attach: Attach, node: Node, ip_json: IpJson) -> None:
    hairpin = attach(bridge="br1", hairpinMode=True, mtu=1400, mac="02:00:00:00:00:07", ipam=STATIC).add()
    promisc = attach(bridge="br2", promiscMode=True, ipam=STATIC).add()

    (port,) = ip_json(node.netns, "link", "show", "dev", hairpin.interfaces[1].name)
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is True
    assert port["mtu"] == 1400
    assert hairpin.interfaces[2].mac == "02:00:00:00:00:07"
    (made,) = ip_json(node.netns, "link", "show", "dev", "br1")
    assert made["mtu"] == 1400
    assert "PROMISC" not in made["flags"]
    (made,) = ip_json(node.netns, "link", "show", "dev", "br2")
    assert "PROMISC" in made["flags"]
    (port,) = ip_json(node.netns, "link", "show", "dev", promisc.interfaces[1].name)
    assert port["linkinfo"]["info_slave_data"]["hairpin"] is False


def test_layer_2_only(attach: Attach, ip_json: IpJson) -> None:
    up, down = attach(ipam={}), attach(disableContainerInterface=True)
    assert up.add().ips == ()
    assert down.add().ips == ()
    (link,) = ip_json(up.netns, "link", "show", "dev", "eth0")
    assert "UP" in link["flags"]
    (link,) = ip_json(down.netns, "link", "show", "dev", "eth0")
    assert "UP" not in link["flags"]


@pytest.mark.parametrize("enabled", [True, False])
def test_duplicate_address_detection(attach: Attach, enabled: bool) -> None:
    it = attach(enabledad=enabled, ipam=static("fd00:1::3/64"))
    it.add()
    assert must(it.netns, "sysctl", "-n", "net.ipv6.conf.eth0.accept_dad").strip() == str(int(enabled))


def test_a_bridge_that_is_there_is_used_as_it_is(attach: Attach, node: Node, ip_json: IpJson) -> None:
    must(node.netns, "ip", "link", "add", "br0", "mtu", "1450", "type", "bridge")
    must(node.netns, "ip", "link", "set", "br0", "address", "02:00:00:00:00:11")
    assert attach(bridge="br0", mtu=1400, ipam=STATIC).add().interfaces[0].mac == "02:00:00:00:00:11"
    (made,) = ip_json(node.netns, "link", "show", "dev", "br0")
    assert "UP" in made["flags"]


def test_a_gateways_mac_stays_when_ports_come_and_go(attach: Attach, node: Node, ip_json: IpJson) -> None:
    first = attach(isGateway=True, ipam=static("10.1.2.3/24")).add().interfaces[0]
    for n in range(4, 8):
        attach(isGateway=True, mac=f"00:00:00:00:00:{n:02}", ipam=static(f"10.1.2.{n}/24")).add()
    (made,) = ip_json(node.netns, "link", "show", "dev", "cni0")
    assert made["address"] == first.mac


def test_a_bridge_that_lost_its_ports_before_it_had_a_mac(attach: Attach, node: Node, ip_json: IpJson) -> None:
    """As after a plugin that was killed half-way."""
    attach(bridge="br0").add()
    for link in ip_json(node.netns, "link", "show", "master", "br0"):
        node.host.delete_links([link["ifname"]])
    (before,) = ip_json(node.netns, "link", "show", "dev", "br0")
    assert before["address"] == "00:00:00:00:00:00"
    attach(bridge="br0", isGateway=True, ipam=static("10.1.2.3/24")).add()
    (link,) = ip_json(node.netns, "link", "show", "dev", "br0")
    assert link["address"] != before["address"]


def test_another_gateway_address_needs_force(attach: Attach, node: Node, ip_json: IpJson) -> None:
    attach(isGateway=True, ipam=static("10.1.2.3/24", "fd00:1::3/64")).add()
    other = static("10.7.7.3/24", "fd00:1::3/48")
    refused = attach(isGateway=True, ipam=other)
    with pytest.raises(InvalidNetConf, match=r"10\.1\.2\.1/24 .*forceAddress"):
        refused.add()
    assert names(ip_json, refused.netns) == {"lo"}

    attach(isGateway=True, forceAddress=True, ipam=other).add()
    (made,) = ip_json(node.netns, "address", "show", "dev", "cni0")
    found = {f"{a['local']}/{a['prefixlen']}" for a in made["addr_info"] if a["scope"] == "global"}
    assert found == {"10.7.7.1/24", "fd00:1::1/48"}


def test_delete_twice_and_without_a_namespace(attach: Attach, node: Node, ip_json: IpJson, nft_json: NftJson) -> None:
    keys = {"isGateway": True, "ipMasq": True, "macspoofchk": True}
    there, vanished, unnamed = (attach(**keys, ipam=static(f"10.1.2.{n}/24")) for n in (3, 4, 5))
    for it in (there, vanished, unnamed):
        it.add()
    must(node.netns, "ip", "netns", "delete", os.path.basename(vanished.netns))

    there.delete()
    vanished.delete()
    unnamed.delete(netns=None)
    assert not [n for n in names(ip_json, node.netns) if n.startswith("veth")]
    assert names(ip_json, unnamed.netns) == {"lo"}
    assert rules(nft_json, node.netns) == []
    for it in (there, vanished, unnamed):
        it.delete()
        it.delete(netns=None)


def test_delete_lets_another_kind_of_link_stand(attach: Attach, ip_json: IpJson) -> None:
    it = attach(ipam=STATIC)
    must(it.netns, "ip", "link", "add", "eth0", "type", "bridge")
    it.delete()
    assert "eth0" in names(ip_json, it.netns)


def test_delete_frees_no_address_while_the_link_stands(
    attach: Attach, ipam_calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = attach(ipMasq=True, ipam={"type": "noting"})
    it.add()

    def refuse(names: object, netns: str | None = None) -> None:
        raise KernelRefused("delete", "EBUSY")

    with monkeypatch.context() as patched:
        patched.setattr(it.shells.host, "delete_links", refuse)
        with pytest.raises(KernelRefused):
            it.delete()
    assert ipam_calls() == ["ADD"]
    it.delete()
    assert ipam_calls() == ["ADD", "DEL"]


def test_failing_add_leaves_nothing(
    attach: Attach, node: Node, ip_json: IpJson, nft_json: NftJson, ipam_calls: Callable[[], list[str]]
) -> None:
    before = names(ip_json, node.netns)
    it = attach(isGateway=True, ipMasq=True, macspoofchk=True, ipam={"type": "noting"})
    must(it.netns, "ip", "link", "add", "eth0", "type", "bridge")
    with pytest.raises(LinkExists):
        it.add()
    assert names(ip_json, node.netns) == before
    assert rules(nft_json, node.netns) == []
    assert ipam_calls() == ["ADD", "DEL"]


def test_failing_late_leaves_nothing(
    attach: Attach,
    node: Node,
    ip_json: IpJson,
    nft_json: NftJson,
    ipam_calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last step fails: the port never comes up."""
    before = names(ip_json, node.netns)
    it = attach(isGateway=True, ipMasq=True, macspoofchk=True, ipam={"type": "noting"})

    def never(*_: object) -> None:
        assert rules(nft_json, node.netns) == ["net c1 eth0", "net c1 eth0"]
        raise KernelRefused('wait for bridge port "x": still down')

    monkeypatch.setattr("homeport.plugins.bridge.bridging.await_port", never)
    with pytest.raises(KernelRefused, match="still down"):
        it.add()
    assert names(ip_json, node.netns) == before
    assert names(ip_json, it.netns) == {"lo"}
    assert rules(nft_json, node.netns) == []
    assert ipam_calls() == ["ADD", "DEL"]


def test_failing_add_takes_nothing_from_those_who_share_its_bridge(
    attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ADD that made bridge, gateway and forwarding fails after another container was plugged in."""
    maker = attach(isGateway=True, ipam=static("10.1.2.3/24"))
    other = attach(isGateway=True, ipam=static("10.1.2.4/24"))

    def fail(*_: object) -> None:
        monkeypatch.undo()
        with ThreadPoolExecutor() as elsewhere:  # an operation belongs to its thread
            elsewhere.submit(other.add).result()
        raise KernelRefused("no")

    monkeypatch.setattr("homeport.plugins.bridge.bridging.await_port", fail)
    with pytest.raises(KernelRefused):
        maker.add()
    assert reaches(other.netns, "10.1.2.1")


def test_two_first_containers_at_once(attach: Attach, node: Node, ip_json: IpJson) -> None:
    its = [attach(isGateway=True, ipam=static(f"10.1.2.{n}/24", f"fd00:1::{n}/64")) for n in range(3, 9)]
    start = threading.Barrier(len(its))

    def add(it: Attaching) -> None:
        start.wait()
        it.add()

    with ThreadPoolExecutor(len(its)) as pool:
        list(pool.map(add, its))
    ports = [link for link in ip_json(node.netns, "link", "show") if link.get("master") == "cni0"]
    assert len(ports) == len(its)
    assert all(reaches(it.netns, "10.1.2.1") for it in its)


@pytest.mark.parametrize("kind", ["veth", "macvlan"])
def test_something_else_has_the_bridges_name(attach: Attach, node: Node, kind: str, ip_json: IpJson) -> None:
    above = ("link", "eth1") if kind == "macvlan" else ()
    must(node.netns, "ip", "link", "add", *above, "cni0", "type", kind)
    it = attach(ipam=STATIC)
    with pytest.raises(InvalidNetConf, match=f'"cni0" to be a {kind} link'):
        it.add()
    assert "cni0" in names(ip_json, node.netns)


def test_a_kernel_without_bridge_vlans_is_told_from_one_without_bridges(
    attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = attach(vlan=100, ipam=STATIC)

    def refuse(*_: object, **__: object) -> None:
        raise Unsupported("create bridge", "EOPNOTSUPP")

    monkeypatch.setattr(it.shells.host, "create_bridge", refuse)
    with pytest.raises(Unsupported, match="have no VLANs"):
        it.add()
