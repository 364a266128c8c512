"""The commands about addresses on a real API server, with the roles of deploy/rbac.yaml that are for people."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from testcluster.api import Api
from testcluster.control_plane import ADMIN, ControlPlane

from homeport.host.files import LocalFiles
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, PodOwner, Replica, Slot, Workload
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.store import KubernetesStore

pytestmark = pytest.mark.root
WaitUntil = Callable[..., None]
GROUPS = {"viewer": ["test:viewers"], "operator": ["test:viewers", "test:operators"]}


class Shop:
    """A namespace with a StatefulSet of two on a network of its own, and `homeport` for two people."""

    def __init__(self, plane: ControlPlane, admin: Api, namespace: str, objects: KubernetesObjects) -> None:
        self.plane, self.admin, self.namespace, self.objects = plane, admin, namespace, objects
        self.store = KubernetesStore(objects)
        self.web = Workload(namespace, "StatefulSet", "web")
        self.manifests = [self._definition(), self._stateful_set()]

    def __call__(self, *words: str, role: str = "viewer", stdin: str = "", code: int = 0) -> str:
        kubeconfig = self.plane.kubeconfig(f"test-{role}", GROUPS[role])
        argv = [sys.executable, "-m", "homeport", *words, "--kubeconfig", str(kubeconfig)]
        ran = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout if code == 0 else ran.stdout + ran.stderr

    def json(self, *words: str, code: int = 0, stdin: str = "") -> Any:
        return json.loads(self(*words, "-o", "json", code=code, stdin=stdin))

    def create(self) -> None:
        """The definition and the StatefulSet; its pods are Pending, since no node takes them."""
        self.admin.create(
            f"/apis/k8s.cni.cncf.io/v1/namespaces/{self.namespace}/network-attachment-definitions", self.manifests[0]
        )
        self.admin.create(f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets", self.manifests[1])

    def pod(self, name: str) -> dict[str, Any] | None:
        return self.admin.find(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def put(self, address: str, ordinal: int, phase: Phase, *, node: str = "", uid: str = "") -> Allocation:
        holder = Holder(container_id="c0ffee", ifname="net1", netns_path="/x", node=node, pod_uid=uid)
        allocation = Allocation(
            scope=self.namespace,
            address=ip_address(address),
            slot=Slot(Replica(self.web, ordinal), "lan", "net1"),
            phase=phase,
            holder=holder if phase is Phase.BOUND else None,
            since=datetime.now(UTC) - timedelta(minutes=5),
        )
        return self.store.create(allocation, cause="test")

    def _definition(self) -> dict[str, Any]:
        ipam = {"type": "whereabouts", "range": "10.9.0.0/29", "network_name": self.namespace}
        config = {"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "eth1", "ipam": ipam}
        return {
            "apiVersion": "k8s.cni.cncf.io/v1",
            "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": "lan", "namespace": self.namespace},
            "spec": {"config": json.dumps(config)},
        }

    def _stateful_set(self) -> dict[str, Any]:
        labels = {"app": "web"}
        annotations = {"k8s.v1.cni.cncf.io/networks": "lan"}
        return {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": self.namespace},
            "spec": {
                "replicas": 2,
                "serviceName": "web",
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations},
                    "spec": {"containers": [{"name": "main", "image": "none"}]},
                },
            },
        }


@pytest.fixture(scope="module")
def _people(control_plane: ControlPlane) -> Iterator[None]:
    admin = Api(control_plane.access())
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    names = []
    for role, group in (("viewer", "test:viewers"), ("operator", "test:operators")):
        names.append(f"test-commands-{role}-{secrets.token_hex(4)}")
        admin.create(
            bindings,
            {
                "metadata": {"name": names[-1]},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"homeport-{role}"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}],
            },
        )
    yield
    for name in names:
        admin.delete(f"{bindings}/{name}")
    admin.close()


@pytest.fixture
def shop(control_plane: ControlPlane, admin: Api, namespace: str, _people: None) -> Iterator[Shop]:
    config = configs.load(str(control_plane.kubeconfig(ADMIN)), {}, LocalFiles())
    assert config is not None
    objects = KubernetesObjects.connect(config)
    yield Shop(control_plane, admin, namespace, objects)
    for resource in (IPALLOCATIONS, IPSLOTS):
        for stored in objects.list(resource):
            objects.delete(resource, stored.name)
    objects.close()


def test_addresses_are_listed_and_told_of(shop: Shop) -> None:
    shop.create()
    shop.put("10.9.0.1", 0, Phase.BOUND, node="node-x", uid="u")
    shop.put("10.9.0.2", 1, Phase.RETAINED)
    table = shop("ips", "-n", shop.namespace).splitlines()
    assert [line.split()[:7] for line in table[1:3]] == [
        ["10.9.0.1", shop.namespace, "web-0", "lan", "net1", "Bound", "node-x"],
        ["10.9.0.2", shop.namespace, "web-1", "lan", "net1", "Retained", "<none>"],
    ]
    assert table[-1] == "lan 10.9.0.1-10.9.0.6: 1 Bound, 1 Retained, of 6 usable"
    for words in (["--node", "node-x"], ["--workload", "statefulset/web", "--phase", "Bound"]):
        assert shop("ips", "-n", shop.namespace, *words, "-o", "name").split() == ["10.9.0.1"]
    said = shop("who", "10.9.0.1")
    assert said.startswith(f"10.9.0.1 in scope {shop.namespace} is Bound: {shop.namespace}/web-0, net1 on lan")
    assert "web-0" in shop("who", "10.9.0.1", "--at", "1m ago"), "it has been so for five minutes"
    assert "unknown: the ledger" in shop("who", "10.9.0.1", "--at", "1h ago", code=1)


def test_a_plan_against_the_cluster(shop: Shop) -> None:
    shop.create()
    shop.put("10.9.0.5", 0, Phase.RETAINED)
    taken = Allocation(
        scope=shop.namespace,
        address=ip_address("10.9.0.2"),
        slot=Slot(PodOwner(shop.namespace, "early", "u"), "lan", "net1"),
        phase=Phase.BOUND,
        holder=Holder(container_id="c0ffee", ifname="net1", netns_path="/x", node="node-x", pod_uid="u"),
        since=datetime.now(UTC),
    )
    shop.store.create(taken, cause="test")
    workload = json.dumps(shop.manifests[1])
    found = shop.json("plan", "-f", "-", stdin=workload, code=1)
    assert [(line["pod"], line["address"]) for line in found["replicas"]] == [
        ("web-0", "10.9.0.5/29"),
        ("web-1", "10.9.0.1/29"),
    ]
    assert found["clashes"] == [
        f"{shop.namespace}/web-1 cannot have its number: 10.9.0.2 is Bound for {shop.namespace}/early"
    ]
    unknown = workload.replace('"lan"', '"nowhere"')
    said = shop.json("plan", "-f", "-", "--against", "cluster", stdin=unknown, code=1)["clashes"]
    assert f'find network "{shop.namespace}/nowhere": no such NetworkAttachmentDefinition' in said[0]


def test_why_a_pod_waits(shop: Shop, wait_until: WaitUntil) -> None:
    shop.create()
    wait_until(lambda: shop.pod("web-0") is not None, deadline=30.0)
    shop.put("10.9.0.1", 0, Phase.BOUND, node="node-gone", uid="the-one-before")
    text = shop("explain", "web-0", "-n", shop.namespace)
    assert "StatefulSet web: 2 replicas from ordinal 0" in text
    assert "its pod: gone, the cluster has UID " in text
    assert "its node: gone, the cluster has no node-gone" in text
    assert "next ADD   takes 10.9.0.1: moved: node node-gone is gone" in text
    node = f"node-{shop.namespace}"
    shop.admin.create("/api/v1/nodes", {"metadata": {"name": node}})
    try:
        (first,) = shop.store.of_slot(Slot(Replica(shop.web, 0), "lan", "net1"))
        shop.store.delete(first, cause="DEL")
        shop.put("10.9.0.1", 0, Phase.BOUND, node=node, uid="the-one-before")
        text = shop("explain", f"{shop.namespace}/web-0")
        assert "next ADD   asks from its node whether anybody answers for 10.9.0.1" in text
        assert f"if {node} is off for certain: homeport release 10.9.0.1 --force" in text
    finally:
        shop.admin.delete(f"/api/v1/nodes/{node}")


def test_what_was_said_of_a_pod_is_told_again(shop: Shop, wait_until: WaitUntil) -> None:
    shop.create()
    wait_until(lambda: "FailedScheduling" in shop("explain", "web-1", "-n", shop.namespace), deadline=30.0)
    assert "next ADD   creates 10.9.0.2: allocated" in shop("explain", "web-1", "-n", shop.namespace)


def test_an_operator_releases_and_reserves_and_a_viewer_may_not(shop: Shop) -> None:
    shop.create()
    shop.put("10.9.0.1", 0, Phase.RETAINED)
    refused = shop("release", "10.9.0.1", "--yes", code=1)
    assert refused.count("\n") <= 2, "a line, and perhaps one of details"
    assert "Traceback" not in refused
    assert "403" in refused or "forbidden" in refused.lower()
    assert "10.9.0.1 released" in shop("release", "10.9.0.1", "--yes", role="operator")
    assert list(shop.store.of_workload(shop.web)) == []
    reserve = ("reserve", "10.9.0.6", "--for", f"{shop.namespace}/web-0", "--network", "lan")
    assert "10.9.0.6 reserved" in shop(*reserve, role="operator")
    (kept,) = shop.store.of_slot(Slot(Replica(shop.web, 0), "lan", "net1"))
    assert (str(kept.address), kept.phase, kept.scope) == ("10.9.0.6", Phase.RETAINED, shop.namespace)
    assert "next ADD   takes 10.9.0.6: returned" in shop("explain", "web-0", "-n", shop.namespace)


def test_an_api_server_that_is_not_there_is_a_line(shop: Shop) -> None:
    kubeconfig = shop.plane.kubeconfig("test-viewer", GROUPS["viewer"])
    elsewhere = kubeconfig.with_name("elsewhere")
    host, _, _ = shop.plane.server.rpartition(":")
    elsewhere.write_text(kubeconfig.read_text().replace(shop.plane.server, f"{host}:1"))
    argv = [sys.executable, "-m", "homeport", "ips", "--kubeconfig", str(elsewhere)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert ran.stderr.startswith("homeport: ")
