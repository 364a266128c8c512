"""Addresses through the kernel, seen by iproute2."""

from __future__ import annotations

import subprocess
import threading
import time
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import pytest

from homeport.model.errors import KernelRefused, MissingLink

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns, Node

pytestmark = pytest.mark.root


def seen(ip_json: IpJson, netns: str, name: str) -> dict[str, dict[str, Any]]:
    """By "local/prefixlen", without the link-local ones that the kernel makes."""
    (link,) = ip_json(netns, "address", "show", name)
    return {f"{a['local']}/{a['prefixlen']}": a for a in link["addr_info"] if a["scope"] != "link"}


@pytest.mark.parametrize(
    ("address", "broadcast"),
    [
        ("10.1.2.3/24", "10.1.2.255"),
        ("10.1.2.4/31", None),
        ("10.1.2.5/32", None),
        ("fd00::3/64", None),
        ("fd00::4/128", None),
    ],
)
def test_added_and_deleted(address: str, broadcast: str | None, node: Node, ip_json: IpJson) -> None:
    node.host.add_address("eth1", ip_interface(address))
    found = seen(ip_json, node.netns, "eth1")
    assert list(found) == [address]
    assert found[address].get("broadcast") == broadcast
    assert found[address]["scope"] == "global"
    node.host.delete_address("eth1", ip_interface(address))
    assert seen(ip_json, node.netns, "eth1") == {}


def test_loopback_has_host_scope_as_iproute2_gives_it(node: Node, ip_json: IpJson) -> None:
    node.host.add_address("lo", ip_interface("127.0.0.9/8"))
    assert seen(ip_json, node.netns, "lo")["127.0.0.9/8"]["scope"] == "host"


def test_reading_matches_iproute2(node: Node, ip_json: IpJson) -> None:
    for address in ("10.1.2.3/24", "10.1.2.4/24", "fd00::3/64"):
        node.host.add_address("eth1", ip_interface(address), duplicate_detection=False)
    (link,) = ip_json(node.netns, "address", "show", "eth1")
    expected = {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]}
    assert {str(found.address) for found in node.host.addresses("eth1")} == expected
    assert {str(found.address) for found in node.host.addresses("lo")} == {"127.0.0.1/8", "::1/128"}


def test_second_time_is_refused_and_undone_nothing(node: Node, ip_json: IpJson) -> None:
    address = ip_interface("10.1.2.3/24")
    node.host.add_address("eth1", address)

    def run() -> None:
        with node.host.operation():
            node.host.add_address("eth1", address)

    with pytest.raises(KernelRefused, match=r'add address 10.1.2.3/24 to "eth1": file exists') as refused:
        run()
    assert refused.value.details.startswith("EEXIST")
    assert list(seen(ip_json, node.netns, "eth1")) == ["10.1.2.3/24"]


def test_missing_link(node: Node) -> None:
    with pytest.raises(MissingLink):
        node.host.add_address("nope0", ip_interface("10.1.2.3/24"))
    with pytest.raises(MissingLink):
        node.host.addresses("nope0")
    node.host.delete_address("nope0", ip_interface("10.1.2.3/24"))
    node.host.delete_address("eth1", ip_interface("10.1.2.3/24"))


def test_operation_undoes_addresses(node: Node, ip_json: IpJson) -> None:
    node.host.add_address("eth1", ip_interface("10.1.2.3/24"))
    node.host.add_address("eth1", ip_interface("fd00::3/64"), duplicate_detection=False)

    def run() -> None:
        with node.host.operation():
            node.host.delete_address("eth1", ip_interface("10.1.2.3/24"))
            node.host.delete_address("eth1", ip_interface("fd00::3/64"))
            node.host.delete_address("eth1", ip_interface("10.9.9.9/24"))
            node.host.add_address("eth1", ip_interface("10.1.2.4/24"))
            assert list(seen(ip_json, node.netns, "eth1")) == ["10.1.2.4/24"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert sorted(seen(ip_json, node.netns, "eth1")) == ["10.1.2.3/24", "fd00::3/64"]


def test_duplicate_detection_can_be_left_out(node: Node, ip_json: IpJson) -> None:
    node.host.add_address("eth1", ip_interface("fd00::3/64"), duplicate_detection=False)
    assert seen(ip_json, node.netns, "eth1")["fd00::3/64"]["nodad"] is True


def test_wait_returns_when_detection_has_ended(node: Node, ip_json: IpJson) -> None:
    node.host.add_address("eth1", ip_interface("fd00:93::3/64"))
    assert seen(ip_json, node.netns, "eth1")["fd00:93::3/64"].get("tentative") is True
    node.host.wait_for_addresses("eth1")
    (link,) = ip_json(node.netns, "address", "show", "eth1")
    assert not any(address.get("tentative") for address in link["addr_info"])


def test_wait_ends_at_the_deadline(node: Node) -> None:
    """A link without carrier never ends detection: here its peer is down."""
    subprocess.run(["nsenter", f"--net={node.lan}", "ip", "link", "set", "lan0", "down"], check=True)
    node.host.add_address("eth1", ip_interface("fd00:93::3/64"))
    start = time.monotonic()
    with pytest.raises(KernelRefused, match=r"fd00:93::3/64.*has not ended") as refused:
        node.host.wait_for_addresses("eth1", timeout_seconds=0.2)
    assert refused.value.details == "ETIMEDOUT"
    assert time.monotonic() - start >= 0.2


def test_wait_tells_that_another_host_has_the_address(node: Node) -> None:
    node.host.wait_for_addresses("eth1")  # the link can hear others now
    node.host.add_address("eth1", ip_interface("fd00:93::1/64"))  # lan0 has it
    with pytest.raises(KernelRefused, match=r"fd00:93::1/64.*another host on the link has it") as refused:
        node.host.wait_for_addresses("eth1")
    assert refused.value.details.startswith("EADDRINUSE")


def test_wait_ends_with_the_link(node: Node, netns: MakeNetns) -> None:
    node.host.create_veth("a0", netns=None, peer="b0")
    node.host.add_address("a0", ip_interface("fd00:94::3/64"))
    node.host.set_link("a0", up=True)
    waiting = threading.Timer(0.1, node.host.delete_links, [["a0"]])
    waiting.start()
    with pytest.raises(MissingLink, match='"a0"'):
        node.host.wait_for_addresses("a0", timeout_seconds=10)
    waiting.join()
