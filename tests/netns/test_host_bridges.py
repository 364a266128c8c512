"""Bridges, their ports and VLANs, seen by iproute2."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from homeport.model.errors import KernelRefused, MissingLink, Unsupported
from homeport.ports import BridgeVlan

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, Node

pytestmark = pytest.mark.root


@pytest.fixture
def port(node: Node) -> str:
    """A veth end that is a port of br0; its other end is loose0."""
    node.host.create_bridge("br0")
    node.host.create_veth("port0", netns=None, peer="loose0")
    node.host.set_link("port0", master="br0", up=True)
    return "port0"


@pytest.fixture
def filtering(node: Node) -> str:
    """As `port`, on a bridge that filters by VLAN."""
    add = ["nsenter", f"--net={node.netns}", "ip", "link", "add", "probe0", "type", "bridge", "vlan_filtering", "1"]
    if subprocess.run(add, capture_output=True, check=False).returncode != 0:
        pytest.skip("kernel lacks VLAN filtering on bridges")
    node.host.create_bridge("br0", vlan_filtering=True)
    node.host.create_veth("port0", netns=None, peer="loose0")
    node.host.set_link("port0", master="br0", up=True)
    return "port0"


def seen_vlans(node: Node) -> dict[str, list[dict[str, Any]]]:
    """By port, as `bridge vlan` shows them; without `flags` where there are none."""
    argv = ["nsenter", f"--net={node.netns}", "bridge", "-json", "-compressvlans", "vlan", "show"]
    shown = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout or b"[]")
    return {
        port["ifname"]: [{key: value for key, value in vlan.items() if value != []} for vlan in port["vlans"]]
        for port in shown
    }


def test_bridge(node: Node, ip_json: IpJson) -> None:
    made = node.host.create_bridge("br0", mtu_bytes=1400)
    (seen,) = ip_json(node.netns, "link", "show", "br0")
    assert (seen["ifindex"], seen["mtu"], seen["linkinfo"]["info_kind"]) == (made.index, 1400, "bridge")
    assert seen["linkinfo"]["info_data"]["vlan_filtering"] == 0
    assert not made.vlan_filtering


@pytest.mark.guest
def test_vlan_filtering_as_far_as_this_kernel_goes(node: Node, ip_json: IpJson) -> None:
    add = ["nsenter", f"--net={node.netns}", "ip", "link", "add", "probe0", "type", "bridge", "vlan_filtering", "1"]
    if subprocess.run(add, capture_output=True, check=False).returncode == 0:
        assert node.host.create_bridge("br0", vlan_filtering=True).vlan_filtering
        (seen,) = ip_json(node.netns, "link", "show", "br0")
        assert seen["linkinfo"]["info_data"]["vlan_filtering"] == 1
        return
    with pytest.raises(Unsupported, match="kernel has no such kind of bridge"):
        node.host.create_bridge("br0", vlan_filtering=True)
    assert node.host.link("br0") is None


@pytest.mark.parametrize("flag", ["hairpin", "isolated"])
def test_port_flags(flag: str, node: Node, port: str, ip_json: IpJson) -> None:
    def seen() -> bool:
        (link,) = ip_json(node.netns, "link", "show", port)
        found: bool = link["linkinfo"]["info_slave_data"][flag]
        return found

    def change(flag: str, value: bool) -> None:
        if flag == "hairpin":
            node.host.set_bridge_port(port, hairpin=value)
        else:
            node.host.set_bridge_port(port, isolated=value)

    assert not seen()
    change(flag, True)
    assert seen()
    assert getattr(node.host.link(port), flag) is True
    node.host.set_bridge_port(port)
    assert seen()

    def run() -> None:
        with node.host.operation():
            change(flag, False)
            assert not seen()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert seen()


def test_port_flags_of_what_is_no_port(node: Node) -> None:
    with pytest.raises(KernelRefused, match='change bridge port "eth1"'):
        node.host.set_bridge_port("eth1", hairpin=True)
    with pytest.raises(MissingLink):
        node.host.set_bridge_port("nope0", hairpin=True)


@pytest.mark.guest
def test_vlans_come_and_go(node: Node, filtering: str) -> None:
    node.host.add_bridge_vlan(filtering, BridgeVlan(first=10, last=20))
    node.host.add_bridge_vlan(filtering, BridgeVlan(first=30, last=30, pvid=True, untagged=True))
    node.host.add_bridge_vlan("br0", BridgeVlan(first=30, last=30), on_bridge=True)
    seen = seen_vlans(node)
    assert {"vlan": 10, "vlanEnd": 20} in seen[filtering]
    assert {"vlan": 30, "flags": ["PVID", "Egress Untagged"]} in seen[filtering]
    assert {"vlan": 30} in seen["br0"]
    assert BridgeVlan(first=10, last=20) in node.host.bridge_vlans(filtering)
    assert BridgeVlan(first=30, last=30, pvid=True, untagged=True) in node.host.bridge_vlans(filtering)
    node.host.delete_bridge_vlan(filtering, BridgeVlan(first=11, last=20))
    node.host.delete_bridge_vlan(filtering, BridgeVlan(first=4000, last=4000))
    seen = seen_vlans(node)
    assert {"vlan": 10} in seen[filtering]


@pytest.mark.guest
def test_operation_undoes_vlans(node: Node, filtering: str) -> None:
    node.host.add_bridge_vlan(filtering, BridgeVlan(first=10, last=20, untagged=True))
    before = seen_vlans(node)

    def run() -> None:
        with node.host.operation():
            node.host.add_bridge_vlan(filtering, BridgeVlan(first=15, last=30))
            node.host.add_bridge_vlan(filtering, BridgeVlan(first=40, last=40, pvid=True))
            node.host.delete_bridge_vlan(filtering, BridgeVlan(first=10, last=12))
            assert seen_vlans(node) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert seen_vlans(node) == before


def test_vlans_where_there_are_none(node: Node) -> None:
    assert node.host.bridge_vlans("eth1") == ()
    with pytest.raises(MissingLink):
        node.host.bridge_vlans("nope0")
    with pytest.raises(KernelRefused, match='add VLAN 10-20 on "eth1"'):
        node.host.add_bridge_vlan("eth1", BridgeVlan(first=10, last=20))
