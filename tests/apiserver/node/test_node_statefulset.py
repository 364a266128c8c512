"""A StatefulSet's life on two nodes: real controllers and scheduler, real daemons, real shims, real namespaces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testcluster import homeport_node
from testcluster.homeport_node import HomeportNode, addresses, links, pings
from tests.apiserver.node.workloads import Cluster, allocations

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root


def sticky(log: Path, **ipam: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration that many people arrive at: a link on the uplink, addresses from a range, sbr last.

    On macvlan, which every kernel has.
    """
    whereabouts = {"type": "whereabouts", "log_file": str(log), "log_level": "error", **ipam}
    return {"type": "macvlan", "master": "eth1", "mode": "bridge", "ipam": whereabouts}, {"type": "sbr"}


def interfaces(node: HomeportNode, cluster: Cluster, pod: str) -> dict[str, list[str]]:
    return addresses(node.sandbox(cluster.namespace, pod).netns)


def macs(node: HomeportNode, cluster: Cluster, pod: str) -> dict[str, str]:
    return {name: link["address"] for name, link in links(node.sandbox(cluster.namespace, pod).netns).items()}


STATUS = """[{
    "name": "pod-network",
    "interface": "eth0",
    "ips": [
        "%(eth0)s"
    ],
    "mac": "%(eth0_mac)s",
    "default": true,
    "dns": {},
    "gateway": [
        "%(gateway)s"
    ]
},{
    "name": "%(namespace)s/front",
    "interface": "net1",
    "ips": [
        "%(net1)s"
    ],
    "mac": "%(net1_mac)s",
    "dns": {}
},{
    "name": "%(namespace)s/storage",
    "interface": "store0",
    "ips": [
        "%(store0)s"
    ],
    "mac": "%(store0_mac)s",
    "dns": {}
}]"""
"""What Multus 4.2 writes for these networks, to the byte."""


@pytest.mark.parametrize("place", ["cluster", "file"])
def test_a_statefulset_keeps_its_addresses(place: str, cluster: Cluster, make_node: MakeNode, disks: Path) -> None:
    file = disks / "allocations.db" if place == "file" else None
    nodes = {name: make_node(name, store=file) for name in ("node-a", "node-b")}
    log = disks / "whereabouts.log"
    cluster.network("front", *sticky(log, range="10.93.96.0/20", range_start="10.93.97.12", range_end="10.93.97.16"))
    cluster.network("storage", *sticky(log, range="10.94.0.0/24"))
    cluster.statefulset("web", 3, "front,storage@store0")
    own = {f"web-{n}": {"net1": [f"10.93.97.{12 + n}/20"], "store0": [f"10.94.0.{1 + n}/24"]} for n in range(3)}

    def hosts() -> dict[str, HomeportNode]:
        return {name: nodes[pod["spec"]["nodeName"]] for name, pod in cluster.running().items()}

    def records() -> dict[str, dict[str, Any]]:
        return allocations(cluster.api) if file is None else homeport_node.allocations(file)

    def holder(record: dict[str, Any]) -> str:
        container: str = record["holder"]["containerID" if file is None else "container_id"]
        return container

    def phases() -> dict[str, str]:
        return {address: record["phase"] for address, record in records().items()}

    def require_own_addresses() -> None:
        """In the kernel, in the store of allocations and, to the byte, in the annotation."""
        held = records()
        for name, node in hosts().items():
            found = interfaces(node, cluster, name)
            main = found.pop("eth0")[0].partition("/")[0]
            assert found == own[name]
            assert cluster.pod(name)["status"]["podIP"] == main
            for (address,) in found.values():
                sandbox = node.sandbox(cluster.namespace, name)
                assert holder(held[address.partition("/")[0]]) == sandbox.container_id
            mac = {f"{ifname}_mac": value for ifname, value in macs(node, cluster, name).items()}
            ips = {ifname: value.partition("/")[0] for ifname, (value,) in found.items()}
            gateway = main.rpartition(".")[0] + ".1"
            wanted = {"eth0": main, "gateway": gateway, "namespace": cluster.namespace, **ips, **mac}
            assert cluster.status(name) == STATUS % wanted
        assert len(held) == 6

    def require_pings() -> None:
        """Between all replicas, over both networks; sbr sends out by the interface the source address is on."""
        for name, node in hosts().items():
            netns = node.sandbox(cluster.namespace, name).netns
            for other in own.keys() - {name}:
                for ifname in own[name]:
                    source, target = (a[ifname][0].partition("/")[0] for a in (own[name], own[other]))
                    assert pings(netns, source, target), f"{name} {source} to {other} {target}"

    cluster.await_running(3)
    assert len({node.name for node in hosts().values()}) == 2, "the scheduler spreads them"
    require_own_addresses()
    require_pings()

    before = cluster.uids()  # E2: all at once
    moving = {name: macs(node, cluster, name) for name, node in hosts().items()}
    cluster.delete_pods(*own)
    cluster.await_running(3, but=before)
    require_own_addresses()

    before = cluster.uids()  # E4: to the other node, with the MAC (R9)
    cluster.cordon("node-a")
    cluster.delete_pods(*own)
    cluster.await_running(3, but=before)
    assert {node.name for node in hosts().values()} == {"node-b"}
    require_own_addresses()
    require_pings()
    for name, node in hosts().items():
        assert macs(node, cluster, name)["net1"] == moving[name]["net1"]
    assert nodes["node-a"].leftovers() == {}
    cluster.cordon("node-a", unschedulable=False)

    cluster.scale("web", 0)  # E8: meanwhile others take what is free, and nothing else
    cluster.await_gone()
    cluster.wait(lambda: set(phases().values()) == {"Retained"}, "all releases are told")
    cluster.deployment("other", 2, "front")
    cluster.await_running(2)
    for name, node in hosts().items():
        assert interfaces(node, cluster, name)["net1"] in (["10.93.97.15/20"], ["10.93.97.16/20"])
    cluster.delete_deployment("other")
    cluster.await_gone()
    cluster.scale("web", 3)
    cluster.await_running(3)
    held = {n: interfaces(node, cluster, n) for n, node in hosts().items()}
    assert {name: {k: v for k, v in found.items() if k != "eth0"} for name, found in held.items()} == own

    cluster.delete_statefulset("web")
    cluster.await_gone()
    for node in nodes.values():
        node.await_nothing_left()
        assert node.kubelet.failures == []
        node.stop_daemon()
    kept = {cidr.partition("/")[0] for found in own.values() for (cidr,) in found.values()}
    assert phases() == dict.fromkeys(kept, "Retained"), "strangers' addresses are free, replicas' are not yet"
    assert not log.exists(), "there was no error"
