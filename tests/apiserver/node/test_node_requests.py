"""What an attach asks of the API server: as few requests as there are things to say; a DEL waits for none of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import HomeportNode
from tests.apiserver.node.proxies import Proxy
from tests.apiserver.node.workloads import NETWORKS, Cluster

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
METRICS = 9101


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    made = Proxy(control_plane)
    yield made
    made.close()


class Asked:
    """Requests through a proxy, as "METHOD RESOURCE"; watches, and events, which are told in the background, apart."""

    def __init__(self, proxy: Proxy) -> None:
        self._asked: list[str] = []
        proxy.refuse = self._note

    def _note(self, method: str, path: str) -> int:
        parts = path.partition("?")[0].split("/")
        if "watch=" not in path and "events" not in parts:
            kinds = ("ipallocations", "ipslots", "pods", "statefulsets", "network-attachment-definitions")
            kind = next((k for k in kinds if k in parts), path)
            self._asked.append(f"{method} {kind}{'/status' if parts[-1] == 'status' else ''}")
        return 0

    @contextmanager
    def during(self) -> Iterator[list[str]]:
        """What is asked inside, sorted; filled when it ends."""
        before = len(self._asked)
        found: list[str] = []
        yield found
        found += sorted(self._asked[before:])


def metrics(node: HomeportNode) -> str:
    """The daemon's page, as Prometheus would read it on the node."""
    read = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{METRICS}/metrics').read().decode())"
    argv = ["ip", "netns", "exec", node.machine.netns, sys.executable, "-c", read]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def sandbox_of(node: HomeportNode, pod: dict[str, Any], asked: Asked) -> list[str]:
    """What an ADD asks, its DEL and the telling of that done by the time this returns."""
    with asked.during() as found:
        sandbox = node.runtime.run_sandbox(pod)
    node.runtime.stop_sandbox(sandbox)
    node.wait(lambda: not node.claims(), 20, "the API server has been told of the release")
    return found


def test_requests_of_an_attach(cluster: Cluster, proxy: Proxy, make_node: MakeNode) -> None:
    node = make_node("node-a", start=False, server=proxy.url, settings={"metricsPort": METRICS})
    cluster.api.create("/api/v1/nodes", {"metadata": {"name": node.name}})
    node.start_daemon()
    ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12"}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": ipam}, {"type": "sbr"})
    spec = {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]}
    bare = cluster.create_pod({"metadata": {"name": "bare", "annotations": {NETWORKS: "front"}}, "spec": spec})
    cluster.deployment("deployed", 1, "front")
    cluster.statefulset("web", 1, "front")
    cluster.wait(lambda: len(cluster.pods()) == 3, "the controllers made the pods")
    for name in cluster.pods().keys() - {"bare"}:
        cluster.bind(name, node.name)
    deployed = next(pod for name, pod in cluster.pods().items() if name.startswith("deployed"))
    asked = Asked(proxy)
    sandbox_of(node, bare, asked)  # the watch knows the pods then, and the store the range

    assert sandbox_of(node, bare, asked) == ["PATCH pods/status", "POST ipallocations"]
    assert sandbox_of(node, deployed, asked) == ["PATCH pods/status", "POST ipallocations"]
    first = sandbox_of(node, cluster.pod("web-0"), asked)
    told = [request for request in first if request != "PATCH ipallocations"]  # its MAC, in the background
    claim = ["GET ipallocations", "GET ipslots", "POST ipallocations", "POST ipslots"]
    assert told == sorted([*claim, "GET statefulsets", "PATCH pods/status"])
    bound = ["PATCH ipallocations", "PATCH pods/status"]
    for known in (bound, ["GET ipallocations", *bound]):  # to a node that remembers it, and to any other
        again = sandbox_of(node, cluster.pod("web-0"), asked)
        # An answer about the workload may be given again for a second.
        assert [request for request in again if request != "GET statefulsets"] == known
        assert 'homeport_replica_attach_total{result="kept"} 1.0' in metrics(node)
        assert 'homeport_replica_attach_total{result="changed"} 0.0' in metrics(node)
        node.stop_daemon()
        node.start_daemon()


def test_a_del_does_not_wait_for_the_api_server(cluster: Cluster, proxy: Proxy, make_node: MakeNode) -> None:
    """R10, for a pod and a replica; the release outlives the daemon."""
    node = make_node("node-a", start=False, server=proxy.url)
    cluster.api.create("/api/v1/nodes", {"metadata": {"name": node.name}})
    node.start_daemon()
    ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12"}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": ipam})
    cluster.statefulset("web", 1, "front")
    cluster.wait(lambda: "web-0" in cluster.pods(), "the controller made the pod")
    cluster.bind("web-0", node.name)
    spec = {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]}
    bare = cluster.create_pod({"metadata": {"name": "bare", "annotations": {NETWORKS: "front"}}, "spec": spec})
    sandboxes = [node.runtime.run_sandbox(pod) for pod in (cluster.pod("web-0"), bare)]
    node.wait(lambda: not any(note.get("undelivered") for note in node.claims().values()), 20, "the MAC is told")

    proxy.refuse = lambda _method, _path: 500
    for sandbox in sandboxes:
        node.runtime.stop_sandbox(sandbox)
    assert {note["state"] for note in node.claims().values()} == {"Retaining", "Deleting"}
    node.kill_daemon()
    node.start_daemon()
    proxy.refuse = lambda _method, _path: 0
    node.wait(lambda: not node.claims(), 30, "the API server has been told of the releases")
    assert {a["phase"] for a in cluster.allocations().values()} == {"Retained"}
