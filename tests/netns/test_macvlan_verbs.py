"""The macvlan plugin on the real kernel: DEL, CHECK, GC and STATUS of what ADD made."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment, Command
from homeport.cni.netconfs import NetConf
from homeport.cni.versions import encode_result
from homeport.host.kernel import Kernel
from homeport.model.addresses import IPAddress
from homeport.model.errors import Drift, InvalidNetConf, KernelRefused, PluginNotAvailable
from homeport.model.results import Result
from homeport.plugins import macvlan
from homeport.ports import Shells

if TYPE_CHECKING:
    from tests.netns.conftest import KernelState, MakeNetns, Node

pytestmark = pytest.mark.root

ADDRESS = "10.93.97.12/20"
STATIC = {"type": "static", "addresses": [{"address": ADDRESS, "gateway": "10.93.96.1"}]}


def conf(command: Command | None = None, /, **keys: Any) -> NetConf:
    whole = {"cniVersion": "1.1.0", "name": "macnet", "type": "macvlan", "master": "eth1", **keys}
    return netconfs.parse(whole, command=command)


def with_prev(found: NetConf, result: Result) -> NetConf:
    return netconfs.parse({**found.raw, "prevResult": encode_result(result, "1.1.0")})


def attachment(netns: str | None, /, container_id: str = "c1", **args: str) -> Attachment:
    return Attachment(container_id=container_id, ifname="net1", netns_path=netns, args=args)


def ip(netns: str, *argv: str) -> None:
    subprocess.run(["nsenter", f"--net={netns}", "--", "ip", *argv], check=True)


def host_local(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "host-local", "subnet": "10.93.96.0/20", "dataDir": str(tmp_path / "networks"), **keys}


def taken(tmp_path: Path) -> list[str]:
    """The addresses host-local has given out."""
    directory = tmp_path / "networks" / "macnet"
    return sorted(path.name for path in directory.glob("10.*")) if directory.exists() else []


# --- DEL ---------------------------------------------------------------------------------------------------------


def test_delete_removes_all_and_may_be_repeated(
    shells: Shells, node: Node, netns: MakeNetns, kernel_state: KernelState, tmp_path: Path
) -> None:
    pod = netns("pod")
    before = kernel_state(pod), kernel_state(node.netns)
    made = conf(ipam=host_local(tmp_path))
    macvlan.add(made, attachment(pod), shells)
    assert len(taken(tmp_path)) == 1
    for _ in range(2):
        macvlan.delete(made, attachment(pod), shells)
        assert (kernel_state(pod), kernel_state(node.netns)) == before
        assert taken(tmp_path) == []


@pytest.mark.parametrize("gone", ["vanished", "unnamed", "lifted pin"])
def test_delete_without_the_namespace_gives_the_address_back(
    gone: str, shells: Shells, netns: MakeNetns, tmp_path: Path
) -> None:
    pod = netns("pod")
    made = conf(ipam=host_local(tmp_path))
    macvlan.add(made, attachment(pod), shells)
    path: str | None = pod
    if gone == "unnamed":
        path = None
    elif gone == "vanished":
        subprocess.run(["ip", "netns", "delete", Path(pod).name], check=True)
    else:
        path = str(tmp_path / "stale")
        Path(path).touch()
    macvlan.delete(made, attachment(path), shells)
    assert taken(tmp_path) == []
    assert gone == "unnamed" or Path(pod).exists() == (gone == "lifted pin")


def test_delete_with_the_master_gone(shells: Shells, node: Node, netns: MakeNetns, tmp_path: Path) -> None:
    pod = netns("pod")
    made = conf(ipam=host_local(tmp_path))
    macvlan.add(made, attachment(pod), shells)
    ip(node.netns, "link", "delete", "eth1")
    macvlan.delete(made, attachment(pod), shells)
    assert taken(tmp_path) == []


class Stubborn(Kernel):
    """A kernel that removes no link."""

    def delete_links(self, names: Iterable[str], netns: str | None = None) -> None:
        raise KernelRefused(f"delete {', '.join(names)}: device or resource busy", "EBUSY")


def test_an_address_whose_interface_is_still_there_is_not_given_back(
    shells: Shells, node: Node, netns: MakeNetns, tmp_path: Path
) -> None:
    """R1: it would be another container's while this one answers for it."""
    pod = netns("pod")
    made = conf(ipam=host_local(tmp_path))
    macvlan.add(made, attachment(pod), shells)
    stubborn = Stubborn(node.netns)
    with pytest.raises(KernelRefused, match="device or resource busy"):
        macvlan.delete(made, attachment(pod), msgspec.structs.replace(shells, host=stubborn))
    stubborn.close()
    assert len(taken(tmp_path)) == 1


# --- CHECK -------------------------------------------------------------------------------------------------------

CHECKED = {**STATIC, "routes": [{"dst": "10.200.0.0/16"}, {"dst": "0.0.0.0/0"}]}

DRIFTS: list[tuple[str, tuple[str, ...], str]] = [
    ("address", ("address", "delete", ADDRESS, "dev", "net1"), f"expected {ADDRESS} among them"),
    ("prefix", ("address", "change", "10.93.97.12/24", "dev", "net1"), f"expected {ADDRESS} among them"),
    ("route", ("route", "delete", "10.200.0.0/16"), "found no route to 10.200.0.0/16 via 10.93.96.1"),
    ("default route", ("route", "delete", "default"), "found no route to 0.0.0.0/0"),
    ("gateway", ("route", "replace", "10.200.0.0/16", "via", "10.93.96.9"), "found no route to 10.200.0.0/16"),
    ("mac", ("link", "set", "net1", "address", "02:00:00:00:00:55"), "found MAC address 02:00:00:00:00:55"),
    ("mode", ("link", "set", "net1", "type", "macvlan", "mode", "vepa"), "found mode vepa, expected bridge"),
    ("down", ("link", "set", "net1", "down"), "found it down"),
    ("name", ("link", "set", "net1", "name", "net9"), "no such interface"),
    ("gone", ("link", "delete", "net1"), "no such interface"),
]


