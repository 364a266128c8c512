"""R8 with real neighbours: two nodes on one LAN, a replica's macvlan on either, and a probe between them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.netns.conftest import inside, run
from tests.stand_ins import World, attachment_of, netconf

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.kernel import Kernel
from homeport.ipam.objects import Pod
from homeport.model.errors import TryAgainLater
from homeport.plugins import macvlan
from homeport.ports import Shells
from homeport.wiring import build_shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, MakeNetns

pytestmark = pytest.mark.root

IPAM = {"range": "10.93.97.12-10.93.97.13/20", "ipRanges": [{"range": "fd00:93::12-fd00:93::13/64"}]}


@dataclass
class Lan:
    """Two nodes whose eth1 meet on one bridge, each with its shells on the one store."""

    world: World
    nodes: dict[str, str]
    shells: dict[str, Shells]

    def start(self, pod: Pod, container_id: str, netns_path: str) -> tuple[NetConf, Attachment]:
        """The pod's ADD on its node; what its DEL needs."""
        conf, attachment = netconf(IPAM), attachment_of(pod, container_id, netns_path=netns_path)
        macvlan.add(conf, attachment, self.shells[pod.node])
        return conf, attachment


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
    yield Lan(world, nodes, shells)
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
