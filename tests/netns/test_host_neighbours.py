"""Announcing and probing on a wire, with the kernel's own neighbours at the other end."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from homeport.host import frames
from homeport.host.kernel import Kernel
from homeport.host.probing import ArpProbe
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import InvalidNetns, KernelRefused, MissingLink
from homeport.ports import Link

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns, Node

pytestmark = pytest.mark.root
ADDRESSES = {4: ip_address("10.93.97.12"), 6: ip_address("fd00:93::12")}
LAN = {4: ip_address("10.93.96.1"), 6: ip_address("fd00:93::1")}


@pytest.fixture(autouse=True)
def carrier(node: Node, wait_until: Callable[..., None]) -> None:
    wait_until(lambda: link(node, "eth1").running)


def link(node: Node, name: str, netns: str | None = None) -> Link:
    found = node.host.link(name, netns)
    assert found is not None
    return found


@contextmanager
def capturing(netns: str, name: str) -> Iterator[list[bytes]]:
    """The frames that arrive on a link, until the end of the block."""
    kernel = Kernel(short_lived=True)
    wire = kernel.open_socket(netns, socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.bind((name, 3))  # ETH_P_ALL
    wire.settimeout(5)
    frames_seen: list[bytes] = []
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            frames_seen.append(wire.recv(2048))

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield frames_seen
    finally:
        ended.set()
        wire.sendto(b"\xff" * 12 + b"\x88\xb5" + bytes(46), (name, 3))  # wakes the listener: it sees what is sent too
        listener.join()
        wire.close()


@pytest.mark.parametrize("family", [4, 6])
def test_announcement_corrects_an_old_neighbour(
    family: int, node: Node, ip_json: IpJson, wait_until: Callable[..., None]
) -> None:
    """R9: after the announcement the neighbour sends to the new MAC, without asking first."""
    address, stale = ADDRESSES[family], "0a:00:00:00:00:99"
    add = ["ip", "neigh", "add", str(address), "lladdr", stale, "dev", "lan0", "nud", "stale"]
    subprocess.run(["nsenter", f"--net={node.lan}", *add], check=True)
    node.host.wait_for_addresses("lan0", node.lan)  # IPv6 listens once the link is ready
    node.host.announce("eth1", address)

    def learned() -> bool:
        entries = ip_json(node.lan, "neigh", "show", "dev", "lan0")
        return {entry["dst"]: entry.get("lladdr") for entry in entries}.get(str(address)) == link(node, "eth1").mac

    wait_until(learned)


def test_announcement_frames(node: Node, wait_until: Callable[..., None]) -> None:
    address, mac = ADDRESSES[4], link(node, "eth1").mac
    assert mac is not None
    with capturing(node.lan, "lan0") as seen:
        node.host.announce("eth1", address)
        wait_until(lambda: set(frames.announcements(address, mac)) <= set(seen))


def test_announcement_without_neighbours_is_nothing(node: Node) -> None:
    node.host.announce("lo", ADDRESSES[4])


def test_announcement_refusals(node: Node) -> None:
    with pytest.raises(MissingLink):
        node.host.announce("nope0", ADDRESSES[4])
    node.host.set_link("eth1", up=False)
    with pytest.raises(KernelRefused, match=r'announce 10.93.97.12 from "eth1": network is down') as refused:
        node.host.announce("eth1", ADDRESSES[4])
    assert refused.value.details == "ENETDOWN"
    with pytest.raises(InvalidNetns):
        node.host.announce("eth1", ADDRESSES[4], "/run/netns/hp-nowhere")


@pytest.mark.parametrize("address", [*LAN.values()], ids=["v4", "v6"])
def test_probe_is_answered_by_the_kernel(address: IPAddress, node: Node) -> None:
    found = ArpProbe(node.host).answers(address, link="eth1", timeout_seconds=5)
    assert found == link(node, "lan0", node.lan).mac


@pytest.mark.parametrize("address", [*ADDRESSES.values()], ids=["v4", "v6"])
def test_silence_is_none_after_the_whole_time(address: IPAddress, node: Node) -> None:
    start = time.monotonic()
    assert ArpProbe(node.host).answers(address, link="eth1", timeout_seconds=0.3) is None
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("address", [*ADDRESSES.values()], ids=["v4", "v6"])
def test_probe_teaches_nobody_anything(address: IPAddress, node: Node, ip_json: IpJson) -> None:
    """RFC 5227 §2.1.1: an all-zero sender, so that no neighbour's cache is spoilt; and several of them."""
    before = ip_json(node.lan, "neigh")
    mac = link(node, "eth1").mac
    assert mac is not None
    with capturing(node.lan, "lan0") as seen:
        ArpProbe(node.host).answers(address, link="eth1", timeout_seconds=0.2)
    assert seen.count(frames.probe(address, mac)) == 3
    assert ip_json(node.lan, "neigh") == before


@pytest.mark.parametrize(("family", "prefix"), [(4, 20), (6, 64)])
def test_old_holder_behind_a_macvlan_is_heard(family: int, prefix: int, node: Node, netns: MakeNetns) -> None:
    """E6: the old holder is cut off from the API server, but alive on the LAN."""
    old, mac = netns("old"), MacAddress("0a:58:0a:5d:61:0c")
    address = ip_interface(f"{ADDRESSES[family]}/{prefix}")
    node.host.create_macvlan("net1", netns=old, parent="lan0", parent_netns=node.lan, mac=mac)
    node.host.add_address("net1", address, old, duplicate_detection=False)
    node.host.set_link("net1", old, up=True)
    assert ArpProbe(node.host).answers(address.ip, link="eth1", timeout_seconds=5) == mac


@pytest.mark.parametrize("address", [*ADDRESSES.values()], ids=["v4", "v6"])
def test_another_that_probes_at_the_same_time_is_a_claim(address: IPAddress, node: Node) -> None:
    answers: dict[str, Any] = {}

    def probe(name: str, netns: str) -> None:
        answers[name] = ArpProbe(node.host).answers(address, link=name, netns=netns, timeout_seconds=0.6)

    threads = [threading.Thread(target=probe, args=args) for args in (("eth1", node.netns), ("lan0", node.lan))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert link(node, "lan0", node.lan).mac in answers.values() or link(node, "eth1").mac in answers.values()


def test_probe_that_cannot_listen_is_an_error(node: Node) -> None:
    """R12: silence is proof only where an answer could have been heard."""
    probe = ArpProbe(node.host)
    with pytest.raises(MissingLink):
        probe.answers(ADDRESSES[4], link="nope0")
    with pytest.raises(InvalidNetns):
        probe.answers(ADDRESSES[4], link="eth1", netns="/run/netns/hp-nowhere")
    with pytest.raises(KernelRefused, match="does not do neighbour discovery"):
        probe.answers(ADDRESSES[4], link="lo")
    subprocess.run(["nsenter", f"--net={node.lan}", "ip", "link", "set", "lan0", "down"], check=True)
    with pytest.raises(KernelRefused, match="is down or has no carrier") as refused:
        probe.answers(ADDRESSES[4], link="eth1")
    assert refused.value.details == "ENETDOWN"
    subprocess.run(["nsenter", f"--net={node.lan}", "ip", "link", "set", "lan0", "up"], check=True)
    subprocess.run(["nsenter", f"--net={node.netns}", "ip", "link", "set", "eth1", "arp", "off"], check=True)
    with pytest.raises(KernelRefused, match="does not do neighbour discovery"):
        probe.answers(ADDRESSES[4], link="eth1")
