"""Sysctls and nftables of a namespace, seen by other programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.host import filtering
from homeport.host.kernel import Kernel
from homeport.model.errors import InvalidNetns, KernelRefused, Unsupported

if TYPE_CHECKING:
    from tests.netns.conftest import MakeNetns, NftJson, Node

pytestmark = pytest.mark.root
TTL = "net/ipv4/ip_default_ttl"  # a new namespace has 64, whatever the machine has


def sysctl(netns: str, key: str) -> str:
    done = subprocess.run(["nsenter", f"--net={netns}", "cat", f"/proc/sys/{key}"], capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.fixture(params=[False, True], ids=["helper", "direct"])
def kernel(request: pytest.FixtureRequest, node: Node) -> Kernel:
    return Kernel(node.netns, short_lived=request.param)


def test_sysctl_is_that_of_the_namespace(kernel: Kernel, node: Node, netns: MakeNetns) -> None:
    pod, own = netns("pod"), Path(f"/proc/sys/{TTL}").read_text()
    kernel.write_sysctl(TTL, "11", pod)
    assert (sysctl(pod, TTL), sysctl(node.netns, TTL)) == ("11", "64")
    kernel.write_sysctl(TTL, "12")
    assert (sysctl(pod, TTL), sysctl(node.netns, TTL)) == ("11", "12")
    assert (kernel.read_sysctl(TTL, pod), kernel.read_sysctl(TTL)) == ("11", "12")
    assert Path(f"/proc/sys/{TTL}").read_text() == own
    kernel.close()


def test_sysctl_absent_is_none(node: Node) -> None:
    assert node.host.read_sysctl("net/ipv4/conf/nope0/arp_notify") is None
    assert node.host.read_sysctl("net/ipv4/conf/all/no_such_setting") is None
    with pytest.raises(KernelRefused, match='write sysctl net/ipv4/conf/nope0/arp_notify = "1"') as refused:
        node.host.write_sysctl("net/ipv4/conf/nope0/arp_notify", "1")
    assert refused.value.details == "ENOENT"
    with pytest.raises(InvalidNetns):
        node.host.read_sysctl(TTL, "/run/netns/hp-nowhere")


def test_sysctl_refusals(node: Node) -> None:
    with pytest.raises(KernelRefused, match='write sysctl net/ipv4/ip_default_ttl = "what": inv') as refused:
        node.host.write_sysctl(TTL, "what")
    assert refused.value.details == "EINVAL"
    with pytest.raises(KernelRefused) as refused:
        node.host.read_sysctl("net/ipv4/conf")
    assert refused.value.details == "EISDIR"


OUTSIDE = ["kernel/hostname", "net/../kernel/hostname", "/net/ipv4/ip_forward", "net", "net//x", ""]


@pytest.mark.parametrize("key", OUTSIDE)
def test_sysctl_outside_the_network_is_refused(key: str, node: Node) -> None:
    with pytest.raises(KernelRefused, match="expected a path below net/"):
        node.host.read_sysctl(key)
    with pytest.raises(KernelRefused, match="expected a path below net/"):
        node.host.write_sysctl(key, "x")


def test_operation_undoes_sysctls(node: Node) -> None:
    node.host.create_veth("a0", netns=None, peer="b0")

    def run() -> None:
        with node.host.operation():
            node.host.write_sysctl(TTL, "1")
            node.host.write_sysctl(TTL, "2")
            node.host.write_sysctl("net/ipv4/conf/a0/arp_notify", "1")
            node.host.delete_links(["a0"])  # takes its settings along
            assert sysctl(node.netns, TTL) == "2"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as failed:
        run()
    assert sysctl(node.netns, TTL) == "64"
    assert not hasattr(failed.value, "__notes__")


TABLE = {"family": "inet", "name": "t"}
CHAIN = {"family": "inet", "table": "t", "name": "c"}


def test_nft_transaction(node: Node, netns: MakeNetns, nft_json: NftJson) -> None:
    pod = netns("pod")
    assert node.host.run_nft([{"add": {"table": TABLE}}, {"add": {"chain": CHAIN}}], pod) == ()
    assert [next(iter(entry)) for entry in nft_json(pod, "list", "ruleset")] == ["table", "chain"]
    assert nft_json(node.netns, "list", "ruleset") == []
    node.host.run_nft([{"add": {"table": TABLE}}])
    assert [next(iter(entry)) for entry in nft_json(node.netns, "list", "ruleset")] == ["table"]
    listed = node.host.run_nft([{"list": {"chain": CHAIN}}], pod)
    assert [entry["chain"]["name"] for entry in listed if "chain" in entry] == ["c"]


def test_nft_is_all_or_nothing(node: Node, nft_json: NftJson) -> None:
    with pytest.raises(KernelRefused, match="run 2 nftables commands") as refused:
        node.host.run_nft([{"add": {"table": TABLE}}, {"delete": {"table": {"family": "inet", "name": "nope"}}}])
    assert refused.value.details.startswith("ENOENT: ")
    assert nft_json(node.netns, "list", "ruleset") == []


def test_nft_refusals(node: Node) -> None:
    wrong: list[list[dict[str, Any]]] = [[{"no such verb": {}}], [{"add": {"table": {"family": "inet"}}}]]
    for commands in wrong:
        with pytest.raises(KernelRefused) as refused:
            node.host.run_nft(commands)
        assert refused.value.details.startswith("EINVAL: ")
    with pytest.raises(InvalidNetns):
        node.host.run_nft([], "/run/netns/hp-nowhere")
    with pytest.raises(InvalidNetns):
        node.host.run_nft([], __file__)


def test_nft_is_found_where_an_ordinary_users_path_does_not_lead(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.symlink("/usr/bin/nsenter", tmp_path / "nsenter")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert node.host.run_nft([{"list": {"tables": {}}}])


def test_nft_not_installed(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: Kernel) -> None:
    os.symlink("/usr/bin/nsenter", tmp_path / "nsenter")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(filtering, "SYSTEM_DIRECTORIES", ())
    with pytest.raises(Unsupported, match="no program nft"):
        node.host.run_nft([{"add": {"table": TABLE}}])
    with pytest.raises(Unsupported, match="no program nft"):
        host.run_nft([{"list": {"tables": {}}}])
