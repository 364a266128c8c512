"""What a node holds of the cluster: through GC, a hot restart, an outage with two families, missing definitions."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import HomeportNode, ip_json
from tests.apiserver.node.proxies import Proxy
from tests.apiserver.node.workloads import NETWORKS, Cluster

from homeport.model.errors import CniError

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
OURS = "/apis/homeport.dev/"


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    made = Proxy(control_plane)
    yield made
    made.close()


@pytest.fixture
def node(cluster: Cluster, proxy: Proxy, make_node: MakeNode) -> HomeportNode:
    """One without a kubelet, and networks of two families on it."""
    made = make_node("node-a", start=False, server=proxy.url)
    cluster.api.create("/api/v1/nodes", {"metadata": {"name": made.name}})
    made.start_daemon()
    six = [{"range": "fd00:93::/64", "range_start": "fd00:93::12"}]
    front = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12", "ipRanges": six}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": front}, {"type": "sbr"})
    side = {"type": "whereabouts", "range": "10.94.0.0/24"}
    cluster.network("side", {"type": "macvlan", "master": "eth1", "ipam": side})
    return made


def replica(cluster: Cluster, node: HomeportNode) -> dict[str, Any]:
    cluster.statefulset("web", 1, "front,side")
    cluster.wait(lambda: "web-0" in cluster.pods(), "the controller made the pod")
    cluster.bind("web-0", node.name)
    return cluster.pod("web-0")


def stranger(cluster: Cluster, node: HomeportNode) -> dict[str, Any]:
    spec = {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]}
    return cluster.create_pod({"metadata": {"name": "bare", "annotations": {NETWORKS: "front"}}, "spec": spec})


def kept(netns: str) -> dict[str, list[str]]:
    """Addresses of a pod's secondary interfaces."""
    return {
        link["ifname"]: [a["local"] for a in link["addr_info"] if a["scope"] == "global"]
        for link in ip_json(netns, "address")
        if link["ifname"] in ("net1", "net2")
    }


OWN = {"net1": ["10.93.97.12", "fd00:93::12"], "net2": ["10.94.0.1"]}


def test_gc_lets_go_of_what_the_runtime_forgot(cluster: Cluster, node: HomeportNode) -> None:
    pods = [replica(cluster, node), stranger(cluster, node)]
    left, living = [node.runtime.run_sandbox(pod) for pod in pods]
    node.runtime.gc([living])
    node.wait(lambda: len(node.claims()) == 2, 20, "the API server has been told")
    phases = {address: status["phase"] for address, status in cluster.allocations().items()}
    assert phases == {
        **dict.fromkeys(("10.93.97.12", "fd00:93::12", "10.94.0.1"), "Retained"),
        **dict.fromkeys(("10.93.97.13", "fd00:93::13"), "Bound"),
    }
    node.runtime.check(living)
    with pytest.raises(CniError):
        node.runtime.check(left)
    node.runtime.status()


def test_e20_a_sandbox_made_again_in_an_outage_has_every_address(
    cluster: Cluster, node: HomeportNode, proxy: Proxy
) -> None:
    """Two interfaces, two families; a replica, and a pod that is none."""
    pods = [replica(cluster, node), stranger(cluster, node)]
    sandboxes = [node.runtime.run_sandbox(pod) for pod in pods]
    before = [kept(sandbox.netns) for sandbox in sandboxes]
    assert before[0] == OWN
    node.wait(lambda: not any(note.get("undelivered") for note in node.claims().values()), 20, "the MACs are told")
    proxy.refuse = lambda _method, _path: 500
    proxy.end_watches()
    for sandbox in sandboxes:
        node.runtime.stop_sandbox(sandbox)
    node.kill_daemon()
    node.start_daemon()
    again = [node.runtime.run_sandbox(pod) for pod in pods]
    assert [kept(sandbox.netns) for sandbox in again] == before
    for sandbox in again:
        node.runtime.check(sandbox)
    proxy.refuse = lambda _method, _path: 0
    node.wait(lambda: not any(note.get("undelivered") for note in node.claims().values()), 30, "it is told")
    holders = {status["holder"]["containerID"] for status in cluster.allocations().values()}
    assert holders == {sandbox.container_id for sandbox in again}
    assert {note["state"] for note in node.claims().values()} == {"Bound"}


def test_a_hot_restart_takes_along_what_is_not_told_yet(cluster: Cluster, node: HomeportNode, proxy: Proxy) -> None:
    sandbox = node.runtime.run_sandbox(stranger(cluster, node))
    proxy.refuse = lambda _method, path: 500 if path.startswith(OURS) else 0
    node.runtime.stop_sandbox(sandbox)
    assert node.daemon
    served = node.log().count("serving")
    node.daemon.send_signal(signal.SIGHUP)
    node.wait(lambda: node.log().count("serving") > served and node.is_ready(), 30, "its successor serves")
    assert {note["state"] for note in node.claims().values()} == {"Deleting"}
    proxy.refuse = lambda _method, _path: 0
    node.wait(lambda: not node.claims(), 30, "the API server has been told of the release")
    assert cluster.allocations() == {}
    node.stop_daemon()


def test_without_our_definitions_an_add_says_what_is_missing(
    cluster: Cluster, node: HomeportNode, proxy: Proxy
) -> None:
    pod = stranger(cluster, node)
    proxy.refuse = lambda _method, path: 404 if path.startswith(OURS) else 0
    with pytest.raises(
        CniError, match=r'expected the definition "ipallocations\.homeport\.dev" to be installed'
    ) as told:
        node.runtime.run_sandbox(pod)
    assert told.value.code == 5
    assert (node.runtime.sandboxes(), node.claims()) == ([], {})
    proxy.refuse = lambda _method, _path: 0
    assert kept(node.runtime.run_sandbox(pod).netns)["net1"] == ["10.93.97.12", "fd00:93::12"]
