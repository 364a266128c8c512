"""R8 with real neighbours: two nodes on one LAN, a replica's macvlan on either, and a probe between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.netns.conftest import inside, run
from tests.stand_ins import World, attachment_of, netconf

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.kernel import Kernel
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.attaches import Attach
from homeport.ipam.objects import Pod
from homeport.model.errors import TryAgainLater, Unreachable
from homeport.plugins import macvlan
from homeport.ports import Shells
from homeport.stores.claims import Claims
from homeport.stores.memory import MemoryStore
from homeport.stores.nodes import NodeStore
from homeport.wiring import build_shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns

pytestmark = pytest.mark.root

IPAM = {"range": "10.93.97.12-10.93.97.13/20", "ipRanges": [{"range": "fd00:93::12-fd00:93::13/64"}]}


@dataclass
class Lan:
    """Two nodes whose eth1 meet on one bridge, each with its shells on the one store."""

    world: World
    switch: str
    nodes: dict[str, str]
    shells: dict[str, Shells]

    def start(self, pod: Pod, container_id: str, netns_path: str) -> tuple[NetConf, Attachment]:
        """The pod's ADD on its node; what its DEL needs."""
        conf, attachment = netconf(IPAM), attachment_of(pod, container_id, netns_path=netns_path)
        macvlan.add(conf, attachment, self.shells[pod.node])
        return conf, attachment


class AwayStore(MemoryStore):
    """One that nobody can reach while `away` says so."""

    away = False

    def replace(self, allocation: Allocation, *, cause: str) -> Allocation:
        if self.away:
            raise Unreachable("no answer")
        return super().replace(allocation, cause=cause)


@pytest.fixture
def lan(netns: MakeNetns, tmp_path: Path) -> Iterator[Lan]:
    switch = netns("switch")
    run(*inside(switch), "ip", "link", "add", "br0", "up", "type", "bridge")
    world, nodes, shells = World(), {}, {}
    for name in ("n1", "n2"):
        nodes[name] = netns(name)
        peer = ("peer", "name", name, "netns", os.path.basename(switch))
        run(*inside(nodes[name]), "ip", "link", "add", "eth1", "up", "type", "veth", *peer)
        run(*inside(switch), "ip", "link", "set", name, "up", "master", "br0")
        shells[name] = build_shells(
            netns=nodes[name], node=name, cluster=world, store=str(tmp_path / "allocations.db"), environ={}
        )
    yield Lan(world, switch, nodes, shells)
    for built in shells.values():
        assert isinstance(built.host, Kernel)
        built.host.close()


def addresses(ip_json: IpJson, netns: str) -> list[str]:
    (link,) = ip_json(netns, "address", "show", "dev", "net1")
    return [a["local"] for a in link["addr_info"] if not a["local"].startswith("fe80")]


def test_e6_then_e5_a_replica_moves_when_its_old_node_stops_answering(
    lan: Lan, netns: MakeNetns, ip_json: IpJson
) -> None:
    web = lan.world.scale("web", 1)
    old, new = netns("old"), netns("new")
    lan.start(lan.world.start(web, 0, node="n1"), "c1", old)
    before = addresses(ip_json, old)
    assert before == ["10.93.97.12", "fd00:93::12"]

    pod = lan.world.start(web, 0, node="n2")  # the old pod was deleted by force; its node only lost its API server
    with pytest.raises(TryAgainLater, match=r"still answers for 10\.93\.97\.12, last held on node n1"):
        lan.start(pod, "c2", new)
    assert ip_json(new, "link", "show", "type", "macvlan") == []

    run(*inside(old), "ip", "link", "set", "net1", "down")  # as far as the LAN can tell, the node died
    lan.start(pod, "c2", new)
    assert addresses(ip_json, new) == before


def test_e3_on_the_same_node_the_old_namespace_is_what_counts(lan: Lan, netns: MakeNetns, ip_json: IpJson) -> None:
    """A macvlan's parent does not hear its children, so no probe could tell."""
    web = lan.world.scale("web", 1)
    old, new = netns("old"), netns("new")
    conf, attachment = lan.start(lan.world.start(web, 0), "c1", old)
    pod = lan.world.start(web, 0)
    with pytest.raises(TryAgainLater, match=f"the network namespace {old} of container c1 still exists"):
        lan.start(pod, "c2", new)
    run("ip", "netns", "delete", os.path.basename(old))
    lan.start(pod, "c2", new)
    macvlan.delete(conf, attachment, lan.shells["n1"])  # the late DEL
    assert addresses(ip_json, new) == ["10.93.97.12", "fd00:93::12"]
    allocations = lan.shells["n1"].open_allocations(None).of_holder("c2", "net1")
    assert sorted(str(a.address) for a in allocations) == ["10.93.97.12", "fd00:93::12"]


