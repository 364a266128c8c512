"""What a row of the matrix is made of: networks, workloads, nodes that lose contact. I/O: HTTPS, `ip`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from testcluster.homeport_node import HomeportNode
from testcluster.machines import ip
from tests.apiserver.node.workloads import NETWORKS
from tests.identity.cluster.observing import Json, Observed

_CANARY = "canary"


class Site(Observed):
    """One test's namespace, and everything it does there."""

    # --- making ----------------------------------------------------------------------------------------------------

    def networks(self, *, size: int = 20, sticky: object = None, names: Sequence[str] = ()) -> None:
        """Every network of the shape (or these), of `size` addresses a range."""
        for name in names or self.shape.networks:
            ipam: Json = {"type": "whereabouts", "ipRanges": self.shape.ranges(name, size)}
            if sticky is not None:
                ipam["sticky"] = sticky
            self.network(name, {"type": "macvlan", "master": "eth1", "ipam": ipam}, {"type": "sbr"})

    def workload(
        self,
        name: str = "web",
        replicas: int = 3,
        *,
        kind: str = "StatefulSet",
        networks: Sequence[str] | None = None,
        annotations: Mapping[str, str] | None = None,
        pod_annotations: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> None:
        """Makes it, or changes what is there to this."""
        labels = {"app": name}
        wanted = ",".join(self.shape.networks if networks is None else networks)
        template = {
            "metadata": {"labels": labels, "annotations": {NETWORKS: wanted, **(pod_annotations or {})}},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        }
        more: Json = {"serviceName": name, "podManagementPolicy": "Parallel"} if kind == "StatefulSet" else {}
        self.api.apply(
            {
                "apiVersion": "apps/v1",
                "kind": kind,
                "metadata": {"name": name, "namespace": self.namespace, "annotations": dict(annotations or {})},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": template,
                    **more,
                    **spec,
                },
            }
        )

    def delete_workload(self, name: str = "web", propagation: str = "Background") -> None:
        """As `kubectl delete --cascade` does."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        self.api.request("DELETE", self._set(name), options)

    def force_delete(self, *names: str) -> None:
        """Their objects are gone at once, whatever their nodes say."""
        for name in names:
            self.forget_pod(name)

    @contextmanager
    def cordoned(self, *names: str) -> Iterator[None]:
        """The scheduler leaves these nodes out."""
        for name in names:
            self.cordon(name)
        try:
            yield
        finally:
            for name in names:
                self.cordon(name, unschedulable=False)

    # --- nodes that lose contact -----------------------------------------------------------------------------------

    def cut_off(self, name: str, *, answering: bool) -> None:
        """The node and the API server no longer hear each other. Its pods run on; others hear them if `answering`."""
        node = self.nodes[name]
        node.kubelet.partition()
        ip("link set eth0 down", *([] if answering else ["link set eth1 down"]), netns=node.machine.netns)

    def mend(self, name: str) -> None:
        """Ends `cut_off`; the node has removed what is to go before others hear its pods again."""
        node = self.nodes[name]
        ip("link set eth0 up", netns=node.machine.netns)
        node.kubelet.heal()
        self.wait(lambda: self._is_tidy(node), f"{name} has no sandbox whose pod is gone")
        ip("link set eth1 up", netns=node.machine.netns)

    def _is_tidy(self, node: HomeportNode) -> bool:
        present = {pod["metadata"]["uid"] for pod in self.api.get("/api/v1/pods")["items"]}
        return all(sandbox.pod_uid in present for sandbox in node.runtime.sandboxes())

    # --- the controller --------------------------------------------------------------------------------------------

    def await_pass(self) -> None:
        """Until the controller has seen and done something that comes after all there is now."""
        ipam = {"type": "whereabouts", "range": "192.168.96.0/24", "network_name": self.namespace}
        self.network(_CANARY, {"type": "macvlan", "master": "eth1", "ipam": ipam})
        address = "192.168.96.9"
        self.workload(_CANARY, 0, networks=[_CANARY], annotations=as_map({_CANARY: [address]}))
        self.wait(lambda: address in self.phases(), "the controller reserves")
        self.delete_workload(_CANARY)
        self.wait(lambda: address not in self.phases(), "the controller withdraws")


def as_map(numbers: Mapping[str, Any]) -> dict[str, str]:
    """The annotation by which a workload fixes its replicas' addresses."""
    return {"homeport.dev/addresses": json.dumps(numbers)}
