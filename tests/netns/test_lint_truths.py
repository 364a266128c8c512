"""What lint says the kernel refuses, the kernel refuses; and what lint lets pass, it takes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.netns.conftest import MakeNetns

pytestmark = pytest.mark.root

MACVLAN, IPVLAN = "link add m0 link eth1 type macvlan mode bridge", "link add i0 link eth1 type ipvlan mode l2"
PASSTHRU = "link add p0 link eth1 type macvlan mode passthru"
VLAN = "link add link eth1 name v0 type vlan id 5"
WITH_ADDRESS = "address add 10.1.0.5/24 dev eth1"

REFUSED = {
    "pod-master-conflict, passthru beside macvlan": [MACVLAN, PASSTHRU],
    "pod-master-conflict, macvlan beside passthru": [PASSTHRU, MACVLAN],
    "mtu-below-ipv6": ["link set eth1 mtu 1279", "address add fd00::5/64 dev eth1"],
    "pod-master-mtu, macvlan": ["link add m0 link eth1 mtu 9000 type macvlan"],
    "route-gateway-outside": [WITH_ADDRESS, "route add 10.9.0.0/16 via 10.2.0.1 dev eth1"],
}
REFUSED_WITH_IPVLAN = {
    "pod-master-conflict, macvlan beside ipvlan": [IPVLAN, MACVLAN],
    "pod-master-conflict, ipvlan beside macvlan": [MACVLAN, IPVLAN],
    "pod-master-conflict, one VLAN twice": [VLAN, VLAN.replace("v0", "v1")],
    "pod-master-mtu, VLAN": [VLAN.replace("name v0", "name v0 mtu 9000")],
}
TAKEN = {
    "macvlan twice": [MACVLAN, MACVLAN.replace("m0", "m1").replace("bridge", "vepa")],
    "IPv6 with an MTU of 1280": ["link set eth1 mtu 1280", "address add fd00::5/64 dev eth1"],
    "a gateway behind another route": [
        WITH_ADDRESS,
        "route add 169.254.1.1/32 dev eth1",
        "route add 10.9.0.0/16 via 169.254.1.1 dev eth1",
    ],
    "a link-local gateway": ["address add fd00::5/64 dev eth1 nodad", "route add fd01::/64 via fe80::1 dev eth1"],
}


@pytest.fixture
def node(netns: MakeNetns) -> str:
    """A namespace with a link `eth1`, up."""
    path = netns("truth")
    for command in ("link add eth1 type veth peer name far", "link set far up", "link set eth1 up"):
        assert ip(path, command) == "", command
    return path


def ip(netns: str, command: str) -> str:
    """What went wrong; "" when nothing did."""
    argv = ("ip", "-netns", os.path.basename(netns), *command.split())
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    return "" if done.returncode == 0 else done.stderr or "failed"


def require_refusal(node: str, commands: list[str]) -> None:
    *before, last = commands
    assert [ip(node, command) for command in before] == [""] * len(before)
    assert ip(node, last)


@pytest.mark.parametrize("commands", REFUSED.values(), ids=REFUSED.keys())
def test_the_kernel_refuses_what_lint_calls_wrong(node: str, commands: list[str]) -> None:
    require_refusal(node, commands)


@pytest.mark.parametrize("commands", REFUSED_WITH_IPVLAN.values(), ids=REFUSED_WITH_IPVLAN.keys())
def test_the_kernel_refuses_what_lint_calls_wrong_of_ipvlan_and_vlan(node: str, commands: list[str]) -> None:
    for kind, probe, made in (("ipvlan", IPVLAN, "i0"), ("VLAN interfaces", VLAN, "v0")):
        if "Unknown device type" in ip(node, probe):
            pytest.skip(f"kernel lacks {kind}")
        assert ip(node, f"link delete {made}") == ""
    require_refusal(node, commands)


@pytest.mark.parametrize("commands", TAKEN.values(), ids=TAKEN.keys())
def test_the_kernel_takes_what_lint_lets_pass(node: str, commands: list[str]) -> None:
    assert [ip(node, command) for command in commands] == [""] * len(commands)


def test_the_last_ipvlan_of_a_link_says_the_mode_of_all(node: str) -> None:
    if "Unknown device type" in ip(node, IPVLAN):
        pytest.skip("kernel lacks ipvlan")
    assert ip(node, IPVLAN.replace("i0", "i1").replace("l2", "l3")) == ""
    command = ("ip", "-netns", os.path.basename(node), "-json", "-details", "link", "show", "i0")
    shown = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert json.loads(shown.stdout)[0]["linkinfo"]["info_data"]["mode"] == "l3"
