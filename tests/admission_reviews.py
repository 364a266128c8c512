"""What tests of admission say and hear: objects as the API server has them, AdmissionReviews as it sends them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from tests.stand_ins_objects import MemoryObjects

from homeport.admission.facts import Facts
from homeport.admission.reviewing import REVIEWED, Reviewer
from homeport.ports import Resource

Json = dict[str, Any]

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
            **({"serviceName": name} if kind == "StatefulSet" else {}),
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
    about = REVIEWED[resource] if resource else resource_of(subject)
    kind = {"group": about.group, "version": about.version, "kind": about.kind}
    served = {"group": about.group, "version": about.version, "resource": about.plural}
    request: Json = {
        "uid": uid,
        "kind": kind,
        "resource": served,
        "requestKind": kind,
        "requestResource": served,
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


class Desk:
    """A reviewer over objects in memory, whose watches tell when the test says so (`watched`)."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.objects = MemoryObjects(threaded=False)
        self.registry = CollectorRegistry()
        self.facts = Facts(self.objects, monotonic=monotonic)
        self.facts.start()
        self.reviewer = Reviewer(self.facts, registry=self.registry)

    def has(self, *bodies: Json, watched: bool = True) -> None:
        """Stores objects, in place of those of their names; `watched` False: the watches do not know yet."""
        for body in bodies:
            resource = resource_of(body)
            name, namespace = body["metadata"]["name"], body["metadata"].get("namespace", "")
            if self.objects.get(resource, name, namespace=namespace) is not None:
                self.objects.delete(resource, name, namespace=namespace)
            self.objects.create(resource, body, namespace=namespace)
        if watched:
            self.objects.deliver()

    def ask(self, new: Json | None, old: Json | None = None, **rest: Any) -> Json:
        """The response to a review."""
        answered = json.loads(self.reviewer.review(review(new, old, **rest)))
        assert (answered["apiVersion"], answered["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        response: Json = answered["response"]
        return response

    def denied(self, new: Json | None, old: Json | None = None, **rest: Any) -> list[str]:
        """The lines of a denial; [] for what is allowed."""
        response = self.ask(new, old, **rest)
        assert response["allowed"] is ("status" not in response)
        return response["status"]["message"].split("\n") if "status" in response else []

    def warned(self, new: Json | None, old: Json | None = None, **rest: Any) -> list[str]:
        """The warnings of what is allowed."""
        response = self.ask(new, old, **rest)
        assert response["allowed"], response
        return list(response.get("warnings", []))

    def rules(self, new: Json | None, old: Json | None = None, **rest: Any) -> list[str]:
        """The rules for which it is denied."""
        response = self.ask(new, old, **rest)
        return [cause["reason"] for cause in response.get("status", {}).get("details", {}).get("causes", [])]

    def counted(self, resource: str, outcome: str) -> float:
        labels = {"resource": resource, "outcome": outcome}
        return self.registry.get_sample_value("homeport_admission_reviews_total", labels) or 0.0


def resource_of(body: Json) -> Resource:
    return next(r for r in REVIEWED.values() if r.kind == body["kind"])
