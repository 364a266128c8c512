"""What people, kubelets and nodes' daemons do to objects, by a hand that needs none of them. I/O: HTTPS."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

from testcluster.api import MERGE, Api

from homeport.ipam.allocations import Allocation, Phase, released
from homeport.ipam.identities import Holder, Owner, PodOwner, Replica, Slot, Workload
from homeport.model.addresses import IPAddress
from homeport.stores.kubernetes.store import KubernetesStore

OURS = "/apis/homeport.dev/v1alpha1"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/homeport-controller"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
Json = dict[str, Any]


class Hand:
    """Does to objects what people, kubelets and nodes' daemons would; sees them by plain GETs."""

    def __init__(self, api: Api, store: KubernetesStore, namespace: str) -> None:
        self.api, self.store, self.namespace = api, store, namespace
        self.network = f"lan-{secrets.token_hex(3)}"
        self.subnet = secrets.randbelow(200) + 10

    def address(self, last: int) -> str:
        return f"10.77.{self.subnet}.{last}"

    # people

    def define(self, **sticky: Any) -> None:
        ipam = {"type": "whereabouts", "range": f"10.77.{self.subnet}.0/24", "sticky": sticky}
        config = {"cniVersion": "1.0.0", "name": self.network, "type": "macvlan", "master": "eth1", "ipam": ipam}
        self.api.apply(
            {
                "apiVersion": "k8s.cni.cncf.io/v1",
                "kind": "NetworkAttachmentDefinition",
                "metadata": {"name": self.network, "namespace": self.namespace},
                "spec": {"config": json.dumps(config)},
            }
        )

    def statefulset(self, name: str, replicas: int, addresses: list[str] | None = None) -> None:
        notes = {NETWORKS: self.network}
        if addresses is not None:
            notes["homeport.dev/addresses"] = json.dumps({self.network: addresses})
        self.api.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "replicas": replicas,
                    "serviceName": name,
                    "podManagementPolicy": "Parallel",
                    "selector": {"matchLabels": {"app": name}},
                    "template": {
                        "metadata": {"labels": {"app": name}, "annotations": notes},
                        "spec": {"containers": [{"name": "main", "image": "none"}]},
                    },
                },
            }
        )

    def scale(self, name: str, replicas: int) -> None:
        self.api.patch(self._path("statefulsets", name), {"spec": {"replicas": replicas}}, MERGE)

    def delete_statefulset(self, name: str) -> None:
        self.api.request("DELETE", self._path("statefulsets", name), parameters={"propagationPolicy": "Background"})

    # kubelets and daemons

    def pod(self, name: str) -> Json | None:
        return self.api.find(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def add(self, name: str, ordinal: int, last: int, *, node: str = "") -> Allocation:
        """What an ADD of that replica leaves behind."""
        pod = self.pod(f"{name}-{ordinal}")
        assert pod is not None
        return self.bind(self._replica(name, ordinal), last, uid=pod["metadata"]["uid"], node=node)

    def bind(self, owner: Owner, last: int, *, uid: str, node: str = "") -> Allocation:
        container = secrets.token_hex(8)
        address: IPAddress = ip_address(self.address(last))
        present = self.store.get("", address)
        allocation = Allocation(
            scope="",
            address=address,
            slot=Slot(owner, self.network, "net1"),
            phase=Phase.BOUND,
            holder=Holder(
                container_id=container,
                ifname="net1",
                netns_path=f"/run/netns/{container}",
                node=node or f"{self.namespace}-node",
                pod_uid=uid,
            ),
            since=datetime.now(UTC),
            version=present.version if present is not None else 0,
        )
        if present is not None:
            return self.store.replace(allocation, cause="returned")
        return self.store.create(allocation, cause="allocated")

    def delete(self, allocation: Allocation) -> None:
        """A DEL, delivered."""
        left = released(allocation, at=datetime.now(UTC))
        if left is None:
            self.store.delete(allocation, cause="DEL")
        else:
            self.store.replace(left, cause="DEL")

    def stop_pod(self, name: str, allocation: Allocation) -> None:
        """As a kubelet does: the DEL, then the end of the pod's object."""
        self.delete(allocation)
        self.remove_pod(name)

    def remove_pod(self, name: str) -> None:
        self.api.delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}", grace_seconds=0)

    def hold_pod(self, name: str) -> None:
        """As one that is bound to a node: deleted, it stays until its kubelet lets it go."""
        self._patch_pod(name, {"metadata": {"finalizers": ["test.homeport.dev/kubelet"]}})

    def let_pod_go(self, name: str) -> None:
        self._patch_pod(name, {"metadata": {"finalizers": None}})

    def _patch_pod(self, name: str, body: Json) -> None:
        self.api.patch(f"/api/v1/namespaces/{self.namespace}/pods/{name}", body, MERGE)

    def bare_pod(self, name: str) -> PodOwner:
        made = self.api.create(
            f"/api/v1/namespaces/{self.namespace}/pods",
            {"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "none"}]}},
        )
        return PodOwner(self.namespace, name, made["metadata"]["uid"])

    def fail_pod(self, name: str) -> None:
        """An eviction, as the kubelet reports it."""
        self.api.patch(
            f"/api/v1/namespaces/{self.namespace}/pods/{name}/status",
            {"status": {"phase": "Failed", "reason": "Evicted"}},
            MERGE,
        )

    def node(self, name: str) -> str:
        """One of this test's own, by its whole name."""
        whole = f"{self.namespace}-{name}"
        self.api.create("/api/v1/nodes", {"metadata": {"name": whole}})
        return whole

    def taint_out_of_service(self, node: str) -> None:
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        self.api.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": [taint]}}, MERGE)

    def remove_node(self, node: str) -> None:
        self.api.delete(f"/api/v1/nodes/{node}")

    # looking

    def read(self, allocation: Allocation) -> Allocation:
        """As it is now."""
        found = self.store.get(allocation.scope, allocation.address)
        assert found is not None
        return found

    def retention(self, last: int) -> Json:
        found: Json = self.api.get(f"{OURS}/ipallocations/{self.address(last)}")["spec"]["retention"]
        return found

    def causes(self, last: int) -> list[str]:
        """What the ledger says of the address."""
        return [entry.cause for entry in self.store.ledger(address=ip_address(self.address(last)))]

    def phases(self) -> dict[int, str]:
        """Of the test's own network."""
        found = self.api.get(f"{OURS}/ipallocations")["items"]
        return {
            int(a["spec"]["address"].rpartition(".")[2]): a["status"]["phase"]
            for a in found
            if a["spec"]["network"] == self.network
        }

    def totals(self) -> Json | None:
        found = self.api.get(f"{OURS}/ipranges")["items"]
        networks = f"{self.namespace}/{self.network}"
        return next((r["status"] for r in found if networks in r["spec"]["networks"]), None)

    def count(self, state: str) -> int | None:
        """By the controller's own count, which is written after it has settled what it counted."""
        totals = self.totals()
        return None if totals is None else int(totals[state])

    def events(self, reason: str) -> list[str]:
        found = self.api.get(f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return [event["message"] for event in found if event["reason"] == reason]

    def _replica(self, name: str, ordinal: int) -> Replica:
        return Replica(Workload(self.namespace, "StatefulSet", name), ordinal)

    def _path(self, plural: str, name: str) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/{plural}/{name}"


def leader(api: Api) -> str:
    """Whose lease it is, by its configured name."""
    lease = api.find(LEASE)
    holder = lease["spec"].get("holderIdentity", "") if lease is not None else ""
    return str(holder).partition("_")[0]
