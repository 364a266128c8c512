"""What ipvlan, and so any plugin that stacks links, does without making one, so on every kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.model.errors import CniError, InvalidNetConf, MissingLink, PluginNotAvailable, Unsupported
from homeport.plugins import host_local, ipvlan
from homeport.ports import Shells

if TYPE_CHECKING:
    from tests.netns.conftest import KernelState, MakeNetns, Node

pytestmark = pytest.mark.root

STATIC = {"type": "static", "addresses": [{"address": "10.93.97.12/20"}]}
TWO_INTERFACES = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0"}, {"name": "eth1"}],
    "ips": [{"address": "10.93.97.12/20", "interface": 0}],
}


def conf(**keys: Any) -> NetConf:
    whole = {"cniVersion": "1.1.0", "name": "ipnet", "type": "ipvlan", "master": "eth1", "ipam": STATIC, **keys}
    return netconfs.parse(whole)


def attachment(netns: str | None, /, container_id: str = "c1") -> Attachment:
    return Attachment(container_id=container_id, ifname="net1", netns_path=netns)


WRONG: list[tuple[str, dict[str, Any], type[CniError], str]] = [
    ("missing master", {"master": "eth9"}, MissingLink, 'find master "eth9" on the host: no such interface'),
    ("no default route", {"master": ""}, MissingLink, "found no default route in the main table"),
    (
        "no default route inside",
        {"master": "", "linkInContainer": True},
        MissingLink,
        "found no default route in the main table",
    ),
    ("mtu too large", {"mtu": 9000}, InvalidNetConf, 'key "mtu": found 9000, expected 0 to 1500'),
    ("mtu negative", {"mtu": -1}, InvalidNetConf, 'key "mtu": found -1, expected 0 to 1500'),
    ("mode", {"mode": "bridge"}, InvalidNetConf, 'key "mode": found "bridge", expected one of "", "l2", "l3", "l3s"'),
    ("no ipam", {"ipam": {}}, InvalidNetConf, 'key "ipam": missing, expected one, or addresses in prevResult'),
    (
        "chained behind two interfaces",
        {"master": "", "ipam": {}, "prevResult": TWO_INTERFACES},
        InvalidNetConf,
        "expected one named interface to take as master",
    ),
]


@pytest.mark.parametrize(("keys", "error", "text"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_failing_add_leaves_nothing(
    keys: dict[str, Any],
    error: type[CniError],
    text: str,
    shells: Shells,
    node: Node,
    netns: MakeNetns,
    kernel_state: KernelState,
) -> None:
    pod = netns("pod")
    before = kernel_state(pod), kernel_state(node.netns)
    with pytest.raises(error) as raised:
        ipvlan.add(conf(**keys), attachment(pod), shells)
    assert text in raised.value.msg
    assert (kernel_state(pod), kernel_state(node.netns)) == before


def test_status_says_whether_the_kernel_has_ipvlan(shells: Shells, node: Node, netns: MakeNetns) -> None:
    made = ["nsenter", f"--net={node.netns}", "--", "ip", "link", "add", "try0", "link", "eth1", "type", "ipvlan"]
    if subprocess.run(made, capture_output=True, check=False).returncode == 0:
        ipvlan.status(conf(), attachment(None), shells)
        with pytest.raises(PluginNotAvailable, match='find master "eth9"'):
            ipvlan.status(conf(master="eth9"), attachment(None), shells)
    else:
        with pytest.raises(PluginNotAvailable, match="ipvlan: this kernel has no such kind of link"):
            ipvlan.status(conf(), attachment(None), shells)
        with pytest.raises(Unsupported, match="kernel has no ipvlan"):
            ipvlan.add(conf(), attachment(netns("pod")), shells)


def reserved(shells: Shells, tmp_path: Path, *container_ids: str) -> NetConf:
    """A configuration whose IPAM has given each container an address."""
    ipam = {"type": "host-local", "subnet": "10.93.96.0/20", "dataDir": str(tmp_path)}
    made = conf(ipam=ipam)
    for container_id in container_ids:
        host_local.add(made, attachment("/run/netns/unused", container_id), shells)
    return made


def taken(tmp_path: Path) -> set[str]:
    """The containers that have an address."""
    return {path.read_bytes().split(b"\r\n")[0].decode() for path in (tmp_path / "ipnet").glob("10.*")}


def test_delete_gives_the_address_back_without_master_link_or_namespace(
    shells: Shells, netns: MakeNetns, tmp_path: Path
) -> None:
    for path in (netns("pod"), "/run/netns/vanished", None):
        made = reserved(shells, tmp_path, "c1")
        gone = netconfs.parse({**made.raw, "master": "eth9"})
        for _ in range(2):
            ipvlan.delete(gone, attachment(path), shells)
        assert taken(tmp_path) == set()


def test_delete_leaves_an_interface_of_another_kind(
    shells: Shells, netns: MakeNetns, kernel_state: KernelState
) -> None:
    pod = netns("pod")
    subprocess.run(
        ["nsenter", f"--net={pod}", "--", "ip", "link", "add", "net1", "type", "veth", "peer", "name", "other"],
        check=True,
    )
    before = kernel_state(pod)
    ipvlan.delete(conf(), attachment(pod), shells)
    assert kernel_state(pod) == before


def test_gc_frees_what_is_not_valid_and_nothing_without_a_list(shells: Shells, tmp_path: Path) -> None:
    made = reserved(shells, tmp_path, "alive", "dead")
    ipvlan.gc(made, attachment(None), shells)
    assert taken(tmp_path) == {"alive", "dead"}
    valid = {"cni.dev/valid-attachments": [{"containerID": "alive", "ifname": "net1"}]}
    ipvlan.gc(netconfs.parse({**made.raw, **valid}, command="GC"), attachment(None), shells)
    assert taken(tmp_path) == {"alive"}
