"""Links through the kernel, seen by iproute2."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from homeport.host.kernel import Kernel
from homeport.model.addresses import MacAddress
from homeport.model.errors import InvalidNetns, KernelRefused, LinkExists, MissingLink, Unsupported

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns, Node

pytestmark = pytest.mark.root
MAC, OTHER_MAC = MacAddress("0a:58:0a:5d:61:0c"), MacAddress("0a:58:0a:5d:61:0e")


class Failed(Exception):
    pass


@pytest.fixture(params=["helper", "direct"])
def kernel(request: pytest.FixtureRequest, node: Node) -> Any:
    """Both ways into a namespace, on a node of the test's own."""
    kernel = Kernel(node.netns, short_lived=request.param == "direct")
    yield kernel
    kernel.close()


def test_macvlan_is_made_in_place(kernel: Kernel, node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    made = kernel.create_macvlan(
        "net1", netns=pod, parent="eth1", mode="private", mtu_bytes=1400, mac=MAC, bc_queue_len=2000
    )
    (seen,) = ip_json(pod, "link", "show", "net1")
    assert (seen["ifindex"], seen["address"], seen["mtu"]) == (made.index, MAC, 1400)
    assert seen["linkinfo"]["info_kind"] == "macvlan"
    assert seen["linkinfo"]["info_data"]["mode"] == "private"
    assert seen["linkinfo"]["info_data"]["bcqueuelen"] == 2000
    (parent,) = ip_json(node.netns, "link", "show", "eth1")
    assert (made.parent, made.kind, made.mode, made.mac) == (parent["ifindex"], "macvlan", "private", MAC)
    assert not made.up


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_macvlan_modes(mode: str, node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    made = node.host.create_macvlan("net1", netns=pod, parent="eth1", mode=mode)
    (seen,) = ip_json(pod, "link", "show", "net1")
    assert (seen["linkinfo"]["info_data"]["mode"], made.mode) == (mode, mode)


def test_macvlan_inherits_the_parents_mtu(node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    node.host.set_link("eth1", mtu_bytes=1300)
    assert node.host.create_macvlan("net1", netns=pod, parent="eth1").mtu_bytes == 1300
    (seen,) = ip_json(pod, "link", "show", "net1")
    assert seen["mtu"] == 1300


def test_macvlan_on_a_parent_in_the_pod(node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    node.host.create_veth("eth0", netns=pod, peer="host0", peer_netns=None)
    node.host.create_macvlan("net1", netns=pod, parent="eth0", parent_netns=pod)
    (seen,) = ip_json(pod, "link", "show", "net1")
    assert seen["link"] == "eth0"  # iproute2 has a name only for a parent in the same namespace


def kernel_makes(node: Node, kind: str, *on: str) -> bool:
    """What iproute2 finds when it tries."""
    add = ["ip", "link", "add", *on, "name", "probe0", "type", kind]
    return subprocess.run(["nsenter", f"--net={node.netns}", *add], capture_output=True, check=False).returncode == 0


@pytest.mark.guest
def test_supports_kind_is_what_iproute2_finds(node: Node, ip_json: IpJson) -> None:
    assert node.host.supports_kind("veth")
    assert not node.host.supports_kind("no-such-kind")
    for kind, on in (("ipvlan", ("link", "eth1")), ("macvlan", ("link", "eth1")), ("dummy", ())):
        assert node.host.supports_kind(kind) == kernel_makes(node, kind, *on)
        subprocess.run(
            ["nsenter", f"--net={node.netns}", "ip", "link", "delete", "probe0"], capture_output=True, check=False
        )
    assert sorted(link["ifname"] for link in ip_json(node.netns, "link")) == ["eth1", "lo"]


def test_ipvlan_as_far_as_this_kernel_goes(node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    if kernel_makes(node, "ipvlan", "link", "eth1"):
        made = node.host.create_ipvlan("net1", netns=pod, parent="eth1", mode="l3s", mtu_bytes=1400)
        (seen,) = ip_json(pod, "link", "show", "net1")
        assert (seen["linkinfo"]["info_data"]["mode"], made.mode, seen["mtu"]) == ("l3s", "l3s", 1400)
        return
    with pytest.raises(Unsupported, match="kernel has no ipvlan") as refused:
        node.host.create_ipvlan("net1", netns=pod, parent="eth1")
    assert refused.value.details == "EOPNOTSUPP: Unknown device type"
    assert [link["ifname"] for link in ip_json(pod, "link")] == ["lo"]


def test_veth_across_two_namespaces(kernel: Kernel, node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    peer_mac = MacAddress("0a:58:0a:5d:61:0d")
    ours, peer = kernel.create_veth("eth0", netns=pod, peer="veth1", mtu_bytes=1400, mac=MAC, peer_mac=peer_mac)
    (inside,) = ip_json(pod, "link", "show", "eth0")
    (outside,) = ip_json(node.netns, "link", "show", "veth1")
    assert (inside["ifindex"], inside["address"], inside["mtu"]) == (ours.index, MAC, 1400)
    assert (outside["ifindex"], outside["address"], outside["mtu"]) == (peer.index, peer_mac, 1400)
    assert (inside["link_index"], outside["link_index"]) == (peer.index, ours.index)
    assert (ours.parent, peer.parent) == (peer.index, ours.index)


@pytest.mark.guest
def test_dummy_as_far_as_this_kernel_goes(node: Node, ip_json: IpJson) -> None:
    if kernel_makes(node, "dummy"):
        node.host.create_dummy("dummy7")
        (seen,) = ip_json(node.netns, "link", "show", "dummy7")
        assert seen["linkinfo"]["info_kind"] == "dummy"
        return
    with pytest.raises(Unsupported, match="kernel has no dummy"):
        node.host.create_dummy("dummy7")


def test_taken_name_is_link_exists(node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    for create in (
        lambda: node.host.create_macvlan("lo", netns=pod, parent="eth1"),
        lambda: node.host.create_veth("lo", netns=pod, peer="veth1"),
        lambda: node.host.create_veth("eth0", netns=pod, peer="eth1"),
        lambda: node.host.create_bridge("eth1"),
    ):
        with pytest.raises(LinkExists, match="an interface of this name is already there"):
            create()
    assert [link["ifname"] for link in ip_json(pod, "link")] == ["lo"]
    assert sorted(link["ifname"] for link in ip_json(node.netns, "link")) == ["eth1", "lo"]


def test_refusals_name_what_was_asked(node: Node, netns: MakeNetns) -> None:
    pod = netns("pod")
    with pytest.raises(MissingLink, match=rf'link "nope0" in {node.netns}: no such interface'):
        node.host.create_macvlan("net1", netns=pod, parent="nope0")
    with pytest.raises(KernelRefused, match='found mode "l9", expected one of private, vepa'):
        node.host.create_macvlan("net1", netns=pod, parent="eth1", mode="l9")
    with pytest.raises(KernelRefused, match=f'create macvlan "net1" in {pod} on "eth1"') as refused:
        node.host.create_macvlan("net1", netns=pod, parent="eth1", mtu_bytes=9000)
    assert refused.value.details.startswith("EINVAL")
    with pytest.raises(InvalidNetns, match="not there"):
        node.host.create_macvlan("net1", netns="/run/netns/hp-nowhere", parent="eth1")
    with pytest.raises(InvalidNetns, match="found something else"):
        node.host.create_macvlan("net1", netns=__file__, parent="eth1")


def test_percent_in_a_name_is_refused(node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    """The kernel would number it, and make a link of a name that nobody asked for."""
    pod = netns("pod")
    for create in (
        lambda: node.host.create_macvlan("net%d", netns=pod, parent="eth1"),
        lambda: node.host.create_veth("eth0", netns=pod, peer="v%d"),
        lambda: node.host.set_link("eth1", rename="e%d"),
    ):
        with pytest.raises(KernelRefused, match='found "%" in the name'):
            create()
    assert [link["ifname"] for link in ip_json(pod, "link")] == ["lo"]


def test_reading_matches_iproute2(node: Node, ip_json: IpJson) -> None:
    node.host.create_bridge("br0")
    node.host.set_link("eth1", master="br0", alias="the uplink", promisc=True)
    seen = {link["ifname"]: link for link in ip_json(node.netns, "link")}
    for link in node.host.links():
        theirs = seen.pop(link.name)
        assert link.index == theirs["ifindex"]
        assert link.mtu_bytes == theirs["mtu"]
        assert link.mac == theirs["address"]
        assert link.kind == theirs.get("linkinfo", {}).get("info_kind", "")
        assert (link.up, link.promisc) == ("UP" in theirs["flags"], "PROMISC" in theirs["flags"])
        assert link.alias == theirs.get("ifalias", "")
        assert node.host.link(link.name) == link
        assert node.host.link_by_index(link.index) == link
    assert seen == {}
    (bridge,) = ip_json(node.netns, "link", "show", "br0")
    assert getattr(node.host.link("eth1"), "master", 0) == bridge["ifindex"]


@pytest.mark.parametrize("name", ["nope0", "", "a-name-longer-than-any-link-can-have", "a/b", "bl nk", "é" * 8])
def test_absent_link_is_none(name: str, node: Node) -> None:
    assert node.host.link(name) is None
    assert node.host.link_by_index(4711) is None
    assert node.host.link_by_index(0) is None
    assert node.host.link_by_index(-1) is None


def test_absent_namespace_is_not_an_absent_link(host: Kernel) -> None:
    for ask in (lambda: host.link("lo", "/run/netns/hp-nowhere"), lambda: host.links("/run/netns/hp-nowhere")):
        with pytest.raises(InvalidNetns) as refused:
            ask()
        assert refused.value.details == "ENOENT"


def test_set_link_changes_all_at_once(node: Node, ip_json: IpJson) -> None:
    node.host.create_bridge("br0")
    changed = node.host.set_link(
        "eth1", up=False, rename="uplink", mtu_bytes=1280, mac=MAC, master="br0", promisc=True, alias="to the LAN"
    )
    (seen,) = ip_json(node.netns, "link", "show", "uplink")
    assert (seen["mtu"], seen["address"], seen["master"], seen["ifalias"]) == (1280, MAC, "br0", "to the LAN")
    assert "PROMISC" in seen["flags"]
    assert "UP" not in seen["flags"]
    assert (changed.name, changed.mtu_bytes, changed.mac, changed.alias) == ("uplink", 1280, MAC, "to the LAN")
    node.host.set_link("uplink", master="", alias="", promisc=False, up=True)
    (seen,) = ip_json(node.netns, "link", "show", "uplink")
    assert "master" not in seen
    assert "ifalias" not in seen
    assert "PROMISC" not in seen["flags"]
    assert "UP" in seen["flags"]


def test_set_link_refusals(node: Node) -> None:
    with pytest.raises(MissingLink, match='link "nope0"'):
        node.host.set_link("nope0", up=True)
    with pytest.raises(MissingLink, match='link "br9"'):
        node.host.set_link("eth1", master="br9")
    with pytest.raises(LinkExists, match='rename to "lo"'):
        node.host.set_link("eth1", up=False, rename="lo")
    with pytest.raises(KernelRefused, match='change link "eth1"') as refused:
        node.host.set_link("eth1", mtu_bytes=10)
    assert refused.value.details == "EINVAL: mtu less than device minimum"


def snapshot(ip_json: IpJson, *places: str) -> list[list[dict[str, Any]]]:
    """What iproute2 says of links, without what time alone changes."""
    keys = ("ifindex", "ifname", "mtu", "address", "master", "ifalias", "group", "linkinfo", "promiscuity")

    def pick(link: dict[str, Any]) -> dict[str, Any]:
        kind = {key: value for key, value in link.get("linkinfo", {}).items() if key == "info_kind"}
        link = link | {"linkinfo": kind}
        return {key: link.get(key) for key in keys} | {
            "up": "UP" in link["flags"],
            "promisc": "PROMISC" in link["flags"],
        }

    return [[pick(link) for link in ip_json(place, "link")] for place in places]


def test_operation_undoes_links(node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")
    node.host.create_bridge("br1")
    node.host.set_link("br1", mac=MAC)  # else it takes its ports' MACs and loses its first one
    before = snapshot(ip_json, node.netns, pod)

    def run() -> None:
        with node.host.operation():
            node.host.create_veth("eth0", netns=pod, peer="veth1")
            node.host.create_bridge("br0")
            node.host.set_link("veth1", up=True, master="br0")
            node.host.set_link("eth0", pod, up=True, rename="eth9")
            node.host.set_link("eth1", up=False, rename="up1", mtu_bytes=1300, mac=OTHER_MAC, promisc=True)
            node.host.set_link("up1", up=True, alias="x", master="br1")
            assert len(ip_json(pod, "link")) == 2
            raise Failed

    with pytest.raises(Failed) as failed:
        run()
    assert not hasattr(failed.value, "__notes__")
    assert snapshot(ip_json, node.netns, pod) == before


def test_half_done_change_is_undone(node: Node, ip_json: IpJson) -> None:
    """The kernel takes the MTU, then refuses the name: it commits some changes and reports an error."""
    node.host.set_link("eth1", up=False)  # an old kernel renames no link that is up
    before = snapshot(ip_json, node.netns)

    def run() -> None:
        with node.host.operation():
            node.host.set_link("eth1", mtu_bytes=1300, rename="lo")

    with pytest.raises(LinkExists):
        run()
    assert snapshot(ip_json, node.netns) == before


def test_undo_leaves_another_link_of_the_same_name(node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
    pod = netns("pod")

    def run() -> None:
        with node.host.operation():
            node.host.create_macvlan("net1", netns=pod, parent="eth1")
            subprocess.run(["nsenter", f"--net={pod}", "ip", "link", "delete", "net1"], check=True)
            add = ["ip", "link", "add", "net1", "type", "bridge"]
            subprocess.run(["nsenter", f"--net={pod}", *add], check=True)
            raise Failed

    with pytest.raises(Failed):
        run()
    (seen,) = ip_json(pod, "link", "show", "net1")
    assert seen["linkinfo"]["info_kind"] == "bridge"


class TestDelete:
    def test_several_at_once(self, node: Node, netns: MakeNetns, ip_json: IpJson) -> None:
        pod = netns("pod")
        for number in range(4):
            node.host.create_macvlan(f"net{number}", netns=pod, parent="eth1")
        node.host.delete_links(["net0", "gone0", "net1", "net1", "net3"], pod)
        assert [link["ifname"] for link in ip_json(pod, "link")] == ["lo", "net2"]

    def test_both_ends_of_a_veth(self, node: Node, ip_json: IpJson) -> None:
        node.host.create_veth("a0", netns=None, peer="b0")
        node.host.delete_links(["a0", "b0"])
        assert sorted(link["ifname"] for link in ip_json(node.netns, "link")) == ["eth1", "lo"]

    def test_absent_is_success(self, node: Node) -> None:
        node.host.delete_links(["nope0", "nope1"])
        node.host.delete_links([])
        node.host.delete_links(["eth0"], "/run/netns/hp-nowhere")

    def test_something_else_than_a_namespace(self, node: Node) -> None:
        """R12: a plain file where a namespace was is as good as none: nothing can be left in it."""
        node.host.delete_links(["eth0"], __file__)

    def test_one_that_cannot_go_keeps_all(self, node: Node, ip_json: IpJson) -> None:
        node.host.create_bridge("br0")
        before = snapshot(ip_json, node.netns)
        with pytest.raises(KernelRefused, match="delete br0, lo") as refused:
            node.host.delete_links(["br0", "lo"])
        assert refused.value.details == "EOPNOTSUPP"
        assert snapshot(ip_json, node.netns) == before  # their groups too
