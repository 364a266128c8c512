"""VLANs on the bridge's ports: an access port, a trunk, the gateway inside a VLAN."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.netns.bridge.observing import STATIC, must, names, reaches, run, static

from homeport.model.errors import Drift, InvalidNetConf, KernelRefused

if TYPE_CHECKING:
    from tests.netns.bridge.conftest import Attach
    from tests.netns.conftest import IpJson, MakeNetns, Node

pytestmark = [pytest.mark.root, pytest.mark.guest]


@pytest.fixture(autouse=True)
def vlan_filtering(netns: MakeNetns) -> None:
    if run(netns("try"), "ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1").returncode:
        pytest.skip("kernel lacks bridge VLAN filtering")


def vlans(netns: str, port: str) -> dict[int, list[str]]:
    """VLAN ID to flags, as iproute2's bridge sees them."""
    (found,) = json.loads(must(netns, "bridge", "-j", "vlan", "show", "dev", port))
    return {
        vlan: entry.get("flags", [])
        for entry in found["vlans"]
        for vlan in range(entry["vlan"], entry.get("vlanEnd", entry["vlan"]) + 1)
    }


ACCESS = ["PVID", "Egress Untagged"]


# One test goes through all: it runs on the emulated kernel, where a node is dear.
PORTS: tuple[tuple[dict[str, Any], dict[int, list[str]]], ...] = (
    ({"vlan": 100}, {100: ACCESS}),
    ({"vlan": 100, "preserveDefaultVlan": True}, {1: ["Egress Untagged"], 100: ACCESS}),
    ({"vlan": 1}, {1: ACCESS}),
    ({"vlanTrunk": [{"minID": 7, "maxID": 9}, {"id": 20}]}, {7: [], 8: [], 9: [], 20: []}),
    ({"vlanTrunk": [{"id": 20}], "preserveDefaultVlan": True}, {1: ACCESS, 20: []}),
    ({"vlanTrunk": [{"minID": 1, "maxID": 4094}]}, {vlan: [] for vlan in range(1, 4095)}),
)


def test_ports_are_in_their_vlans_and_no_other(attach: Attach, node: Node) -> None:
    for number, (keys, expected) in enumerate(PORTS):
        it = attach(bridge=f"br{number}", **keys, ipam=STATIC)
        made = it.add()
        assert vlans(node.netns, made.interfaces[1].name) == expected, keys
        it.check(made)


def test_containers_of_two_vlans_do_not_meet(attach: Attach) -> None:
    one, two, three = (attach(vlan=v, ipam=static(f"10.1.2.{n}/24")) for n, v in ((3, 100), (4, 200), (5, 100)))
    for it in (one, two, three):
        it.add()
    assert reaches(one.netns, "10.1.2.5")
    assert not reaches(one.netns, "10.1.2.4")


def test_gateway_stands_in_the_vlan(attach: Attach, node: Node, ip_json: IpJson) -> None:
    its = [attach(vlan=100, isGateway=True, ipam=static(f"10.1.2.{n}/24")) for n in (3, 4)]
    made = [it.add() for it in its]
    for result, it in zip(made, its, strict=True):
        assert [i.name for i in result.interfaces][0::3] == ["cni0", "cni0.100"]
        assert result.interfaces[3].sandbox is None
        assert reaches(it.netns, "10.1.2.1")
        it.check(result)
    (gateway,) = ip_json(node.netns, "address", "show", "dev", "cni0.100")
    assert gateway["address"] == made[0].interfaces[3].mac
    assert "10.1.2.1" in [a["local"] for a in gateway["addr_info"]]

    other = attach(vlan=200, ipam=static("10.1.2.9/24"))
    other.add()
    assert not reaches(other.netns, "10.1.2.1")


def test_failing_add_takes_bridge_and_vlan_gateway_along(
    attach: Attach, node: Node, ip_json: IpJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(ip_json, node.netns)

    def fail(*_: object) -> None:
        assert "cni0.100" in names(ip_json, node.netns)
        raise KernelRefused("no")

    monkeypatch.setattr("homeport.plugins.bridge.bridging.await_port", fail)
    with pytest.raises(KernelRefused):
        attach(vlan=100, isGateway=True, ipam=STATIC).add()
    assert names(ip_json, node.netns) == before


def test_bridge_that_keeps_no_vlans_apart_is_refused(attach: Attach, node: Node) -> None:
    must(node.netns, "ip", "link", "add", "cni0", "type", "bridge")
    for keys in ({"vlan": 100}, {"vlanTrunk": [{"id": 100}]}):
        with pytest.raises(InvalidNetConf, match="without VLAN filtering"):
            attach(**keys, ipam=STATIC).add()


def test_check_finds_a_lost_vlan(attach: Attach, node: Node) -> None:
    it = attach(vlanTrunk=[{"minID": 7, "maxID": 9}], ipam=STATIC)
    made = it.add()
    must(node.netns, "bridge", "vlan", "delete", "dev", made.interfaces[1].name, "vid", "8")
    with pytest.raises(Drift, match="expected tagged VLAN 8"):
        it.check(made)