def test_check_finds_nothing_amiss(shells: Shells, netns: MakeNetns, tmp_path: Path) -> None:
    pod = netns("pod")
    for ipam in (CHECKED, host_local(tmp_path)):
        made = conf(ipam=ipam)
        result = macvlan.add(made, attachment(pod), shells)
        macvlan.check(with_prev(made, result), attachment(pod), shells)
        macvlan.delete(made, attachment(pod), shells)


@pytest.mark.parametrize(("change", "text"), [d[1:] for d in DRIFTS], ids=[d[0] for d in DRIFTS])
def test_check_finds_drift(change: tuple[str, ...], text: str, shells: Shells, netns: MakeNetns) -> None:
    pod = netns("pod")
    made = conf(ipam=CHECKED)
    result = macvlan.add(made, attachment(pod), shells)
    if change[0] == "address" and change[1] == "change":
        ip(pod, "address", "delete", ADDRESS, "dev", "net1")
        change = ("address", "add", *change[2:])
    if "name" in change:
        ip(pod, "link", "set", "net1", "down")  # older kernels rename nothing that is up
    ip(pod, *change)
    with pytest.raises(Drift) as raised:
        macvlan.check(with_prev(made, result), attachment(pod), shells)
    assert text in raised.value.msg


def test_check_finds_another_kind_of_link(shells: Shells, netns: MakeNetns) -> None:
    pod = netns("pod")
    made = conf()
    result = macvlan.add(made, attachment(pod), shells)
    ip(pod, "link", "delete", "net1")
    ip(pod, "link", "add", "net1", "type", "veth", "peer", "name", "other")
    with pytest.raises(Drift, match="found kind veth, expected macvlan"):
        macvlan.check(with_prev(made, result), attachment(pod), shells)


def test_check_finds_another_parent(shells: Shells, node: Node, netns: MakeNetns) -> None:
    pod = netns("pod")
    made = conf()
    result = macvlan.add(made, attachment(pod), shells)
    ip(node.netns, "link", "add", "eth2", "type", "veth", "peer", "name", "other")
    with pytest.raises(Drift, match='from master "eth2"'):
        macvlan.check(with_prev(conf(master="eth2"), result), attachment(pod), shells)
    with pytest.raises(Drift, match='find master "eth3"'):
        macvlan.check(with_prev(conf(master="eth3"), result), attachment(pod), shells)


def test_check_finds_a_released_address(shells: Shells, netns: MakeNetns, tmp_path: Path) -> None:
    pod = netns("pod")
    made = conf(ipam=host_local(tmp_path))
    result = macvlan.add(made, attachment(pod), shells)
    (tmp_path / "networks" / "macnet" / taken(tmp_path)[0]).unlink()
    with pytest.raises(Drift, match="found none allocated"):
        macvlan.check(with_prev(made, result), attachment(pod), shells)


def test_check_of_a_vanished_namespace_and_of_a_foreign_result(shells: Shells, netns: MakeNetns) -> None:
    pod = netns("pod")
    made = conf()
    result = macvlan.add(made, attachment(pod), shells)
    with pytest.raises(Drift, match="expected an entry for that interface in that namespace"):
        macvlan.check(with_prev(made, result), attachment(netns("other")), shells)
    subprocess.run(["ip", "netns", "delete", Path(pod).name], check=True)
    with pytest.raises(Drift, match="found no network namespace"):
        macvlan.check(with_prev(made, result), attachment(pod), shells)
    with pytest.raises(InvalidNetConf, match='key "prevResult": missing'):
        macvlan.check(made, attachment(pod), shells)


# --- GC and STATUS -----------------------------------------------------------------------------------------------


def test_gc_frees_the_addresses_of_attachments_that_are_not_valid(
    shells: Shells, netns: MakeNetns, tmp_path: Path
) -> None:
    made = conf(ipam=host_local(tmp_path))
    kept: list[IPAddress] = []
    for container_id in ("alive", "dead"):
        result = macvlan.add(made, attachment(netns("pod"), container_id=container_id), shells)
        kept += [ip.address.ip for ip in result.ips if container_id == "alive"]
    assert len(taken(tmp_path)) == 2

    macvlan.gc(made, attachment(None), shells)  # nobody said who is alive, so nobody is known to be dead
    assert len(taken(tmp_path)) == 2

    valid = [{"containerID": "alive", "ifname": "net1"}]
    macvlan.gc(conf("GC", ipam=made.ipam, **{"cni.dev/valid-attachments": valid}), attachment(None), shells)
    assert taken(tmp_path) == [str(address) for address in kept]


def test_status(shells: Shells, tmp_path: Path) -> None:
    macvlan.status(conf(ipam=host_local(tmp_path)), attachment(None), shells)
    macvlan.status(conf(master=""), attachment(None), shells)
    macvlan.status(conf(master="eth9", linkInContainer=True), attachment(None), shells)
    with pytest.raises(PluginNotAvailable, match='macvlan: find master "eth9" on the host: no such interface'):
        macvlan.status(conf(master="eth9"), attachment(None), shells)
    (tmp_path / "file").touch()
    with pytest.raises(PluginNotAvailable, match="host-local"):
        macvlan.status(conf(ipam=host_local(tmp_path, dataDir=str(tmp_path / "file"))), attachment(None), shells)
