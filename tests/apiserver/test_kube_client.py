"""The client on a real API server: outages, credentials, many objects, and what the server makes of our writes."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from testcluster.api import Api
from testcluster.control_plane import ControlPlane, node_user

from homeport.host.files import LocalFiles
from homeport.ipam.objects import Pod
from homeport.kube import configs
from homeport.kube.asking import HURRIED_SECONDS
from homeport.kube.client import KubernetesClient
from homeport.kube.configs import ApiConfig, File
from homeport.model.errors import IOFailure, TryAgainLater
from homeport.model.names import PodRef
from homeport.ports import Event

pytestmark = pytest.mark.root
WaitUntil = Callable[..., None]
NODE = "node-h"  # nothing runs on it
NETWORKS = "/apis/k8s.cni.cncf.io/v1"


class Connect(Protocol):
    def __call__(self, config: ApiConfig, *, seconds: float = 2.5) -> KubernetesClient: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    clients: list[KubernetesClient] = []

    def make(config: ApiConfig, *, seconds: float = 2.5) -> KubernetesClient:
        clients.append(KubernetesClient(config, node=NODE, deadline_seconds=seconds))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def config_of(plane: ControlPlane, user: str = node_user(NODE)) -> ApiConfig:
    config = configs.load(str(plane.kubeconfig(user)), {}, LocalFiles())
    assert config is not None
    return config


def create_pod(admin: Api, namespace: str, name: str, **annotations: str) -> str:
    spec = {"nodeName": NODE, "containers": [{"name": "main", "image": "none"}]}
    made = admin.create(
        f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name, "annotations": annotations}, "spec": spec}
    )
    uid: str = made["metadata"]["uid"]
    return uid


def delete_pod(admin: Api, namespace: str, name: str) -> None:
    admin.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", grace_seconds=0)


# --- outages ---------------------------------------------------------------------------------------------------


def test_an_outage_from_beginning_to_end(
    private_control_plane: ControlPlane, connect: Connect, wait_until: WaitUntil
) -> None:
    plane = private_control_plane
    admin = Api(plane.access())
    admin.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
    kept, lost = create_pod(admin, "shop", "web-0"), create_pod(admin, "shop", "web-1")
    client = connect(config_of(plane))
    gone: list[tuple[PodRef, str]] = []
    client.on_pod_gone(lambda ref, uid: gone.append((ref, uid)))
    client.recall = lambda ref: Pod(ref=ref, uid="recalled")
    client.start()
    web_0, web_1 = PodRef("shop", "web-0"), PodRef("shop", "web-1")
    assert client.pod_with_uid(web_1, lost) is not None

    plane.stop_apiserver()
    began = time.monotonic()
    known = client.pod_with_uid(web_0, kept)  # from the watch
    assert known is not None
    assert known.uid == kept
    recalled = client.pod_with_uid(PodRef("shop", "web-9"), "recalled")
    assert recalled is not None
    with pytest.raises(TryAgainLater, match="connection refused"):
        client.node("n1")
    with pytest.raises(TryAgainLater):
        client.write_annotations(web_0, kept, {"a": "b"})
    client.emit(Event(pod=web_0, pod_uid=kept, reason="AddedInterface", message="during the outage"))
    assert time.monotonic() - began < 8
    wait_until(lambda: not client.health().pods_current, 10)
    assert client.health().problems

    plane.start_apiserver()
    delete_pod(admin, "shop", "web-1")
    wait_until(lambda: client.health().pods_current, 20)
    wait_until(lambda: gone == [(web_1, lost)], 20)
    assert client.pod(web_1) is None
    assert client.write_annotations(web_0, kept, {"a": "b"})

    def events() -> list[str]:
        return [e["message"] for e in admin.get("/api/v1/namespaces/shop/events")["items"] if e["source"]]

    wait_until(lambda: "during the outage" in events(), 20)
    admin.close()


def test_an_api_server_that_does_not_answer(private_control_plane: ControlPlane, connect: Connect) -> None:
    client = connect(config_of(private_control_plane), seconds=1.0)
    assert client.node("nobody") is None
    private_control_plane.pause_apiserver()
    try:
        for seconds, question in (
            (1.0, lambda: client.node("nobody")),
            (HURRIED_SECONDS, lambda: client.write_annotations(PodRef("shop", "web-0"), "u", {"a": "b"})),
        ):
            began = time.monotonic()
            with pytest.raises(TryAgainLater, match=f"none within {seconds:g} s"):
                question()
            assert 0.9 * seconds < time.monotonic() - began < seconds + 1
    finally:
        private_control_plane.resume_apiserver()
    assert client.node("nobody") is None


# --- credentials -----------------------------------------------------------------------------------------------


def test_a_client_certificate_from_files(
    control_plane: ControlPlane, connect: Connect, tmp_path: Path, namespace: str
) -> None:
    """As kubelets have it: certificate and key in one file, which a kubeconfig names twice."""
    access = control_plane.access("certified", ["homeport:nodes"])
    assert access.certificate is not None
    assert access.key is not None
    (tmp_path / "me.pem").write_bytes(access.certificate.read_bytes() + access.key.read_bytes())
    (tmp_path / "ca.crt").write_bytes(access.ca.read_bytes())
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": access.server, "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"client-certificate": "me.pem", "client-key": "me.pem"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    config = configs.load(str(tmp_path / "kubeconfig"), {}, LocalFiles())
    assert config is not None
    assert connect(config).pod(PodRef(namespace, "nobody")) is None


def test_a_service_account_as_pods_have_it(
    control_plane: ControlPlane, admin: Api, connect: Connect, tmp_path: Path, namespace: str
) -> None:
    def write_token() -> None:
        made = admin.create(
            "/api/v1/namespaces/kube-system/serviceaccounts/homeport-node/token",
            {"spec": {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 600}},
        )
        (tmp_path / "token").write_text(made["status"]["token"])

    (tmp_path / "ca.crt").write_bytes(control_plane.access().ca.read_bytes())
    write_token()
    host, _, port = control_plane.server.removeprefix("https://").rpartition(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    config = configs.load(None, environ, LocalFiles(), service_account=str(tmp_path))
    assert config is not None
    client = connect(config)
    uid = create_pod(admin, namespace, "web-0")
    assert client.write_annotations(PodRef(namespace, "web-0"), uid, {"a": "b"})
    (tmp_path / "token").write_text("stale")
    with pytest.raises(IOFailure, match="401"):
        connect(config).pod(PodRef(namespace, "web-0"))
    write_token()
    assert client.node("nobody") is None


def test_an_authority_that_did_not_sign_the_server(
    control_plane: ControlPlane, connect: Connect, tmp_path: Path
) -> None:
    key: list[str | Path] = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-noenc",
        "-keyout",
        tmp_path / "key",
    ]
    made: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        *key,
        "-out",
        tmp_path / "ca",
        "-days",
        "2",
        "-subj",
        "/CN=somebody else",
    ]
    subprocess.run(made, check=True, capture_output=True)
    config = config_of(control_plane)
    stranger = msgspec.structs.replace(config, ca=(tmp_path / "ca").read_bytes())
    began = time.monotonic()
    with pytest.raises(IOFailure, match=rf"get nodes n1: certificate of API server {control_plane.server}: .*issuer"):
        connect(stranger).node("n1")
    assert time.monotonic() - began < 1  # nothing that passes
    assert connect(msgspec.structs.replace(stranger, verify=False)).node("nobody") is None
    elsewhere = msgspec.structs.replace(config, server_name="kubernetes.example.org")
    with pytest.raises(IOFailure, match=r"certificate of .*kubernetes\.example\.org"):
        connect(elsewhere).node("n1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ca": b"no PEM"}, "certificate authority of kubeconfig .*: cannot be used"),
        ({"ca": b"\xff"}, "certificate authority of kubeconfig .*: cannot be used: not PEM"),
        ({"client_certificate": b"x", "client_key": b"y"}, "client certificate and key of .*: cannot be used"),
        ({"ca": File("/nonexistent/ca.crt")}, "read /nonexistent/ca.crt: no such file or directory"),
    ],
)
def test_credentials_that_cannot_be_used(
    control_plane: ControlPlane, connect: Connect, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(IOFailure, match=said):
        connect(msgspec.structs.replace(config_of(control_plane), **change)).node("n1")


def test_who_is_refused_is_told_why_without_a_secret(control_plane: ControlPlane, connect: Connect) -> None:
    config = config_of(control_plane, "somebody-without-a-role")
    with pytest.raises(IOFailure, match=r'get nodes n1: API server .* forbids "get" of "nodes"') as refusal:
        connect(config).node("n1")
    assert 'User "somebody-without-a-role" cannot get resource "nodes"' in refusal.value.details
    wrong = msgspec.structs.replace(config, client_certificate=None, client_key=None, token="not-a-token")
    with pytest.raises(IOFailure, match=r"does not accept our credentials \(401\)") as refusal:
        connect(wrong).node("n1")
    assert "not-a-token" not in str(refusal.value)


# --- many ------------------------------------------------------------------------------------------------------


def test_more_definitions_than_a_page_holds(
    control_plane: ControlPlane, admin: Api, namespace: str, connect: Connect
) -> None:
    path = f"{NETWORKS}/namespaces/{namespace}/network-attachment-definitions"
    kind = {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition"}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: admin.create(path, {**kind, "metadata": {"name": f"n{n}"}}), range(1100)))
    client = connect(config_of(control_plane))
    client.start(seconds=20)
    assert client.definitions_seen() >= 1100
    for name in ("n0", "n499", "n500", "n1099"):
        assert client.definition(namespace, name) is not None


def test_threads_ask_and_write_at_once(
    control_plane: ControlPlane, admin: Api, namespace: str, connect: Connect
) -> None:
    uids = {n: create_pod(admin, namespace, f"web-{n}") for n in range(8)}
    client = connect(config_of(control_plane), seconds=10)
    client.start()

    def attach(k: int) -> bool:
        n = k % 8
        ref = PodRef(namespace, f"web-{n}")
        found = client.pod_with_uid(ref, uids[n])
        assert found is not None
        client.emit(Event(pod=ref, pod_uid=uids[n], reason="AddedInterface", message="Add net1"))
        return client.write_annotations(ref, uids[n], {f"homeport.example/{k}": secrets.token_hex(8)})

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(attach, range(64)))
    for n in range(8):
        found = admin.get(f"/api/v1/namespaces/{namespace}/pods/web-{n}")["metadata"]["annotations"]
        assert len(found) == 8


# --- what the server makes of it ---------------------------------------------------------------------------------


def test_a_write_meets_another_writer(
    control_plane: ControlPlane, admin: Api, namespace: str, connect: Connect
) -> None:
    """A merge patch names no version: whatever else changes the pod meanwhile is neither lost nor in the way."""
    uid = create_pod(admin, namespace, "web-0")
    client = connect(config_of(control_plane), seconds=10)
    path = f"/api/v1/namespaces/{namespace}/pods/web-0"
    done = threading.Event()

    def label() -> int:
        written = 0
        while not done.is_set():
            written += 1
            admin.patch(path, {"metadata": {"labels": {"written": str(written)}}})
        return written

    with ThreadPoolExecutor(1) as pool:
        labels = pool.submit(label)
        for n in range(20):
            assert client.write_annotations(PodRef(namespace, "web-0"), uid, {f"n{n}": "x"})
        done.set()
        written = labels.result()
    found = admin.get(path)["metadata"]
    assert found["labels"] == {"written": str(written)}
    assert len(found["annotations"]) == 20


def test_only_annotations_can_be_changed_with_our_role(control_plane: ControlPlane, admin: Api, namespace: str) -> None:
    """The subresource `status` lets neither labels' owner nor spec through: what deploy/rbac.yaml relies on."""
    create_pod(admin, namespace, "web-0")
    ours = Api(control_plane.access(node_user(NODE)))
    path = f"/api/v1/namespaces/{namespace}/pods/web-0"
    ours.patch(f"{path}/status", {"metadata": {"annotations": {"a": "b"}}, "spec": {"activeDeadlineSeconds": 5}})
    ours.close()
    found = admin.get(path)
    assert found["metadata"]["annotations"] == {"a": "b"}
    assert "activeDeadlineSeconds" not in found["spec"]


