"""Workloads of other kinds than Kubernetes' own, on a real API server, with the roles of docs/kubernetes.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from ruamel.yaml import YAML
from testcluster.api import Api
from testcluster.binaries import ROOT
from testcluster.control_plane import ControlPlane, node_user

from homeport.host.files import LocalFiles
from homeport.ipam.identities import Workload
from homeport.kube import configs
from homeport.kube.client import KubernetesClient
from homeport.model.errors import IOFailure, TryAgainLater

pytestmark = pytest.mark.root
NODE = "node-h"
KINDS = {
    "apps.kruise.io": ("StatefulSet", "statefulsets", "v1beta1"),
    "core.strimzi.io": ("StrimziPodSet", "strimzipodsets", "v1beta2"),
    "postgresql.cnpg.io": ("Cluster", "clusters", "v1"),
}
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def definition(group: str) -> dict[str, Any]:
    """As the operator's own, but for its schema. Another version comes first, which does not serve the kind."""
    kind, plural, version = KINDS[group]
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture(scope="module")
def kinds(control_plane: ControlPlane) -> Iterator[None]:
    """The three definitions, and the roles that docs/kubernetes.md gives for them."""
    admin = Api(control_plane.access())
    for group in KINDS:
        admin.apply(definition(group))
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?homeport-workloads.*?)```", page, re.DOTALL)
    roles = [document for document in YAML(typ="safe", pure=True).load_all(text) if document]
    for role in roles:
        admin.apply(role)
    for group, (_, plural, _) in KINDS.items():
        admin.wait_established(f"{plural}.{group}")
    yield
    for group, (_, plural, _) in KINDS.items():
        admin.delete(f"{DEFINITIONS}/{plural}.{group}")
    for role in roles:
        plural = role["kind"].lower() + "s"
        admin.delete(f"/apis/rbac.authorization.k8s.io/v1/{plural}/{role['metadata']['name']}")
    admin.close()


@pytest.fixture
def node(control_plane: ControlPlane) -> Iterator[KubernetesClient]:
    config = configs.load(str(control_plane.kubeconfig(node_user(NODE))), {}, LocalFiles())
    assert config is not None
    client = KubernetesClient(config, node=NODE)
    yield client
    client.close()


def create(admin: Api, namespace: str, group: str, name: str, spec: dict[str, Any]) -> str:
    kind, plural, version = KINDS[group]
    made = admin.create(
        f"/apis/{group}/{version}/namespaces/{namespace}/{plural}",
        {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec},
    )
    uid: str = made["metadata"]["uid"]
    return uid


def is_absent(node: KubernetesClient, workload: Workload) -> bool:
    try:
        return node.workload(workload) is None
    except IOFailure:
        return False


@pytest.mark.usefixtures("kinds")
def test_each_operators_workloads(
    admin: Api, namespace: str, node: KubernetesClient, wait_until: Callable[..., None]
) -> None:
    kafka = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"kafka-{n}"}, "spec": {}} for n in (3, 4)]
    for group, name, spec, start, replicas in (
        ("apps.kruise.io", "web", {"replicas": 3, "ordinals": {"start": 5}}, 5, 3),
        ("core.strimzi.io", "kafka", {"pods": kafka}, 3, 2),
        ("postgresql.cnpg.io", "db", {"instances": 2}, 1, 2),
    ):
        workload = Workload(namespace, f"{KINDS[group][0]}.{group}", name)
        wait_until(partial(is_absent, node, workload))  # once the authorizer has read the roles
        uid = create(admin, namespace, group, name, spec)
        found = node.workload(workload)
        assert found is not None
        assert (found.workload, found.uid) == (workload, uid)
        assert (found.ordinals_start, found.replicas) == (start, replicas)


def test_a_kind_that_is_not_installed_or_not_allowed_is_no_absence(
    control_plane: ControlPlane, admin: Api, namespace: str, node: KubernetesClient
) -> None:
    with pytest.raises(TryAgainLater, match=r'look up kind "Gizmo" of "apps"'):
        node.workload(Workload(namespace, "Gizmo.apps", "web"))
    with pytest.raises(TryAgainLater, match=r'look up kind "Gizmo" of "none\.example"'):
        node.workload(Workload(namespace, "Gizmo.none.example", "web"))
    with pytest.raises(IOFailure, match='forbids "get" of "deployments"'):
        node.workload(Workload(namespace, "Deployment.apps", "web"))
