"""The cluster: what the API server says of pods, workloads and nodes; what the kubelet says of devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.model.names import PodRef
from homeport.multinet.ipam_claims import IpamClaim


class Cluster(Protocol):
    """The API server's word. None means it answered "not found" for that very name (R12).

    `pod` may give what was true a while ago. That another pod had the name then proves nothing about the one of now:
    whoever is to conclude that a pod is gone asks `pod_now`, which no cache and no record answers.
    """

    def pod(self, ref: PodRef) -> Pod | None: ...
    def pod_now(self, ref: PodRef) -> Pod | None: ...
    def workload(self, workload: Workload) -> WorkloadState | None: ...
    def node(self, name: str) -> NodeState | None: ...


class NetworkDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A NetworkAttachmentDefinition. `config` is its `spec.config`, which may be empty."""

    namespace: str
    name: str
    config: str = ""
    annotations: Mapping[str, str] = {}

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operator reads in `kubectl describe pod`, or of another object where `kind` says so.

    `pod` and `pod_uid` are that object's; its namespace is "" where its kind has none.
    """

    pod: PodRef
    pod_uid: str
    reason: str
    message: str
    warning: bool = False
    kind: str = "Pod"
    api_version: str = "v1"


class Kubernetes(Cluster, Protocol):
    """What the meta-plugin asks of the API server and tells it, from a node's view. Waits no longer than its deadlines.

    `pod`, `workload` and `node` of `Cluster` may be answered from a watch: what they say was true, and None is always
    the API server's own word. Every method raises `TryAgainLater` when the API server is away, overloaded or broken,
    and `IOFailure` when it refuses us for good.
    """

    def pod_with_uid(self, ref: PodRef, uid: str) -> Pod | None:
        """The pod as it is now known, by a live GET where the watch lacks it or has another UID. "" is any UID.

        A pod of another UID is returned as it is: the caller judges. None when the API server answered 404.
        """

    def definition(self, namespace: str, name: str) -> NetworkDefinition | None: ...
    def ipam_claim(self, namespace: str, name: str) -> IpamClaim | None:
        """As it is now. Its resource need not be installed where nobody asks."""

    def write_annotations(self, ref: PodRef, uid: str, annotations: Mapping[str, str]) -> bool:
        """Sets annotations of this very pod by one PATCH of its status; False when it is gone or another one."""

    def emit(self, event: Event) -> None:
        """Sends it in the background, repeats counted together; never raises, never waits."""


class Devices(Protocol):
    """Which devices the kubelet gave a pod."""

    def of_pod(self, ref: PodRef, uid: str) -> Mapping[str, Sequence[str]]:
        """Resource name to device IDs, sorted. Raises `CniError` when the kubelet cannot be asked."""
