"""CHECK, GC and STATUS of the bridge plugin, against changes made with other programs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.netns.bridge.observing import STATIC, must, names, rules, static

from homeport.model.errors import Drift, InvalidNetConf, KernelRefused, PluginNotAvailable, SeveralErrors, Unsupported
from homeport.model.results import Interface

if TYPE_CHECKING:
    from tests.netns.bridge.conftest import Attach
    from tests.netns.conftest import IpJson, NftJson, Node

pytestmark = pytest.mark.root

WHOLE = {
    "isDefaultGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "hairpinMode": True,
    "mtu": 1400,
    "ipam": static("10.1.2.3/24", "fd00:1::3/64", routes=[{"dst": "10.9.0.0/16"}]),
}


def test_check_agrees_with_add(attach: Attach) -> None:
    it = attach(**WHOLE)
    it.check(it.add())
    plain = attach(bridge="br1", ipam=STATIC)
    plain.check(plain.add())
    down = attach(bridge="br2", disableContainerInterface=True)
    down.check(down.add())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("node: ip link set cni0 down", 'bridge "cni0": expected up'),
        ("node: ip link delete cni0", "no link of that name"),
        ("node: ip address delete 10.1.2.1/24 dev cni0", "expected address 10.1.2.1/24"),
        ("node: ip address delete fd00:1::1/64 dev cni0", "expected address fd00:1::1/64"),
        ("node: sysctl -qw net.ipv4.ip_forward=0", "forwarding of IPv4"),
        ("node: sysctl -qw net.ipv6.conf.all.forwarding=0", "forwarding of IPv6"),
        ("node: ip link set PORT nomaster", 'expected in bridge "cni0", found in no bridge'),
        ("node: ip link set PORT down", "expected up, found down"),
        ("node: bridge link set dev PORT hairpin off", "expected hairpin on, found off"),
        ("node: bridge link set dev PORT isolated on", "expected isolation off, found on"),
        ("node: ip link set PORT address 02:00:00:00:00:98", "expected MAC"),
        ("node: nft flush chain inet homeport masq", "check masquerading of 10.1.2.3"),
        ("node: nft delete table inet homeport", "check masquerading of 10.1.2.3"),
        ("node: nft flush chain bridge homeport antispoof", "check macspoofchk"),
        ("pod: ip link set eth0 down", "expected up, found down"),
        ("pod: ip link set eth0 mtu 1399", "expected MTU 1400, found 1399"),
        ("pod: ip link set eth0 address 02:00:00:00:00:97", "expected MAC"),
        ("pod: ip link delete eth0", "no link of that name"),
        ("pod: ip address delete 10.1.2.3/24 dev eth0", "expected 10.1.2.3/24"),
        ("pod: ip address delete fd00:1::3/64 dev eth0", "expected fd00:1::3/64"),
        ("pod: ip route delete 10.9.0.0/16", "no route to 10.9.0.0/16"),
        ("pod: ip -6 route delete default", "no route to ::/0"),
    ],
)
def test_check_finds_drift(attach: Attach, node: Node, change: str, told: str) -> None:
    it = attach(**WHOLE)
    made = it.add()
    place, command = change.replace("PORT", made.interfaces[1].name).split(": ", 1)
    must(node.netns if place == "node" else it.netns, *command.split())
    with pytest.raises(Drift) as caught:
        it.check(made)
    assert told in caught.value.msg


def test_check_minds_no_mac_that_changes_with_the_ports(attach: Attach, node: Node, ip_json: IpJson) -> None:
    one = attach(ipam=static("10.1.2.3/24"))
    made = one.add()
    two = attach(ipam=static("10.1.2.4/24"))
    must(node.netns, "ip", "link", "add", "low", "address", "00:00:00:00:00:01", "type", "veth")
    must(node.netns, "ip", "link", "set", "low", "master", "cni0")
    two.add()
    (bridge,) = ip_json(node.netns, "link", "show", "dev", "cni0")
    assert bridge["address"] == "00:00:00:00:00:01" != made.interfaces[0].mac
    one.check(made)


def test_check_of_another_containers_port(attach: Attach) -> None:
    """The recorded port is there and in the bridge, but leads to somebody else."""
    one, two = attach(ipam=static("10.1.2.3/24")), attach(ipam=static("10.1.2.4/24"))
    made, other = one.add(), two.add()
    bridge, _, container = made.interfaces
    swapped = msgspec.structs.replace(made, interfaces=(bridge, other.interfaces[1], container))
    with pytest.raises(Drift, match="whose peer is"):
        one.check(swapped)


def test_check_needs_prev_result_with_the_container(attach: Attach) -> None:
    it = attach(ipam=STATIC)
    made = it.add()
    elsewhere = Interface(name="eth0", mac=made.interfaces[2].mac, sandbox="/run/netns/another")
    with pytest.raises(Drift, match="another"):
        it.check(msgspec.structs.replace(made, interfaces=(*made.interfaces[:2], elsewhere)))


def test_check_after_the_namespace_is_gone(attach: Attach) -> None:
    it = attach(ipam=STATIC)
    made = it.add()
    subprocess.run(["ip", "netns", "delete", it.netns.removeprefix("/run/netns/")], check=True)
    with pytest.raises(Drift, match="no link of that name"):
        it.check(made)


def test_gc_keeps_the_valid_and_other_networks(attach: Attach, node: Node, nft_json: NftJson) -> None:
    keys = {"ipMasq": True, "macspoofchk": True}
    stale, valid = attach(**keys, ipam=static("10.1.2.3/24")), attach(**keys, ipam=static("10.1.2.4/24"))
    # A network whose name begins with ours.
    other = attach(**keys, name="net2", ipam=static("10.1.2.5/24"))
    for it in (stale, valid, other):
        it.add()
    must(node.netns, "nft", 'add rule inet homeport masq ip saddr 10.9.9.9 masquerade comment "an operator\'s own"')

    valid.gc(valid)
    assert sorted(rules(nft_json, node.netns)) == [
        "an operator's own",
        *["net c2 eth0"] * 2,
        *["net2 c3 eth0"] * 2,
    ]
    valid.gc()
    assert sorted(rules(nft_json, node.netns)) == ["an operator's own", *["net2 c3 eth0"] * 2]
    valid.gc()


def test_gc_and_status_ask_ipam_too(attach: Attach, ipam_calls: Callable[[], list[str]]) -> None:
    it = attach(ipam={"type": "noting"})
    it.gc()
    it.status()
    assert ipam_calls() == ["GC", "STATUS"]


def test_a_failing_part_keeps_no_other_from_being_done(
    attach: Attach, ipam_calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = attach(ipMasq=True, macspoofchk=True, ipam={"type": "noting"})
    it.add()

    def refuse(*_: object) -> None:
        raise KernelRefused("run nft", "EPERM")

    with monkeypatch.context() as patched:
        patched.setattr(it.shells.host, "run_nft", refuse)
        for action in (it.delete, it.gc):
            with pytest.raises(SeveralErrors) as caught:
                action()
            assert [e.code for e in caught.value.errors] == [KernelRefused.code] * 2
        with pytest.raises(PluginNotAvailable, match="run nft"):
            it.status()
    assert ipam_calls() == ["ADD", "DEL", "GC"]


def test_without_nft_only_those_who_need_it_fail(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, masquerading = attach(ipam=STATIC), attach(ipMasq=True, ipam=STATIC)

    def lack(*_: object) -> None:
        raise Unsupported("no program nft on this machine")

    monkeypatch.setattr(plain.shells.host, "run_nft", lack)
    plain.status()
    plain.check(plain.add())
    plain.gc()
    plain.delete()
    for action in (masquerading.status, masquerading.add, masquerading.gc, masquerading.delete):
        with pytest.raises((Unsupported, PluginNotAvailable)):
            action()


def test_gc_without_a_list_removes_nothing(attach: Attach, node: Node, nft_json: NftJson) -> None:
    from homeport.cni.invocations import Attachment
    from homeport.plugins import bridge

    it = attach(ipMasq=True, ipam=STATIC)
    it.add()
    with pytest.raises(InvalidNetConf, match="valid-attachments"):
        bridge.gc(it.conf, Attachment(container_id="", ifname=""), it.shells)
    assert rules(nft_json, node.netns) == ["net c1 eth0"]


def test_status(attach: Attach, node: Node, ip_json: IpJson) -> None:
    it = attach(ipMasq=True, macspoofchk=True, ipam=STATIC)
    before = names(ip_json, node.netns)
    it.status()
    assert names(ip_json, node.netns) == before
    it.add()
    it.status()
    must(node.netns, "ip", "link", "delete", "cni0")
    must(node.netns, "ip", "link", "add", "cni0", "type", "veth")
    with pytest.raises(PluginNotAvailable, match="expected a bridge"):
        it.status()
