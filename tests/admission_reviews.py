"""What tests of admission say and hear: objects as the API server has them, AdmissionReviews as it sends them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Json = dict[str, Any]

GROUPS = {
    "network-attachment-definitions": ("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition"),
    "statefulsets": ("apps", "v1", "StatefulSet"),
    "deployments": ("apps", "v1", "Deployment"),
    "daemonsets": ("apps", "v1", "DaemonSet"),
    "replicasets": ("apps", "v1", "ReplicaSet"),
    "jobs": ("batch", "v1", "Job"),
    "pods": ("", "v1", "Pod"),
    "ipallocations": ("homeport.dev", "v1alpha1", "IPAllocation"),
}
NETWORKS = "k8s.v1.cni.cncf.io/networks"


def definition(name: str = "storage", namespace: str = "shop", *, config: Any = None, **ipam: Any) -> Json:
    """A network of macvlan and whereabouts, by default 10.9.0.1-10.9.0.6; `ipam` changes that section's keys."""
    whole = config if config is not None else network_config(name, **ipam)
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"config": whole if isinstance(whole, str) else json.dumps(whole)},
    }


def network_config(name: str = "storage", **ipam: Any) -> Json:
    section = {"type": "whereabouts", "range": "10.9.0.0/29", **ipam}
    return {"cniVersion": "1.0.0", "name": name, "type": "macvlan", "master": "eth1", "ipam": section}


def workload(
    name: str = "web",
    replicas: int = 3,
    *,
    kind: str = "StatefulSet",
    namespace: str = "shop",
    networks: str = "storage",
    annotations: Mapping[str, str] | None = None,
    pod_annotations: Mapping[str, str] | None = None,
) -> Json:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations or {})},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "serviceName": name,
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": ({NETWORKS: networks} if networks else {}) | dict(pod_annotations or {}),
                },
                "spec": {"containers": [{"name": "main", "image": "registry.example/web:1"}]},
            },
        },
    }


def scale(name: str, replicas: int, namespace: str = "shop") -> Json:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": replicas}}


def review(
    new: Json | None,
    old: Json | None = None,
    *,
    resource: str = "",
    subresource: str = "",
    user: str = "kubernetes-admin",
    groups: Sequence[str] = ("system:masters",),
    uid: str = "7f0b2891-916f-4ed6-b7cd-27bff1815a8c",
) -> bytes:
    """CREATE without `old`, DELETE without `new`, else UPDATE; `resource` is the object's own where it is left out."""
    subject = new or old
    assert subject is not None
    plural = resource or next(p for p, (_, _, kind) in GROUPS.items() if kind == subject["kind"])
    group, version, kind = GROUPS[plural]
    request: Json = {
        "uid": uid,
        "kind": {"group": group, "version": version, "kind": kind},
        "resource": {"group": group, "version": version, "resource": plural},
        "requestKind": {"group": group, "version": version, "kind": kind},
        "requestResource": {"group": group, "version": version, "resource": plural},
        "name": subject["metadata"].get("name", ""),
        "namespace": subject["metadata"].get("namespace", ""),
        "operation": "CREATE" if old is None else "DELETE" if new is None else "UPDATE",
        "userInfo": {"username": user, "groups": list(groups)},
        "object": new,
        "oldObject": old,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    if subresource:
        request["subResource"] = subresource
    return json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}).encode()
