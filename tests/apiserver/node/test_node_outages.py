"""Nodes while the API server is away, or answers with nothing but errors (docs/identity.md E20, R10)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane
from testcluster.homeport_node import HomeportNode, addresses, files
from tests.apiserver.node.proxies import Proxy
from tests.apiserver.node.workloads import Cluster

from homeport.model.errors import TryAgainLater

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
SECONDS = 40.0


def front(cluster: Cluster) -> None:
    ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12"}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": ipam}, {"type": "sbr"})


def restart_sandbox(node: HomeportNode, cluster: Cluster, pod: str) -> dict[str, list[str]]:
    """A new container for the same pod; the addresses it got."""
    before = node.sandbox(cluster.namespace, pod)
    node.kubelet.restart_sandbox(cluster.namespace, pod)

    def is_new() -> bool:
        now = node.kubelet.sandbox(cluster.namespace, pod)
        return now is not None and now.container_id != before.container_id

    node.wait(is_new, SECONDS, f"{pod} has another sandbox")
    assert not before.exists
    return addresses(node.sandbox(cluster.namespace, pod).netns)


def unknown_pod(cluster: Cluster) -> dict[str, Any]:
    """A pod as a kubelet may have it from before the outage, and whose ADD never was."""
    metadata = {"namespace": cluster.namespace, "name": "new-0", "uid": secrets.token_hex(16)}
    return {"metadata": metadata, "spec": {"containers": []}}


@pytest.mark.timeout(240)
def test_an_api_server_that_is_stopped_or_paused(private_control_plane: ControlPlane, make_node: MakeNode) -> None:
    plane = private_control_plane
    admin = Api(plane.access())
    cluster = Cluster(admin, "default")
    front(cluster)
    node = make_node("node-a", plane=plane)
    cluster.statefulset("web", 2, "front")
    cluster.await_running(2)
    outages = ((plane.stop_apiserver, plane.start_apiserver), (plane.pause_apiserver, plane.resume_apiserver))
    for begin, end in outages:
        begin()
        found = {"web-0": restart_sandbox(node, cluster, "web-0")}
        assert found["web-0"]["net1"] == ["10.93.97.12/20"]

        node.kill_daemon()
        node.start_daemon()
        found["web-1"] = restart_sandbox(node, cluster, "web-1")
        assert found["web-1"]["net1"] == ["10.93.97.13/20"]
        with pytest.raises(TryAgainLater):
            node.runtime.run_sandbox(unknown_pod(cluster))
        assert len(node.runtime.sandboxes()) == 2, "its DEL was answered"
        assert files(node.disk.journal), "nobody knows yet what it had"

        end()
        for name, interfaces in found.items():
            bare = {ifname: [ip.partition("/")[0] for ip in ips] for ifname, ips in interfaces.items()}
            cluster.await_status(name, bare)
        node.wait(lambda: not files(node.disk.journal), SECONDS, "the journal is empty")

    cluster.scale("web", 3)
    cluster.await_running(3)
    cluster.delete_statefulset("web")
    cluster.await_gone()
    node.await_nothing_left()
    node.kubelet.stop()
    admin.close()


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    """Before this worker's API server."""
    made = Proxy(control_plane)
    yield made
    made.close()


def test_an_api_server_that_refuses(cluster: Cluster, proxy: Proxy, make_node: MakeNode) -> None:
    front(cluster)
    node = make_node("node-a", server=proxy.url)
    cluster.statefulset("web", 1, "front")
    cluster.await_running(1)

    # 409: the status is written again later, and the pod does not wait for that
    proxy.refuse = lambda method, path: 409 if method == "PATCH" and path.endswith("/status") else 0
    found = restart_sandbox(node, cluster, "web-0")
    assert any("/status 409" in refused for refused in proxy.refused)
    proxy.refuse = lambda _method, _path: 0
    bare = {ifname: [ip.partition("/")[0] for ip in ips] for ifname, ips in found.items()}
    cluster.await_status("web-0", bare)

    # 410: the watch's version is too old; what it missed is found by a list
    gone = iter([410] * 2)
    proxy.refuse = lambda _method, path: next(gone, 0) if "watch=" in path else 0
    proxy.end_watches()
    cluster.scale("web", 0)
    cluster.await_gone()
    node.await_nothing_left()
    cluster.scale("web", 1)
    cluster.await_running(1)
    assert [refused for refused in proxy.refused if refused.endswith(" 410")]

    # 429, with the time to wait: every question is asked again
    asked: set[tuple[str, str]] = set()

    def many_at_first(method: str, path: str) -> int:
        is_first = method in ("GET", "PATCH") and "watch=" not in path and (method, path) not in asked
        asked.add((method, path))
        return 429 if is_first else 0

    proxy.refuse = many_at_first
    before = len(node.kubelet.failures)
    assert restart_sandbox(node, cluster, "web-0")["net1"] == ["10.93.97.12/20"]
    assert len(node.kubelet.failures) == before
    assert [refused for refused in proxy.refused if refused.endswith(" 429")]
    proxy.refuse = lambda _method, _path: 0

    # 500 to everything: as if it were away
    proxy.refuse = lambda _method, _path: 500
    proxy.end_watches()
    found = restart_sandbox(node, cluster, "web-0")
    assert found["net1"] == ["10.93.97.12/20"]
    with pytest.raises(TryAgainLater):
        node.runtime.run_sandbox(unknown_pod(cluster))
    proxy.refuse = lambda _method, _path: 0
    bare = {ifname: [ip.partition("/")[0] for ip in ips] for ifname, ips in found.items()}
    cluster.await_status("web-0", bare)
    cluster.delete_statefulset("web")
    cluster.await_gone()
    node.await_nothing_left(SECONDS)
