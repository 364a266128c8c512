"""deploy/rbac.yaml on a real API server: what a node's daemon, the controller and people may do, and what they may not.

Refused requests are sent as they are, by each of them: authorization comes before everything else, so that their
objects need not exist. What is allowed is the API server's own word on it, and what the other suites do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from ruamel.yaml import YAML
from testcluster.api import Api, ApiError
from testcluster.binaries import ROOT
from testcluster.control_plane import ControlPlane, node_user

pytestmark = pytest.mark.root

Json = Mapping[str, Any]
NODE = "node-h"
GROUPS = {
    "node": "homeport:nodes",
    "controller": "homeport:controllers",
    "viewer": "test:viewers",
    "operator": "test:operators",
}
OURS = ("ipallocations", "ipslots", "ipranges", "ipledgers")
WEBHOOKS = ("admissionregistration.k8s.io", "validatingwebhookconfigurations")
NETWORKS = ("k8s.cni.cncf.io", "network-attachment-definitions")

MAY: dict[str, dict[tuple[str, str], str]] = {
    "node": {
        ("", "pods"): "get list watch",
        ("", "pods/status"): "patch",
        ("", "nodes"): "get",
        ("", "events"): "create patch",
        ("apps", "statefulsets"): "get",
        NETWORKS: "get list watch",
        ("k8s.cni.cncf.io", "ipamclaims"): "get",
        ("homeport.dev", "ipallocations"): "get list watch create patch delete",
        ("homeport.dev", "ipslots"): "get create patch",
        ("homeport.dev", "ipranges"): "get list watch",
    },
    "controller": {
        ("", "pods"): "get list watch",
        ("", "nodes"): "get list watch",
        ("", "events"): "create patch",
        ("apps", "statefulsets"): "get list watch",
        ("apps", "deployments"): "get",
        WEBHOOKS: "create",
        NETWORKS: "get list watch",
        ("homeport.dev", "ipallocations"): "get list watch create patch delete",
        ("homeport.dev", "ipslots"): "get list watch create patch delete",
        ("homeport.dev", "ipranges"): "get list watch create patch delete",
        ("homeport.dev", "ipledgers"): "get list watch create patch delete",
    },
    "viewer": {
        ("", "pods"): "get list",
        ("", "nodes"): "get list",
        ("", "events"): "get list",
        ("apps", "statefulsets"): "get list",
        **{("apps", kind): "list" for kind in ("deployments", "daemonsets", "replicasets")},
        **{("batch", kind): "list" for kind in ("jobs", "cronjobs")},
        NETWORKS: "get list",
        ("k8s.cni.cncf.io", "ipamclaims"): "get list",
        **{("homeport.dev", ours): "get list watch" for ours in OURS},
        ("whereabouts.cni.cncf.io", "ippools"): "list",
    },
    "operator": {
        ("homeport.dev", "ipallocations"): "create patch delete",
        ("homeport.dev", "ipslots"): "create patch",
    },
}
CONTENT = {method: "application/json" for method in ("GET", "POST", "PUT", "DELETE")} | {
    "PATCH": "application/merge-patch+json"
}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
SENSITIVE = [
    ("", "secrets"),
    ("", "configmaps"),
    ("", "namespaces"),
    ("", "serviceaccounts"),
    ("", "serviceaccounts/token"),
    ("", "pods/exec"),
    ("", "pods/eviction"),
    ("", "nodes/status"),
    ("", "nodes/proxy"),
    ("apps", "deployments"),
    ("apps", "daemonsets"),
    ("coordination.k8s.io", "leases"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
]
RESOURCES = sorted({*SENSITIVE, *(resource for roles in MAY.values() for resource in roles)})


@pytest.fixture(scope="module")
def people(control_plane: ControlPlane) -> Iterator[None]:
    """Two people, with the roles that are for them."""
    admin = Api(control_plane.access())
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    names = []
    for role in ("viewer", "operator"):
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUPS[role]}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"homeport-{role}"}
        names.append(f"test-{role}-{secrets.token_hex(4)}")
        admin.create(bindings, {"metadata": {"name": names[-1]}, "roleRef": reference, "subjects": [subject]})
    yield
    for name in names:
        admin.delete(f"{bindings}/{name}")
    admin.close()


def may(admin: Api, role: str, verb: str, group: str, resource: str, *, namespace: str = "", name: str = "") -> bool:
    plural, _, subresource = resource.partition("/")
    asked = {
        "user": "anybody",
        "groups": [GROUPS[role], "system:authenticated"],
        "resourceAttributes": {
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        },
    }
    review = admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": asked})
    allowed: bool = review["status"]["allowed"]
    return allowed


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("role", list(MAY))
def test_each_role_is_exactly_what_is_written_here(admin: Api, role: str, wait_until: Callable[..., None]) -> None:
    (group, resource), verbs = next(iter(MAY[role].items()))
    wait_until(lambda: may(admin, role, verbs.split()[0], group, resource))  # the authorizer watches the bindings
    for group, resource in RESOURCES:
        found = [verb for verb in VERBS if may(admin, role, verb, group, resource)]
        assert sorted(found) == sorted(MAY[role].get((group, resource), "").split()), f"{resource}.{group}"


def test_the_controllers_lease_is_its_own_and_in_its_namespace(admin: Api) -> None:
    def lease(verb: str, name: str, namespace: str = "kube-system", role: str = "controller") -> bool:
        return may(admin, role, verb, "coordination.k8s.io", "leases", namespace=namespace, name=name)

    assert [verb for verb in VERBS if lease(verb, "homeport-controller")] == ["get", "create", "patch"]
    assert [verb for verb in VERBS if lease(verb, "kube-scheduler")] == ["create"]
    assert not any(lease(verb, "homeport-controller", "default") for verb in VERBS)
    assert not any(lease(verb, "homeport-controller", role="node") for verb in VERBS)


NAMED = [
    ("apiextensions.k8s.io", "customresourcedefinitions", "ipallocations.homeport.dev", ""),
    ("apiextensions.k8s.io", "customresourcedefinitions", "ippools.whereabouts.cni.cncf.io", ""),
    ("rbac.authorization.k8s.io", "clusterroles", "homeport-node", ""),
    ("coordination.k8s.io", "leases", "homeport-controller", "kube-system"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "homeport", ""),
]


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(("group", "resource", "name", "namespace"), NAMED, ids=[case[1] for case in NAMED])
def test_a_viewer_may_read_by_name_what_doctor_asks_for_and_no_other(
    admin: Api, group: str, resource: str, name: str, namespace: str, wait_until: Callable[..., None]
) -> None:
    def verbs(of: str) -> list[str]:
        return [v for v in VERBS if may(admin, "viewer", v, group, resource, namespace=namespace, name=of)]

    wait_until(lambda: verbs(name))
    assert verbs(name) == ["get"]
    assert verbs("another") == []


def test_the_webhooks_secret_and_registration_are_the_controllers_alone(admin: Api) -> None:
    def verbs(group: str, resource: str, name: str, namespace: str = "", role: str = "controller") -> list[str]:
        return [verb for verb in VERBS if may(admin, role, verb, group, resource, name=name, namespace=namespace)]

    assert verbs("", "secrets", "homeport-admission", "kube-system") == ["get", "create", "patch"]
    assert verbs("", "secrets", "homeport-node", "kube-system") == ["create"]
    assert verbs("", "secrets", "homeport-admission", "default") == []
    assert verbs("", "secrets", "homeport-admission", "kube-system", role="node") == []
    assert verbs(*WEBHOOKS, "homeport") == ["get", "create", "patch", "delete"]
    assert verbs(*WEBHOOKS, "another") == ["create"]
    assert verbs(*WEBHOOKS, "homeport", role="node") == []


def test_no_role_has_a_wildcard_or_a_right_to_rights() -> None:
    documents = [d for d in YAML(typ="safe", pure=True).load_all((ROOT / "deploy" / "rbac.yaml").read_text()) if d]
    rules = [rule for d in documents for rule in d.get("rules", ())]
    assert rules
    for rule in rules:
        assert set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"}
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert {*rule["verbs"]} <= {"get", "list", "watch", "create", "patch", "delete"}


POD = "/api/v1/namespaces/{namespace}/pods/web-0"
HOMEPORT = "/apis/homeport.dev/v1alpha1"
WEBHOOK_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
POD_SPEC = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
ANY = {"metadata": {"labels": {"a": "b"}}}

FORBIDDEN_TO_BOTH: list[tuple[str, str, Json | None]] = [
    ("DELETE", POD, None),
    ("DELETE", "/api/v1/namespaces/{namespace}/pods", None),
    ("PATCH", POD, ANY),
    ("POST", "/api/v1/namespaces/{namespace}/pods", POD_SPEC),
    ("POST", POD + "/eviction", {"metadata": {"name": "web-0"}}),
    ("POST", POD + "/binding", {"target": {"kind": "Node", "name": NODE}}),
    ("GET", POD + "/log", None),
    ("PATCH", "/api/v1/nodes/{node}", ANY),
    ("PATCH", "/api/v1/nodes/{node}/status", ANY),
    ("DELETE", "/api/v1/nodes/{node}", None),
    ("GET", "/api/v1/namespaces/kube-system/secrets", None),
    ("GET", "/api/v1/namespaces/kube-system/secrets/homeport-node", None),
    ("GET", "/api/v1/namespaces/kube-system/configmaps", None),
    ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/homeport-controller/token", {"spec": {}}),
    ("PATCH", "/apis/apps/v1/namespaces/{namespace}/statefulsets/web", ANY),
    ("DELETE", "/apis/apps/v1/namespaces/{namespace}/statefulsets/web", None),
    ("PATCH", "/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions/net", ANY),
    ("DELETE", HOMEPORT + "/ipallocations", None),  # all at once
    ("PUT", HOMEPORT + "/ipallocations/10.0.0.1", ANY),
    ("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ipallocations.homeport.dev", ANY),
    ("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/homeport-node", ANY),
    ("GET", "/api/v1/namespaces/{namespace}/events", None),
]
FORBIDDEN_TO_NODES = [
    *FORBIDDEN_TO_BOTH,
    ("GET", "/api/v1/nodes", None),
    ("GET", "/apis/apps/v1/statefulsets", None),
    ("GET", HOMEPORT + "/ipslots", None),
    ("DELETE", HOMEPORT + "/ipslots/web-0-0123456789abcdef0123", None),
    ("POST", HOMEPORT + "/ipranges", {"metadata": {"name": "x"}}),
    ("PATCH", HOMEPORT + "/ipranges/10.0.0.1.10.0.0.9", ANY),
    ("PATCH", HOMEPORT + "/ipranges/10.0.0.1.10.0.0.9/status", ANY),
    ("DELETE", HOMEPORT + "/ipranges/10.0.0.1.10.0.0.9", None),
    ("POST", HOMEPORT + "/ipledgers", {"metadata": {"name": "x"}}),
    ("GET", HOMEPORT + "/ipledgers", None),
    ("PATCH", HOMEPORT + "/ipledgers/ledger-00000000000000000001", ANY),
    ("DELETE", HOMEPORT + "/ipledgers/ledger-00000000000000000001", None),
    ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/homeport-controller", None),
    ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/homeport-controller", ANY),
    ("POST", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", {"metadata": {"name": "x"}}),
]
FORBIDDEN_TO_CONTROLLERS = [
    *FORBIDDEN_TO_BOTH,
    ("PATCH", POD + "/status", ANY),
    ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", None),
    ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler", ANY),
    ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/homeport-controller", None),
    ("GET", WEBHOOK_CONFIGURATIONS, None),
    ("PATCH", WEBHOOK_CONFIGURATIONS + "/another", ANY),
    ("DELETE", WEBHOOK_CONFIGURATIONS + "/another", None),
    ("DELETE", "/api/v1/namespaces/kube-system/secrets/homeport-admission", None),
]


@pytest.mark.parametrize(
    ("user", "groups", "forbidden"),
    [
        (node_user(NODE), None, FORBIDDEN_TO_NODES),
        ("a-controller", [GROUPS["controller"]], FORBIDDEN_TO_CONTROLLERS),
    ],
    ids=["node", "controller"],
)
def test_requests_that_are_refused(
    control_plane: ControlPlane,
    admin: Api,
    namespace: str,
    user: str,
    groups: list[str] | None,
    forbidden: list[tuple[str, str, Json | None]],
) -> None:
    """Of a pod and a node that are there, so that a request let through would do harm, and be seen."""
    node = f"roles-{secrets.token_hex(4)}"
    admin.create("/api/v1/nodes", {"metadata": {"name": node}, "spec": {"unschedulable": True}})
    pod = {**POD_SPEC, "metadata": {"name": "web-0"}}
    uid = admin.create(f"/api/v1/namespaces/{namespace}/pods", pod)["metadata"]["uid"]
    ours = Api(control_plane.access(user, groups))
    try:
        for method, path, body in forbidden:
            where = path.format(namespace=namespace, node=node)
            with pytest.raises(ApiError) as refusal:
                ours.request(method, where, dict(body) if body else None, content_type=CONTENT[method])
            assert refusal.value.status == 403, f"{method} {where}: {refusal.value}"
        assert admin.get(f"/api/v1/namespaces/{namespace}/pods/web-0")["metadata"]["uid"] == uid
        assert "a" not in admin.get(f"/api/v1/nodes/{node}")["metadata"].get("labels", {})
    finally:
        ours.close()
        admin.delete(f"/api/v1/nodes/{node}")
