"""Networks, StatefulSets and pods of one namespace, made and observed through the API server. I/O: HTTPS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Set
from typing import Any

from testcluster.api import MERGE, Api

NETWORKS = "k8s.v1.cni.cncf.io/networks"
STATUS = "k8s.v1.cni.cncf.io/network-status"
SECONDS = 40.0
OURS = "/apis/homeport.dev/v1alpha1"
Json = dict[str, Any]


def allocations(api: Api) -> dict[str, Json]:
    """Address to `status`, as the objects of all namespaces say."""
    return {a["spec"]["address"]: a["status"] for a in api.get(f"{OURS}/ipallocations")["items"]}


def remove_allocations(api: Api) -> None:
    """They outlive namespaces, and there is no controller here to tell of the end of their workloads."""
    for kind in ("ipallocations", "ipslots"):
        api.request("DELETE", f"{OURS}/{kind}")


class Cluster:
    """One namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    # --- making ----------------------------------------------------------------------------------------------------

    def network(self, name: str, *plugins: Mapping[str, Any], **keys: Any) -> None:
        """A NetworkAttachmentDefinition, as people write them: without a name of its own."""
        config = {"cniVersion": "0.4.0", **keys, "plugins": list(plugins)}
        self.api.apply(
            {
                "apiVersion": "k8s.cni.cncf.io/v1",
                "kind": "NetworkAttachmentDefinition",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"config": json.dumps(config)},
            }
        )

    def statefulset(self, name: str, replicas: int, networks: str = "", **annotations: str) -> None:
        self._workload("statefulsets", name, replicas, {NETWORKS: networks, **annotations}, {"serviceName": name})

    def deployment(self, name: str, replicas: int, networks: str = "") -> None:
        self._workload("deployments", name, replicas, {NETWORKS: networks}, {})

    def _workload(self, kind: str, name: str, replicas: int, annotations: Mapping[str, str], more: Json) -> None:
        labels = {"app": name}
        template = {
            "metadata": {"labels": labels, "annotations": {k: v for k, v in annotations.items() if v}},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **more}
        if kind == "statefulsets":
            spec["podManagementPolicy"] = "Parallel"
        self.api.create(f"/apis/apps/v1/namespaces/{self.namespace}/{kind}", {"metadata": {"name": name}, "spec": spec})

    def create_pod(self, pod: Json) -> Json:
        """As it was made."""
        return self.api.create(self._pods, pod)

    def forget_pod(self, name: str) -> None:
        """Removes its object at once: no kubelet is asked."""
        self.api.delete(f"{self._pods}/{name}", grace_seconds=0)

    def bind(self, pod: str, node: str) -> None:
        """What the scheduler does."""
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        self.api.create(f"{self._pods}/{pod}/binding", {"metadata": {"name": pod}, "target": target})

    def scale(self, name: str, replicas: int) -> None:
        self.api.patch(f"{self._set(name)}/scale", {"spec": {"replicas": replicas}}, MERGE)

    def delete_statefulset(self, name: str) -> None:
        self.api.delete(self._set(name))

    def delete_deployment(self, name: str) -> None:
        self.api.delete(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}")

    def delete_pods(self, *names: str) -> None:
        for name in names:
            self.api.delete(f"{self._pods}/{name}")

    def cordon(self, node: str, unschedulable: bool = True) -> None:
        """Whether the scheduler leaves it out."""
        self.api.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": unschedulable}}, MERGE)

    # --- observing -------------------------------------------------------------------------------------------------

    def pods(self) -> dict[str, Json]:
        """By name."""
        return {pod["metadata"]["name"]: pod for pod in self.api.get(self._pods)["items"]}

    def pod(self, name: str) -> Json:
        return self.api.get(f"{self._pods}/{name}")

    def running(self) -> dict[str, Json]:
        """Pods that run and are not being deleted, by name."""
        return {
            name: pod
            for name, pod in self.pods().items()
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        }

    def is_going(self, name: str) -> bool:
        """Whether the pod's deletion has begun."""
        return "deletionTimestamp" in self.pod(name)["metadata"]

    def uids(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.pods().values()}

    def status(self, name: str) -> str:
        """The pod's network-status annotation, "" when it has none."""
        annotations: dict[str, str] = self.pod(name)["metadata"].get("annotations") or {}
        return annotations.get(STATUS, "")

    def allocations(self) -> dict[str, Json]:
        """Of the whole cluster: address to `status`."""
        return allocations(self.api)

    def events(self) -> list[Json]:
        found: list[Json] = self.api.get(f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return found

    # --- waiting ---------------------------------------------------------------------------------------------------

    def await_running(self, count: int, *, but: Set[str] = frozenset()) -> dict[str, Json]:
        """Until so many pods run whose UIDs are not in `but`, and no others are there."""

        def done() -> bool:
            running = self.running()
            return len(running) == count == len(self.pods()) and not self.uids() & but

        self.wait(done, f"{count} pods run")
        return self.running()

    def await_status(self, name: str, addresses: Mapping[str, list[str]]) -> None:
        """Until the pod's annotation and its status tell of these addresses, by interface and without prefix."""

        def told() -> bool:
            text = self.status(name)
            found = {status["interface"]: status["ips"] for status in json.loads(text)} if text else {}
            return found == addresses and [self.pod(name)["status"].get("podIP")] == addresses["eth0"]

        self.wait(told, f"the status of {name} tells of {addresses}")

    def await_gone(self) -> None:
        """Until there are no pods."""
        self.wait(lambda: not self.pods(), "no pods are left")

    def wait(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= deadline:
                states = {
                    name: (pod["status"]["phase"], pod["spec"].get("nodeName")) for name, pod in self.pods().items()
                }
                raise AssertionError(f"still not so after {seconds:g} s: {what}; pods: {states}")
            time.sleep(0.05)

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    def _set(self, name: str) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{name}"
