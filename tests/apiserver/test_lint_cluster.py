"""`homeport lint --cluster` on a real API server, by whoever has homeport-viewer, and by people who may less."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane

pytestmark = pytest.mark.root

Json = Mapping[str, Any]
NETWORKS = "k8s.v1.cni.cncf.io/networks"
BINDINGS = "apis/rbac.authorization.k8s.io/v1"
CONFIG = {
    "cniVersion": "0.4.0",
    "type": "macvlan",
    "mastr": "eth1",
    "ipam": {"type": "whereabouts", "range": "10.97.4.0/29"},
}
RIGHT = {**{key: value for key, value in CONFIG.items() if key != "mastr"}, "master": "eth1"}


def lint(kubeconfig: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "homeport", "lint", "--cluster", "--kubeconfig", str(kubeconfig), *args]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, text=True)


def network(admin: Api, namespace: str, name: str, config: Json) -> None:
    body = {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"config": json.dumps(config)},
    }
    admin.apply(body)


def template(networks: str) -> Json:
    metadata = {"labels": {"app": "web"}, "annotations": {NETWORKS: networks}}
    return {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}}


def deployment(admin: Api, namespace: str, networks: str, replicas: int = 1) -> None:
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(networks),
    }
    metadata = {"name": "web", "namespace": namespace}
    admin.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})


@pytest.fixture
def bind(admin: Api, namespace: str, wait_until: Callable[..., None]) -> Iterator[Callable[..., str]]:
    """Gives a group of its own a role, in all namespaces or in the test's, and tells its name."""
    made = []

    def give(role: str, *, everywhere: bool = True, until: tuple[str, str] = ("batch", "cronjobs")) -> str:
        group = f"lint:{secrets.token_hex(4)}"
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        subjects = [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group}]
        kind = "clusterrolebindings" if everywhere else f"namespaces/{namespace}/rolebindings"
        name = group.replace(":", "-")
        admin.create(f"/{BINDINGS}/{kind}", {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects})
        made.append(f"/{BINDINGS}/{kind}/{name}")
        asked = {"verb": "list", "group": until[0], "resource": until[1], "namespace": namespace}
        review = {"spec": {"user": "x", "groups": [group], "resourceAttributes": asked}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        wait_until(lambda: admin.create(path, review)["status"]["allowed"])
        return group

    yield give
    for path in made:
        admin.delete(path)


def test_a_viewer_sees_every_kind_with_places_that_can_be_read(
    admin: Api, control_plane: ControlPlane, namespace: str, bind: Callable[..., str]
) -> None:
    network(admin, namespace, "lan", CONFIG)
    network(admin, namespace, "small", RIGHT)
    deployment(admin, namespace, "small,lost", replicas=9)
    kubeconfig = control_plane.kubeconfig("a-viewer", [bind("homeport-viewer")])

    run = lint(kubeconfig, "-n", namespace)

    assert run.stderr == ""
    assert run.returncode == 1
    nad, workload = f"network-attachment-definitions/{namespace}/lan", f"deployments/{namespace}/web"
    told = {line.split(": ")[1] + " " + line.split(":")[0] for line in run.stdout.split("\n") if "[" in line[:200]}
    assert f"error[misspelt-key] {nad}" in told
    assert f"warning[unknown-network] {workload}" in told
    assert f"error[pool-too-small] network-attachment-definitions/{namespace}/small" in told
    assert '\\"mastr\\"' in run.stdout
    assert f"replicasets/{namespace}" not in run.stdout  # the Deployment's own: its mistake is told once
    assert f"pods/{namespace}" not in run.stdout


def test_the_whole_cluster_is_looked_at_and_json_says_which_object(
    admin: Api, control_plane: ControlPlane, namespace: str, bind: Callable[..., str]
) -> None:
    network(admin, namespace, "lan", CONFIG)
    kubeconfig = control_plane.kubeconfig("a-viewer", [bind("homeport-viewer")])

    run = lint(kubeconfig, "-o", "json")

    files = {f["file"]: f["rule"] for f in json.loads(run.stdout)}
    assert files[f"network-attachment-definitions/{namespace}/lan"] == "misspelt-key"


def test_diff_shows_what_to_change_where_it_is_applied_from(
    admin: Api, control_plane: ControlPlane, namespace: str, bind: Callable[..., str]
) -> None:
    network(admin, namespace, "lan", CONFIG)
    network(admin, "default", namespace, CONFIG)  # beside it, and not asked about
    kubeconfig = control_plane.kubeconfig("a-viewer", [bind("homeport-viewer")])

    shown = lint(kubeconfig, "-n", namespace, "--diff").stdout
    refused = lint(kubeconfig, "-n", namespace, "--fix")

    assert f"--- a/network-attachment-definitions/{namespace}/lan" in shown
    assert "default" not in shown
    assert '+    "config": "{\\"cniVersion\\": \\"0.4.0\\", \\"type\\": \\"macvlan\\", \\"master\\"' in shown
    assert refused.returncode == 2
    assert "where it is applied from" in refused.stderr
    admin.delete(f"/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/{namespace}")


def test_what_one_may_not_list_is_said_and_the_rest_looked_at(
    admin: Api, control_plane: ControlPlane, namespace: str, bind: Callable[..., str]
) -> None:
    network(admin, namespace, "lan", CONFIG)
    deployment(admin, namespace, "lost")
    only_networks = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": f"lint-{secrets.token_hex(4)}"},
        "rules": [
            {"apiGroups": ["k8s.cni.cncf.io"], "resources": ["network-attachment-definitions"], "verbs": ["list"]},
            {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
        ],
    }
    admin.apply(only_networks)
    role = only_networks["metadata"]["name"]  # type: ignore[index]  # a literal of mixed values
    group = bind(role, everywhere=False, until=("apps", "deployments"))
    kubeconfig = control_plane.kubeconfig("somebody", [group])

    run = lint(kubeconfig, "-n", namespace)

    assert run.returncode == 2
    assert "error[misspelt-key]" in run.stdout
    assert "unknown-network" not in run.stdout  # the networks of other namespaces were not to be seen
    assert [kind for kind in ("statefulsets", "daemonsets", "jobs", "cronjobs", "pods") if kind not in run.stderr] == []
    assert "deployments" not in run.stderr
    admin.delete(f"/{BINDINGS}/clusterroles/{role}")


def test_a_cluster_that_is_away_is_an_error_and_never_no_problems(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n"
    )

    run = lint(kubeconfig)

    assert run.returncode == 2
    assert "127.0.0.1:1" in run.stderr
    assert run.stdout == ""
    assert len(run.stderr.strip().split("\n")) <= 2  # asked once, not for every kind
