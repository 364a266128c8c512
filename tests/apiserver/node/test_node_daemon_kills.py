"""E21 of the conformance matrix (docs/identity.md) on a node: the daemon killed at every step of ADD and of DEL."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.api import Api
from testcluster.homeport_node import HomeportNode, files, ip_json
from testcluster.sandboxes import Sandbox
from tests.apiserver.node.workloads import Cluster, allocations
from tests.identity.cluster.observing import global_addresses
from tests.identity.shapes import Shape, flat

from homeport.model.errors import CniError

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
DYING = (sys.executable, str(Path(__file__).with_name("dying_daemon.py")))
STEPS = {
    "ADD": "Kernel.create_veth Kernel.create_macvlan Kernel.add_address Kernel.add_rule Claims.swap "
    "KubernetesObjects.patch DiskAllocations.reserve ResultCache.save node_files.replace os.replace "
    "KubernetesClient.write_annotations answer",
    "DEL": "Kernel.delete_links Claims.swap DiskAllocations.release ResultCache.forget node_files.remove answer",
}


@pytest.fixture
def wish(disks: Path) -> Path:
    return disks / "death"


@pytest.fixture
def node(make_node: MakeNode, admin: Api, wish: Path) -> HomeportNode:
    """One without a kubelet, whose daemon is started again whenever it dies."""
    node = make_node("node-a", start=False, daemon=DYING, daemon_environ={"HOMEPORT_TEST_DEATH": str(wish)})
    admin.create("/api/v1/nodes", {"metadata": {"name": node.name}})
    node.start_daemon()
    return node


def replica(cluster: Cluster, node: HomeportNode, networks: str) -> dict[str, Any]:
    """The first of a StatefulSet, on the node by the test's own word."""
    cluster.statefulset("web", 1, networks)
    cluster.wait(lambda: "web-0" in cluster.pods(), "the controller made the pod")
    cluster.bind("web-0", node.name)
    return cluster.pod("web-0")


def add(node: HomeportNode, pod: dict[str, Any]) -> Sandbox:
    """As a kubelet does: after a failure everything of the pod is deleted, and a new container is made."""
    for _ in range(3):
        for left in node.runtime.sandboxes():
            delete(node, left)
        try:
            return node.runtime.run_sandbox(pod)
        except CniError:
            continue
    raise AssertionError(f"three ADDs failed: {[str(call.error) for call in node.runtime.calls[-6:]]}")


def delete(node: HomeportNode, sandbox: Sandbox) -> None:
    for _ in range(3):
        try:
            node.runtime.stop_sandbox(sandbox)
        except CniError:
            continue
        return
    raise AssertionError(f"three DELs failed: {[str(call.error) for call in node.runtime.calls[-3:]]}")


@pytest.mark.parametrize("shape", [Shape(1, False), Shape(2, True)], ids=str)
@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_e21_killed_at_every_step(verb: str, shape: Shape, node: HomeportNode, cluster: Cluster, wish: Path) -> None:
    for name in shape.networks:
        ipam = {"type": "whereabouts", "ipRanges": shape.ranges(name, 20)}
        cluster.network(name, {"type": "macvlan", "master": "eth1", "ipam": ipam}, {"type": "sbr"})
    own, every = shape.numbered(0), flat({"web-0": shape.numbered(0)})
    pod = replica(cluster, node, ",".join(shape.networks))
    died: list[str] = []

    def phases() -> dict[str, str]:
        return {address: status["phase"] for address, status in allocations(cluster.api).items()}

    for number in count(1):
        if verb == "ADD":
            wish.write_text(f"ADD {number}")
        sandbox = add(node, pod)
        assert global_addresses(ip_json(sandbox.netns, "address")) == own, died[-1:]
        assert phases() == dict.fromkeys(every, "Bound")
        node.runtime.check(sandbox)
        if verb == "DEL":
            wish.write_text(f"DEL {number}")
        delete(node, sandbox)
        node.wait(lambda: not files(node.disk.journal), 20, "the journal is empty")
        node.wait(lambda: not node.claims(), 20, "the API server has been told of the release")
        if wish.exists():
            break
        died = wish.with_suffix(".steps").read_text().split()
        assert len(died) == number
        assert node.leftovers() == {"records": [pod["metadata"]["uid"]]}, died[-1]
        assert phases() == dict.fromkeys(every, "Retained"), died[-1]
    wish.unlink()
    assert set(STEPS[verb].split()) <= set(died), "the walk went through all that a call does"
    cluster.scale("web", 0)
    cluster.wait(lambda: cluster.is_going("web-0"), "the controller deletes the pod")
    cluster.forget_pod("web-0")
    node.await_nothing_left()
    node.stop_daemon()
