"""The contract of tests/contract/test_kubernetes.py, kept by the client on a real API server with our own role."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane, node_user
from tests.contract.test_kubernetes import TestKubernetes as TestKubernetes
from tests.contract.test_kubernetes import World

from homeport.host.files import LocalFiles
from homeport.ipam.objects import OwnerReference
from homeport.kube import configs
from homeport.kube.client import KubernetesClient

pytestmark = pytest.mark.root
NODE = "node-h"  # nothing runs on it


class RealApiServer:
    def __init__(self, plane: ControlPlane, admin: Api, namespace: str) -> None:
        self.namespace = namespace
        self._admin = admin
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._sets = f"/apis/apps/v1/namespaces/{namespace}/statefulsets"
        self._definitions = f"/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions"
        self._nodes: list[str] = []
        config = configs.load(str(plane.kubeconfig(node_user(NODE))), {}, LocalFiles())
        nobody = configs.load(str(plane.kubeconfig("somebody-without-a-role")), {}, LocalFiles())
        assert config is not None
        assert nobody is not None
        with socket.create_server(("127.0.0.1", 0)) as unused:
            closed = msgspec.structs.replace(config, host="127.0.0.1", port=unused.getsockname()[1])
        self.kubernetes = KubernetesClient(config, node=NODE)
        self.away = KubernetesClient(closed, node=NODE)
        self.refused = KubernetesClient(nobody, node=NODE)

    def create_pod(self, name: str, *, annotations: Mapping[str, str], owner: OwnerReference | None = None) -> str:
        metadata: dict[str, Any] = {"name": name, "annotations": dict(annotations)}
        if owner is not None:
            reference = {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
            metadata["ownerReferences"] = [{**reference, "controller": True}]
        spec = {"nodeName": NODE, "containers": [{"name": "main", "image": "none"}]}
        uid: str = self._admin.create(self._pods, {"metadata": metadata, "spec": spec})["metadata"]["uid"]
        return uid

    def delete_pod(self, name: str) -> None:
        self._admin.delete(f"{self._pods}/{name}", grace_seconds=0)

    def annotations(self, name: str) -> Mapping[str, str]:
        found: dict[str, str] = self._admin.get(f"{self._pods}/{name}")["metadata"].get("annotations", {})
        return found

    def events(self, name: str) -> list[tuple[str, str, int]]:
        found = self._admin.get(
            f"/api/v1/namespaces/{self.namespace}/events", fieldSelector=f"involvedObject.name={name}"
        )
        ours = [e for e in found["items"] if e["source"] == {"component": "homeport", "host": NODE}]
        return [(e["reason"], e["message"], e["count"]) for e in ours]

    def create_definition(self, name: str, config: str, annotations: Mapping[str, str]) -> None:
        kind = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
        metadata = {"name": name, "annotations": dict(annotations)}
        spec = {"config": config} if config else {}  # old API servers take "" for null, and refuse that
        self._admin.create(self._definitions, {**kind, "metadata": metadata, "spec": spec})

    def change_definition(self, name: str, config: str) -> None:
        self._admin.patch(f"{self._definitions}/{name}", {"spec": {"config": config}})

    def create_stateful_set(self, name: str, *, replicas: int, annotations: Mapping[str, str]) -> str:
        labels = {"app": name}
        pod = {"containers": [{"name": "main", "image": "none"}]}
        made = self._admin.create(
            self._sets,
            {
                "metadata": {"name": name, "annotations": dict(annotations)},
                "spec": {
                    "serviceName": name,
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            },
        )
        uid: str = made["metadata"]["uid"]
        return uid

    def create_node(self, *, out_of_service: bool) -> str:
        name = f"kube-{secrets.token_hex(4)}"
        taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
        spec = {"taints": [taint] if out_of_service else [], "unschedulable": True}
        self._admin.create("/api/v1/nodes", {"metadata": {"name": name}, "spec": spec})
        self._nodes.append(name)
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": ""}
        self._admin.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready]}})
        return name

    def close(self) -> None:
        for kubernetes in (self.kubernetes, self.away, self.refused):
            kubernetes.close()
        for name in self._nodes:
            self._admin.delete(f"/api/v1/nodes/{name}")


@pytest.fixture(params=["watching", "asking"])
def world(request: pytest.FixtureRequest, control_plane: ControlPlane, admin: Api, namespace: str) -> Iterator[World]:
    """`watching` answers from watches where it can; `asking` never began to watch, and has to ask each time."""
    real = RealApiServer(control_plane, admin, namespace)
    if request.param == "watching":
        real.kubernetes.start()
    else:
        real.kubernetes.start(watching=False)
    yield real
    real.close()
