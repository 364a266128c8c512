"""Reviews behind a plain HTTPS server, registered with a real API server: what the reviewer says, and nothing else.

The server, the certificates and the registration that Homeport has are tested by themselves (test_admission_server.py).
Here the policy is Fail, so that a review that is not answered cannot pass for one that allows.
"""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testcluster.access import Authority
from testcluster.api import Api
from testcluster.control_plane import ControlPlane

from homeport.admission.facts import Facts
from homeport.admission.reviewing import Reviewer
from homeport.host.files import LocalFiles
from homeport.kube import configs
from homeport.kube.objects import KubernetesObjects

_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
_APPS = ["deployments", "statefulsets", "daemonsets", "replicasets", "deployments/scale", "statefulsets/scale"]
_GROUP = "homeport:controllers"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, context: ssl.SSLContext, reviewer: Reviewer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context, self.reviewer = context, reviewer

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the request's own thread: a slow handshake holds up nobody else."""
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that broke off is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.server.reviewer.review(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def reviewing(plane: ControlPlane, admin: Api, folder: Path, namespace: str) -> Iterator[Reviewer]:
    """A reviewer of what happens in one namespace, with the controller's role; told everything there is."""
    authority = Authority(folder / "webhook")
    authority.found(["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.serving, authority.serving_key)
    config = configs.load(str(plane.kubeconfig("controller-w", [_GROUP])), {}, LocalFiles())
    assert config is not None
    objects = KubernetesObjects.connect(config)
    facts = Facts(objects)
    facts.start()
    server = _Server(context, Reviewer(facts))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    admin.create(_CONFIGURATIONS, _registration(authority, server.server_port, namespace))
    admin.request(
        "PATCH",
        f"/api/v1/namespaces/{namespace}",
        {"metadata": {"labels": {"reviewed": namespace}}},
        content_type="application/merge-patch+json",
    )
    try:
        yield server.reviewer
    finally:
        admin.delete(f"{_CONFIGURATIONS}/test-{namespace}")
        server.shutdown()
        server.server_close()
        thread.join()
        objects.close()


def _registration(authority: Authority, port: int, namespace: str) -> dict[str, Any]:
    operations = ["CREATE", "UPDATE"]
    rules = [
        _rule("k8s.cni.cncf.io", "v1", ["network-attachment-definitions"], operations),
        _rule("apps", "v1", _APPS, operations),
        _rule("batch", "*", ["jobs", "cronjobs"], operations),
        _rule("", "v1", ["pods"], ["CREATE"]),
    ]
    everywhere = [_rule("homeport.dev", "v1alpha1", ["ipallocations"], [*operations, "DELETE"])]
    client = {
        "url": f"https://127.0.0.1:{port}/review",
        "caBundle": base64.b64encode(authority.ca.read_bytes()).decode(),
    }
    common: dict[str, Any] = {
        "clientConfig": client,
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "admissionReviewVersions": ["v1"],
    }
    selector = {"namespaceSelector": {"matchLabels": {"reviewed": namespace}}}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"test-{namespace}"},
        "webhooks": [
            {"name": "reviews.test.homeport.dev", "rules": rules, **common, **selector},
            {"name": "allocations.test.homeport.dev", "rules": everywhere, **common},
        ],
    }


def _rule(group: str, version: str, resources: list[str], operations: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "apiVersions": [version], "resources": resources, "operations": operations}