def test_without_a_link_to_ask_on_nothing_moves(lan: Lan, netns: MakeNetns) -> None:
    web = lan.world.scale("web", 1)
    lan.start(lan.world.start(web, 0, node="n1"), "c1", netns("old"))
    run(*inside(lan.nodes["n2"]), "ip", "link", "set", "eth1", "down")
    with pytest.raises(TryAgainLater, match="could not ask on eth1"):
        lan.start(lan.world.start(web, 0, node="n2"), "c2", netns("new"))


def stranger(lan: Lan, netns: MakeNetns, address: str) -> str:
    """A machine on the LAN that has the address; its namespace."""
    path = netns("stranger")
    peer = ("peer", "name", "stranger", "netns", os.path.basename(lan.switch))
    run(*inside(path), "ip", "link", "add", "eth0", "up", "type", "veth", *peer)
    run(*inside(lan.switch), "ip", "link", "set", "stranger", "up", "master", "br0")
    run(*inside(path), "ip", "address", "add", address, "dev", "eth0")
    return path


def test_e25_a_quarantined_address_waits_for_the_stranger_to_stop(lan: Lan, netns: MakeNetns, ip_json: IpJson) -> None:
    web = lan.world.scale("web", 1)
    conf, attachment = lan.start(lan.world.start(web, 0), "c1", netns("old"))
    macvlan.delete(conf, attachment, lan.shells["n1"])
    store = lan.shells["n1"].open_allocations(None)
    kept = next(a for a in store.all() if str(a.address) == "10.93.97.12")
    store.replace(msgspec.structs.replace(kept, phase=Phase.QUARANTINED), cause="a stranger answered")

    other, new = stranger(lan, netns, "10.93.97.12/20"), netns("new")
    (link,) = ip_json(other, "link", "show", "dev", "eth0")
    pod = lan.world.start(web, 0)
    with pytest.raises(TryAgainLater, match=rf"{link['address']} answers for 10\.93\.97\.12, which is quarantined"):
        lan.start(pod, "c2", new)
    run(*inside(other), "ip", "link", "set", "eth0", "down")
    lan.start(pod, "c2", new)
    assert addresses(ip_json, new) == ["10.93.97.12", "fd00:93::12"]


def test_e20_an_address_that_somebody_has_by_now_is_not_used_without_the_stores_word(
    lan: Lan, netns: MakeNetns, ip_json: IpJson, tmp_path: Path
) -> None:
    """docs/protocol.md P11: the node was cut off, and its addresses were passed on."""
    remote, claims = AwayStore(), Claims(tmp_path / "claims.db")
    attaches: list[Attach] = []
    lan.shells["n1"] = build_shells(
        netns=lan.nodes["n1"],
        node="n1",
        cluster=lan.world,
        allocations=NodeStore(remote, claims, node="n1"),
        on_attach=attaches.append,
        environ={},
    )
    web = lan.world.scale("web", 1)
    pod = lan.world.start(web, 0)
    conf, attachment = lan.start(pod, "c1", netns("old"))
    macvlan.delete(conf, attachment, lan.shells["n1"])
    remote.away = True
    other, new = stranger(lan, netns, "10.93.97.12/20"), netns("new")
    with pytest.raises(TryAgainLater, match=r"wait for 10\.93\.97\.12 of .*: .* answers for it"):
        lan.start(pod, "c2", new)
    assert lan.shells["n1"].open_allocations(None).of_holder("c2", "net1") == ()

    run(*inside(other), "ip", "link", "set", "eth0", "down")
    lan.start(pod, "c2", new)
    assert addresses(ip_json, new) == ["10.93.97.12", "fd00:93::12"]
    assert [(attach.result, attach.link) for attach in attaches] == [("first", "eth1"), ("kept", "eth1")]
    host = lan.shells["n1"].host
    assert isinstance(host, Kernel)
    host.close()
    claims.close()


def test_a_node_begins_at_its_slice(lan: Lan, netns: MakeNetns) -> None:
    """`node_slice_size`, for a pod that is no replica."""
    pool = {"range": "10.93.96.0/20", "node_slice_size": "/24", "sticky": False}
    store = lan.shells["n1"].open_allocations(None)
    for name, expected in (("n1", "10.93.109.0"), ("n2", "10.93.106.0")):
        pod = lan.world.start(lan.world.scale("web", 1), 0, node=name)
        macvlan.add(netconf(pool), attachment_of(pod, name, netns_path=netns(f"{name}-pod")), lan.shells[name])
        assert [str(a.address) for a in store.of_holder(name, "net1")] == [expected]