def test_an_event_is_what_kubectl_describe_shows(
    control_plane: ControlPlane, admin: Api, namespace: str, connect: Connect, wait_until: WaitUntil
) -> None:
    uid = create_pod(admin, namespace, "web-0")
    client = connect(config_of(control_plane))
    client.start(watching=False)
    ref = PodRef(namespace, "web-0")
    path = f"/api/v1/namespaces/{namespace}/events"

    def counted() -> list[tuple[str, str, str, int]]:
        # kubectl's own selector
        selector = f"involvedObject.name=web-0,involvedObject.namespace={namespace},involvedObject.uid={uid}"
        found = admin.get(path, fieldSelector=selector)["items"]
        return [(e["type"], e["reason"], e["message"], e["count"]) for e in found]

    event = Event(pod=ref, pod_uid=uid, reason="NoNetworkFound", message="no net", warning=True)
    client.emit(event)
    wait_until(lambda: counted() == [("Warning", "NoNetworkFound", "no net", 1)])
    client.emit(event)
    wait_until(lambda: counted() == [("Warning", "NoNetworkFound", "no net", 2)])
    for found in admin.get(path)["items"]:
        admin.delete(f"{path}/{found['metadata']['name']}")  # as the server itself does after an hour
    client.emit(event)
    wait_until(lambda: counted() == [("Warning", "NoNetworkFound", "no net", 3)])


