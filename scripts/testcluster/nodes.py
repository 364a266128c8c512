"""The Node object and the lease by which the control plane knows that a node lives. I/O: the API server."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from testcluster.api import MERGE, Api, ApiError, Json

LEASE_SECONDS = 40
CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "256Gi"}
_NOT_READY_TAINT = "node.kubernetes.io/not-ready"


class NodeObject:
    """One node's, written by its own kubelet."""

    def __init__(self, name: str, address: str, api: Api) -> None:
        self.name = name
        self._address = address
        self._api = api
        self._path = f"/api/v1/nodes/{name}"
        self._leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

    def register(self) -> None:
        """Makes it, or takes over the one that is there."""
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": "testcluster",  # without it some schedulers do not spread at all
        }
        try:
            self._api.create("/api/v1/nodes", {"metadata": {"name": self.name, "labels": labels}})
        except ApiError as error:
            if error.status != 409:
                raise

    def report(self, *, ready: bool, reason: str) -> None:
        """The node's status; `reason` says why it is not ready."""
        now = _timestamp()
        condition = {
            "type": "Ready",
            "status": "True" if ready else "False",
            "reason": "KubeletReady" if ready else "KubeletNotReady",
            "message": reason,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        addresses = [{"type": "InternalIP", "address": self._address}, {"type": "Hostname", "address": self.name}]
        status = {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [condition], "addresses": addresses}
        self._api.patch(f"{self._path}/status", {"status": status})

    def renew_lease(self) -> None:
        """What keeps the node controller from giving the node up."""
        spec = {
            "holderIdentity": self.name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            self._api.patch(f"{self._leases}/{self.name}", {"spec": spec}, MERGE)
        except ApiError as error:
            if error.status != 404:
                raise
            self._api.create(self._leases, {"metadata": {"name": self.name}, "spec": spec})

    def is_schedulable(self) -> bool:
        """Whether the control plane has seen that the node is ready."""
        taints = self._api.get(self._path)["spec"].get("taints", ())
        return not any(taint["key"] == _NOT_READY_TAINT for taint in taints)


def running_status(pod: Json, addresses: tuple[str, ...], host_address: str) -> Json:
    """A pod's status when all its containers run."""
    now = _timestamp()
    ready = [
        {"type": kind, "status": "True", "lastTransitionTime": now}
        for kind in ("Initialized", "Ready", "ContainersReady")
    ]
    status: Json = {
        "phase": "Running",
        "startTime": now,
        "hostIP": host_address,
        "conditions": ready,
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container.get("image", ""),
                "imageID": "",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ],
    }
    if addresses:
        status["podIP"] = addresses[0]
        # A strategic merge keeps what was listed before, unless it is told to replace the list.
        status["podIPs"] = [{"$patch": "replace"}, *({"ip": address} for address in addresses)]
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": status}


def _timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
