"""A node whose allocations are tampered with in the cluster, or whose own record of them is lost: real daemon, real
interfaces, real API server, the node's own role (docs/identity.md R12, E26; docs/protocol.md P14, P20).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from testcluster.homeport_node import HomeportNode, addresses
from testcluster.machines import delete_namespace
from tests.apiserver.node.workloads import OURS, Cluster, allocations

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
FIRST, SECOND = "10.93.97.12", "10.93.97.13"


def front(cluster: Cluster, *, last: str = "10.93.97.20") -> None:
    ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": FIRST, "range_end": last}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": ipam})


def warnings(cluster: Cluster, reason: str) -> dict[str, str]:
    """Object to message."""
    found = [e for e in cluster.events() if (e["reason"], e["type"]) == (reason, "Warning")]
    return {e["involvedObject"]["name"]: e["message"] for e in found}


def of(cluster: Cluster, address: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.api.get(f"{OURS}/ipallocations/{address}")
    return found


def stable(status: dict[str, Any]) -> dict[str, Any]:
    """Without what is of the last write alone."""
    return {key: value for key, value in status.items() if key not in ("cause", "changed", "write")}


def net1(node: HomeportNode, cluster: Cluster, pod: str) -> list[str]:
    return addresses(node.sandbox(cluster.namespace, pod).netns)["net1"]


def test_allocations_of_running_pods_that_an_operator_deletes(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node("node-a")
    front(cluster)
    cluster.statefulset("web", 1, "front")
    cluster.await_running(1)
    cluster.deployment("job", 1, "front")
    cluster.await_running(2)
    (job,) = cluster.running().keys() - {"web-0"}
    before = {address: of(cluster, address) for address in (FIRST, SECOND)}
    cluster.api.request("DELETE", f"{OURS}/ipallocations")  # kubectl delete ipallocations --all
    cluster.wait(lambda: allocations(cluster.api).keys() == {FIRST, SECOND}, "both are made again")
    for address, former in before.items():
        now = of(cluster, address)
        assert now["metadata"]["uid"] != former["metadata"]["uid"]
        assert now["metadata"]["labels"] == former["metadata"]["labels"]
        assert now["spec"] == former["spec"]
        assert stable(now["status"]) == stable(former["status"])
        assert now["status"]["cause"] == "restored: was deleted while its interface is up"
    cluster.wait(lambda: warnings(cluster, "AllocationRestored").keys() == {"web-0", job}, "both pods' events tell")
    assert f"the allocation of {FIRST} was deleted" in warnings(cluster, "AllocationRestored")["web-0"]
    cluster.delete_deployment("job")
    cluster.scale("web", 0)
    cluster.await_gone()
    cluster.wait(
        lambda: {a: s["phase"] for a, s in allocations(cluster.api).items()} == {FIRST: "Retained"},
        "what was made again is let go as ever",
    )
    assert node.kubelet.failures == []


def test_an_allocation_that_is_given_to_somebody_else_by_hand(cluster: Cluster, make_node: MakeNode) -> None:
    """Another's that looks as good as ours: both are reported, and neither is freed."""
    node = make_node("node-a")
    front(cluster)
    cluster.statefulset("web", 1, "front")
    cluster.await_running(1)
    stranger = {"kind": "Pod", "namespace": "elsewhere", "name": "x", "uid": "u", "workload": None, "ordinal": None}
    holder = {"containerID": "c9", "interface": "net1", "netns": "/x", "node": "node-z", "podUID": "u"}
    theirs = {"spec": {"owner": stranger}, "status": {"holder": holder}}
    cluster.wait(lambda: node.claims()[FIRST]["state"] == "Bound", "the claim is the node's")
    cluster.api.patch(f"{OURS}/ipallocations/{FIRST}", theirs)
    cluster.wait(lambda: "web-0" in warnings(cluster, "AddressConflict"), "the pod's events tell", 30)
    message = warnings(cluster, "AddressConflict")["web-0"]
    assert f"{FIRST} of net1 on" in message
    assert "is Bound in the cluster for elsewhere/x on node node-z" in message
    assert of(cluster, FIRST)["status"]["holder"]["containerID"] == "c9"
    assert net1(node, cluster, "web-0") == [f"{FIRST}/20"]
    cluster.api.delete(f"{OURS}/ipallocations/{FIRST}")
    ours = node.sandbox(cluster.namespace, "web-0").container_id

    def is_ours() -> bool:
        holder = allocations(cluster.api).get(FIRST, {}).get("holder") or {}
        return holder.get("containerID") == ours

    cluster.wait(is_ours, "it is ours again once they let go")


def test_an_allocation_that_is_made_unreadable_by_hand(cluster: Cluster, make_node: MakeNode) -> None:
    """What validation cannot see. The pod runs on, and nothing is written over it."""
    node = make_node("node-a")
    front(cluster)
    cluster.statefulset("web", 2, "front")
    cluster.await_running(2)
    cluster.api.patch(f"{OURS}/ipallocations/{FIRST}", {"spec": {"address": "10.93.97.99"}})
    nonsense = of(cluster, FIRST)
    cluster.api.delete(f"{OURS}/ipallocations/{SECOND}")
    cluster.wait(lambda: SECOND in allocations(cluster.api), "the other is made again", 30)
    cluster.wait(lambda: f"ipallocations {FIRST}" in node.log(), "the log names it")
    assert of(cluster, FIRST) == nonsense
    assert net1(node, cluster, "web-0") == [f"{FIRST}/20"]
    cluster.api.patch(f"{OURS}/ipallocations/{FIRST}", {"spec": {"address": FIRST}})
    cluster.scale("web", 0)
    cluster.await_gone()
    cluster.wait(lambda: {s["phase"] for s in allocations(cluster.api).values()} == {"Retained"}, "both are let go")


def test_a_node_that_loses_its_claims(cluster: Cluster, make_node: MakeNode) -> None:
    """Those of interfaces that are up come back; what has neither namespace nor pod any more is let go."""
    node = make_node("node-a")
    front(cluster)
    cluster.statefulset("web", 1, "front")
    cluster.await_running(1)
    cluster.deployment("job", 1, "front")
    cluster.await_running(2)
    (job,) = cluster.running().keys() - {"web-0"}
    held = allocations(cluster.api)
    lost = node.sandbox(cluster.namespace, job)
    node.stop_daemon()
    for file in node.disk.state_dir.glob("claims.db*"):
        file.unlink()
    node.kubelet.partition()
    cluster.forget_pod(job)
    cluster.delete_deployment("job")
    delete_namespace(lost.netns)
    node.start_daemon()
    cluster.wait(lambda: len(node.claims()) == 1, "the claim of what is up is made again", 30)
    assert node.claims().keys() == {FIRST}
    cluster.wait(lambda: allocations(cluster.api).keys() == {FIRST}, "the other's is let go", 30)
    assert allocations(cluster.api)[FIRST] == held[FIRST]
    node.kubelet.heal()
    cluster.scale("web", 0)
    cluster.await_gone()
    cluster.wait(lambda: allocations(cluster.api)[FIRST]["phase"] == "Retained", "and let go as ever")