def test_closing_sends_what_is_waiting(
    control_plane: ControlPlane, admin: Api, namespace: str, connect: Connect
) -> None:
    client = connect(config_of(control_plane))
    client.start(watching=False)
    for n in range(30):
        client.emit(Event(pod=PodRef(namespace, f"web-{n}"), pod_uid="u", reason="AddedInterface", message="m"))
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 3
    assert len(admin.get(f"/api/v1/namespaces/{namespace}/events")["items"]) == 30
    assert client.events_dropped == 0


def test_a_kubeconfig_that_kubectl_takes_is_taken(
    control_plane: ControlPlane, tmp_path: Path, connect: Connect
) -> None:
    """Written by kubectl itself, as people do, in its own YAML."""
    access = control_plane.access(node_user(NODE))
    assert access.token is not None
    path = str(tmp_path / "config")

    def kubectl(*argv: str) -> None:
        subprocess.run(["kubectl", "config", "--kubeconfig", path, *argv], check=True, capture_output=True)

    kubectl("set-cluster", "c", f"--server={access.server}", f"--certificate-authority={access.ca}")
    kubectl("set-credentials", "u", f"--token={access.token}")
    kubectl("set-context", "c", "--cluster=c", "--user=u")
    kubectl("use-context", "c")
    config = configs.load(path, {}, LocalFiles())
    assert config is not None
    assert connect(config).node("nobody") is None
    kubectl("set-cluster", "c", "--embed-certs", f"--certificate-authority={access.ca}")
    embedded = configs.load(path, {}, LocalFiles())
    assert embedded is not None
    assert embedded.ca == access.ca.read_bytes()
    assert base64.b64encode(access.ca.read_bytes()).decode() in Path(path).read_text()
