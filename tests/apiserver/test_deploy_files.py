"""The files of deploy/ that no other suite installs: a real API server takes them, and the program its arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from testcluster.api import Api
from testcluster.binaries import ROOT

from homeport.admission.settings import Service
from homeport.controller import settings

pytestmark = pytest.mark.root
WaitUntil = Callable[..., None]
DEPLOY = ROOT / "deploy"
PATHS = {
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps/{name}",
    "Secret": "/api/v1/namespaces/{namespace}/secrets/{name}",
    "Service": "/api/v1/namespaces/{namespace}/services/{name}",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{name}",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/{name}",
}


def documents(name: str) -> list[dict[str, Any]]:
    return [d for d in YAML(typ="safe", pure=True).load_all((DEPLOY / name).read_text()) if d]


@pytest.mark.parametrize("name", ["controller.yaml", "rbac-coexist.yaml", "node-token.yaml"])
def test_a_real_api_server_takes_each_object(admin: Api, name: str) -> None:
    for document in documents(name):
        path = PATHS[document["kind"]].format(**document["metadata"])
        dry = {"fieldManager": "test", "dryRun": "All"}
        made = admin.request("PATCH", path, document, parameters=dry, content_type="application/apply-patch+yaml")
        assert made["metadata"]["name"] == document["metadata"]["name"]


def test_the_controllers_pods_can_start(admin: Api, tmp_path: Path) -> None:
    """Their account is there, and the program takes what it is given."""
    config, service, deployment = documents("controller.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert admin.get(f"/api/v1/namespaces/kube-system/serviceaccounts/{pod['serviceAccountName']}")
    assert pod["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]
    program, flag, path = container["command"]
    assert (program, flag) == ("homeport-controller", "--config")
    (name, text), mounted = config["data"].popitem(), container["volumeMounts"][0]["mountPath"]
    assert path == f"{mounted}/{name}"
    (tmp_path / name).write_text(text)
    found = settings.load(tmp_path / name, {"POD_NAME": "c-0", "POD_NAMESPACE": "kube-system"})
    assert (found.lease.namespace, found.lease.name) == ("kube-system", "homeport-controller")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert found.admission is not None
    assert ports == {"metrics": found.metrics_port, "admission": found.admission.port}
    (port,) = service["spec"]["ports"]
    registered = Service(namespace="kube-system", name=service["metadata"]["name"], port=port["port"])
    assert found.admission.where == registered
    assert service["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert port["targetPort"] == "admission"


def test_only_coexistence_lets_us_write_what_is_whereabouts(
    admin: Api, wait_until: WaitUntil, coexistence: Callable[[], None]
) -> None:
    group, namespace = "whereabouts.cni.cncf.io", "kube-system"

    def verbs(resource: str) -> list[str]:
        def allowed(verb: str) -> bool:
            attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
            asked = {"user": "a", "groups": ["homeport:nodes"], "resourceAttributes": attributes}
            review = admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": asked})
            return bool(review["status"]["allowed"])

        every = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
        return [verb for verb in every if allowed(verb)]

    resources = ("ippools", "overlappingrangeipreservations", "nodeslicepools")
    wait_until(lambda: [verbs(resource) for resource in resources] == [[], [], []])
    coexistence()
    wanted = [["get", "list", "create", "patch"], ["get", "list", "create", "patch", "delete"], ["list"]]
    wait_until(lambda: [verbs(resource) for resource in resources] == wanted)  # as the authorizer watches roles
