"""The objects that a run makes, as JSON. No I/O.

Their pods ask for what the strictest Pod Security Standard allows, and for next to nothing of a node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from homeport.multinet.devices import RESOURCE_ANNOTATION
from homeport.multinet.selections import ANNOTATION as NETWORKS

RUN = "homeport.dev/conformance"
"""The label of a run's namespace, and on its pods the one that names their workload."""
IGNORED = {"homeport.dev/admission": "ignore"}
"""Rows make mistakes on purpose, to see what ADD says to them: admission is not to keep them from it."""
MANAGER = {"app.kubernetes.io/managed-by": "homeport-conformance"}
Kind = Literal["StatefulSet", "Deployment"]


def namespace(name: str) -> dict[str, Any]:
    """A run's own."""
    return {"metadata": {"name": name, "labels": {RUN: name, **IGNORED, **MANAGER}}}


def definition(name: str, config: str, resource: str = "") -> dict[str, Any]:
    """A network, whose interfaces are devices of that resource where there is one."""
    annotations = {RESOURCE_ANNOTATION: resource} if resource else {}
    return {"metadata": {"name": name, "labels": MANAGER, "annotations": annotations}, "spec": {"config": config}}


def workload(
    name: str,
    kind: Kind,
    replicas: int,
    networks: Sequence[str],
    *,
    image: str,
    resource: str = "",
    nodes: Sequence[str] = (),
    annotations: Mapping[str, str | None] | None = None,
    pod_annotations: Mapping[str, str | None] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """As a merge patch it makes what is there into this. No `nodes` are any; an annotation None is taken away."""
    labels = {RUN: name}
    template = {
        "metadata": {"labels": labels, "annotations": {NETWORKS: ",".join(networks), **(pod_annotations or {})}},
        "spec": _pod_spec(image, {resource: str(len(networks))} if resource else {}, nodes),
    }
    own = {"serviceName": name, "podManagementPolicy": "Parallel"} if kind == "StatefulSet" else {}
    return {
        "metadata": {"name": name, "labels": MANAGER, "annotations": dict(annotations or {})},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": template,
            **own,
            **(spec or {}),
        },
    }


def _pod_spec(image: str, devices: Mapping[str, str], nodes: Sequence[str]) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "resources": {"requests": {"cpu": "1m", "memory": "8Mi", **devices}, "limits": devices},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "containers": [container],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65535, "seccompProfile": {"type": "RuntimeDefault"}},
        "affinity": {"nodeAffinity": _on(nodes)} if nodes else None,
    }


def _on(nodes: Sequence[str]) -> dict[str, Any]:
    """A term for each, as a field may be compared with one value only."""
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in nodes]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
