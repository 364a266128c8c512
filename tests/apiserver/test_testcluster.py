"""The control plane that other suites build on: ready, with real roles, and gone with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testcluster import binaries
from testcluster.api import Api, ApiError, NotReached
from testcluster.audits import Request
from testcluster.control_plane import ControlPlane, node_user

pytestmark = pytest.mark.root
SCRIPTS = Path(__file__).parents[2] / "scripts"
NETWORKS = "/apis/k8s.cni.cncf.io/v1"


def statefulset(name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    }


def test_controllers_make_the_pods_of_a_statefulset(
    admin: Api, namespace: str, wait_until: Callable[..., None]
) -> None:
    admin.create(f"/apis/apps/v1/namespaces/{namespace}/statefulsets", statefulset("web", 1))
    wait_until(lambda: admin.find(f"/api/v1/namespaces/{namespace}/pods/web-0"), 20)
    pod = admin.get(f"/api/v1/namespaces/{namespace}/pods/web-0")
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet"
    assert pod["status"]["phase"] == "Pending"


def test_the_custom_resource_takes_networks_only(admin: Api, namespace: str) -> None:
    path = f"{NETWORKS}/namespaces/{namespace}/network-attachment-definitions"
    manifest = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    admin.create(path, {**manifest, "metadata": {"name": "good"}, "spec": {"config": "{}"}})
    admin.create(path, {**manifest, "metadata": {"name": "empty"}})
    with pytest.raises(ApiError) as refused:
        admin.create(path, {**manifest, "metadata": {"name": "bad"}, "spec": {"config": {"type": "ipvlan"}}})
    assert refused.value.status == 422
    names = admin.get("/apis/k8s.cni.cncf.io/v1")["resources"][0]
    assert names["shortNames"] == ["net-attach-def", "nad"]
    assert names["namespaced"] is True


# --- roles ---------------------------------------------------------------------------------------------------------

ALLOWED = [
    ("", "pods", "", ("get", "list", "watch")),
    ("k8s.cni.cncf.io", "network-attachment-definitions", "", ("get", "list", "watch")),
    ("apps", "statefulsets", "", ("get",)),
    ("", "nodes", "", ("get",)),
    ("", "pods", "status", ("patch",)),
    ("", "events", "", ("create", "patch")),
    ("events.k8s.io", "events", "", ("create", "patch")),
]
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
REFUSED = [("", "secrets", ""), ("", "configmaps", ""), ("coordination.k8s.io", "leases", ""), ("", "nodes", "status")]


@pytest.mark.parametrize("who", ["group", "service account"])
def test_the_daemon_may_do_what_it_needs_and_nothing_else(control_plane: ControlPlane, who: str) -> None:
    account = "system:serviceaccount:kube-system:homeport-node"
    access = control_plane.access(account) if who == "service account" else control_plane.access(node_user("node-a"))
    daemon = Api(access)
    rows = [*ALLOWED, *((group, resource, sub, ()) for group, resource, sub in REFUSED)]
    for group, resource, subresource, verbs in rows:
        allowed = tuple(v for v in VERBS if _may(daemon, group, resource, subresource, v))
        assert allowed == tuple(verbs), f"{group}/{resource}/{subresource}"
    daemon.close()


def _may(api: Api, group: str, resource: str, subresource: str, verb: str) -> bool:
    attributes = {"group": group, "resource": resource, "subresource": subresource, "verb": verb, "namespace": "x"}
    review = api.create(
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"resourceAttributes": attributes}}
    )
    allowed: bool = review["status"]["allowed"]
    return allowed


def test_users_come_with_a_token_or_with_a_certificate(control_plane: ControlPlane) -> None:
    assert control_plane.access("homeport-node-node-b").token
    other = control_plane.access("homeport-node-far-away", ["homeport:nodes"])
    assert other.certificate
    api = Api(other)
    assert "items" in api.get("/api/v1/pods")
    with pytest.raises(ApiError, match='User "homeport-node-far-away" cannot list resource "secrets"'):
        api.get("/api/v1/secrets")
    api.close()


def test_kubectl_takes_the_kubeconfig(control_plane: ControlPlane) -> None:
    path = control_plane.kubeconfig()
    assert path.stat().st_mode & 0o077 == 0
    api = Api(control_plane.access("nobody"))
    with pytest.raises(ApiError, match="nobody"):
        api.get("/api/v1/pods")
    api.close()


# --- outages -------------------------------------------------------------------------------------------------------


def test_the_api_server_comes_back_where_it_was(private_control_plane: ControlPlane) -> None:
    api = Api(private_control_plane.access())
    api.create("/api/v1/namespaces", {"metadata": {"name": "kept"}})
    watch = api.watch(
        "/api/v1/namespaces", resourceVersion=api.get("/api/v1/namespaces")["metadata"]["resourceVersion"]
    )
    private_control_plane.stop_apiserver()
    assert list(watch) == []
    with pytest.raises(NotReached):
        api.get("/api/v1/namespaces")
    private_control_plane.start_apiserver()
    assert api.find("/api/v1/namespaces/kept")
    api.close()


def test_a_paused_api_server_answers_when_it_is_resumed(private_control_plane: ControlPlane) -> None:
    api = Api(private_control_plane.access())
    answers: list[object] = []
    private_control_plane.pause_apiserver()
    asking = threading.Thread(target=lambda: answers.append(api.get("/api/v1/namespaces/default")))
    asking.start()
    asking.join(0.3)
    assert not answers
    private_control_plane.resume_apiserver()
    asking.join(20)
    assert answers
    api.close()


def test_a_watch_is_closed_from_another_thread(admin: Api) -> None:
    watch = admin.watch("/api/v1/namespaces", resourceVersion="0")
    seen: list[str] = []
    reading = threading.Thread(target=lambda: seen.extend(e["object"]["metadata"]["name"] for e in watch))
    reading.start()
    watch.close()
    reading.join(10)
    assert not reading.is_alive()


# --- the end -------------------------------------------------------------------------------------------------------

OWNER = """
import sys, time
from pathlib import Path
from testcluster.control_plane import ControlPlane
plane = ControlPlane(Path(sys.argv[1]))
plane.start()
print(plane.place.bridge, *(server.pid for server in plane._servers.values()), plane._data, flush=True)
time.sleep(60)
"""


def test_nothing_outlives_a_killed_owner(
    tmp_path: Path, programs: binaries.Binaries, wait_until: Callable[..., None]
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    bridge, *pids, data = owner.stdout.readline().split()
    owner.stdout.close()
    assert _link_exists(bridge)
    assert len(pids) == 4
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until(lambda: not any(_is_running(int(pid)) for pid in pids), 10)
    wait_until(lambda: not os.path.exists(data), 10)
    wait_until(lambda: not _link_exists(bridge), 10)


def _link_exists(name: str) -> bool:
    return subprocess.run(["ip", "link", "show", name], capture_output=True, check=False).returncode == 0


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_control_plane_leaves_nothing(tmp_path: Path, programs: binaries.Binaries) -> None:
    started = time.monotonic()
    with ControlPlane(tmp_path, programs=programs) as plane:
        print(f"ready after {time.monotonic() - started:.1f} s")
        bridge = plane.place.bridge
        data = plane._data
        assert data
        assert data.exists()
    assert bridge
    assert not _link_exists(bridge)
    assert not data.exists()


def test_requests_are_written_down_by_user(tmp_path: Path, programs: binaries.Binaries) -> None:
    with ControlPlane(tmp_path, programs=programs, audit=True) as plane:
        daemon = Api(plane.access("somebody", ["system:masters"]))
        daemon.patch("/api/v1/namespaces/default", {"metadata": {"labels": {"a": "b"}}})
        assert daemon.find("/api/v1/namespaces/default/pods/web-0") is None
        assert plane.requests("somebody") == [
            Request("patch", "namespaces", "default", "default", 200),
            Request("get", "pods", "default", "web-0", 404),
        ]
        daemon.close()
