"""What pods may ask of their networks, answered by a node as a whole: annotation in, kernel and status out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.homeport_node import addresses, ip_json, links, pings
from tests.apiserver.node.workloads import Cluster, allocations

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"


def macvlan(ipam: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    return {"type": "macvlan", "master": "eth1", "ipam": ipam, **keys}


def default_routes(netns: str) -> list[tuple[str, str]]:
    """(gateway, interface) of every default route."""
    return [(route.get("gateway", ""), route["dev"]) for route in ip_json(netns, "-4", "route", "show", "default")]


def statuses(cluster: Cluster, pod: str) -> dict[str, dict[str, Any]]:
    """The pod's network-status by interface."""
    return {status["interface"]: status for status in json.loads(cluster.status(pod))}


def test_each_replica_has_the_network_its_ordinal_names(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node("node-a")
    both = {"ips": True, "mac": True}
    for n in range(2):
        cluster.network(f"rail{n}", macvlan({"type": "static"}, capabilities=both))
    selection = {
        "name": "rail{ordinal}",
        "interface": "rail{ordinal}",
        "ips": ["10.13.19.{ordinal+10}/24"],
        "mac": "02:13:19:00:00:{ordinal+1}",
    }
    cluster.statefulset("web", 2, json.dumps([selection]))
    cluster.await_running(2)
    for n in range(2):
        netns = node.sandbox(cluster.namespace, f"web-{n}").netns
        assert addresses(netns)[f"rail{n}"] == [f"10.13.19.{10 + n}/24"]
        status = statuses(cluster, f"web-{n}")[f"rail{n}"]
        assert status["name"] == f"{cluster.namespace}/rail{n}"
        assert status["mac"] == links(netns)[f"rail{n}"]["address"] == f"02:13:19:00:00:0{n + 1}"
    assert pings(node.sandbox(cluster.namespace, "web-0").netns, "10.13.19.10", "10.13.19.11")


def test_a_pod_may_change_its_default_network_and_its_default_route(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node("node-a")
    ipam = {"type": "whereabouts", "range": "10.93.98.0/24", "gateway": "10.93.98.1", "routes": [{"dst": "0.0.0.0/0"}]}
    cluster.network("lan", macvlan({**ipam, "range_start": "10.93.98.20"}))
    cluster.network("front", macvlan({"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12"}))
    cluster.statefulset("other", 1, "", **{DEFAULT_NETWORK: f"{cluster.namespace}/lan"})
    cluster.statefulset("web", 1, json.dumps([{"name": "front", "default-route": ["10.93.96.1"]}]))
    pods = cluster.await_running(2)

    other = node.sandbox(cluster.namespace, "other-0").netns
    assert pods["other-0"]["status"]["podIP"] == "10.93.98.20"
    assert addresses(other) == {"eth0": ["10.93.98.20/24"]}
    assert default_routes(other) == [("10.93.98.1", "eth0")]
    assert statuses(cluster, "other-0")["eth0"]["default"] is True

    web = node.sandbox(cluster.namespace, "web-0").netns
    assert default_routes(web) == [("10.93.96.1", "net1")]
    assert pings(web, "net1", "10.93.96.1")
    found = statuses(cluster, "web-0")
    assert found["net1"]["gateway"] == ["10.93.96.1"]
    assert "gateway" not in found["eth0"]
    node.runtime.check(node.sandbox(cluster.namespace, "web-0"))


def test_strangers_take_what_is_free_and_give_it_back(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node("node-a")
    ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12", "range_end": "10.93.97.13"}
    cluster.network("front", macvlan(ipam))
    cluster.deployment("job", 3, "front")
    cluster.wait(lambda: len(cluster.running()) == 2 and node.kubelet.failures, "two run, and one finds no address")
    found = [addresses(node.sandbox(cluster.namespace, name).netns)["net1"] for name in cluster.running()]
    assert sorted(found) == [["10.93.97.12/20"], ["10.93.97.13/20"]]
    assert "10.93.97.12-10.93.97.13" in str(node.kubelet.failures[-1].error)
    cluster.delete_deployment("job")
    cluster.await_gone()
    assert allocations(cluster.api) == {}
    node.await_nothing_left()


def test_a_network_that_is_missing_or_cannot_do_it_is_named(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node("node-a")

    def failure(pod: str) -> str:
        return next((str(f.error) for f in node.kubelet.failures if f.pod == f"{cluster.namespace}/{pod}"), "")

    cluster.network("dull", macvlan({"type": "whereabouts", "range": "10.93.96.0/20"}))
    cluster.statefulset("early", 1, "later")
    cluster.statefulset(
        "wants", 1, json.dumps([{"name": "dull", "mac": "02:00:00:00:00:01", "bandwidth": {"ingressRate": 1}}])
    )
    cluster.wait(lambda: failure("early-0") and failure("wants-0"), "both fail")
    assert f"{cluster.namespace}/later" in failure("early-0")
    assert "bandwidth" in failure("wants-0")
    assert f"{cluster.namespace}/dull" in failure("wants-0")
    cluster.wait(lambda: "NoNetworkFound" in {event["reason"] for event in cluster.events()}, "an event tells")
    cluster.network("later", macvlan({"type": "static", "addresses": [{"address": "10.1.1.1/24"}]}))
    cluster.wait(lambda: "early-0" in cluster.running(), "it goes on when the network is there")
    cluster.wait(lambda: "AddedInterface" in {event["reason"] for event in cluster.events()}, "an event tells")
    cluster.delete_statefulset("early")
    cluster.delete_statefulset("wants")
    cluster.await_gone()
    node.await_nothing_left()


def test_all_verbs(cluster: Cluster, make_node: MakeNode) -> None:
    node = make_node("node-a", settings={"cniVersion": "1.1.0"})
    generated = json.loads(node.disk.generated.read_text())
    assert generated == {
        "cniVersion": "1.1.0",
        "name": "multus-cni-network",
        "type": "homeport",
        "clusterNetwork": str(node.disk.conf_dir / "10-pod-network.conflist"),
        "binDir": str(node.disk.bin_dir),
        "cniDir": str(node.disk.cni_dir),
        "logLevel": "debug",
    }
    cluster.network("front", macvlan({"type": "whereabouts", "range": "10.93.96.0/20"}), {"type": "sbr"})
    cluster.statefulset("web", 2, "front")
    cluster.await_running(2)
    node.runtime.status()
    sandboxes = [node.sandbox(cluster.namespace, f"web-{n}") for n in range(2)]
    for sandbox in sandboxes:
        node.runtime.check(sandbox)

    lost = sandboxes[1]  # the runtime forgets it, as after its own records were lost
    node.kubelet.stop()
    node.runtime.gc([sandboxes[0]])
    assert set(addresses(lost.netns)) == set()
    assert set(addresses(sandboxes[0].netns)) == {"eth0", "net1"}
    assert [path.name for path in node.disk.cni_dir.iterdir() if path.is_file()] == [sandboxes[0].container_id]
