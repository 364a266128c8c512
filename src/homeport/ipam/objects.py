"""Kubernetes objects, as much of them as identity needs. Values only; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from homeport.ipam.identities import Workload
from homeport.model.names import PodRef

STATIC_HASH = "kubernetes.io/config.hash"


class OwnerReference(msgspec.Struct, frozen=True, kw_only=True):
    """metadata.ownerReferences, one entry."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = True


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """What Homeport needs to know of a pod."""

    ref: PodRef
    uid: str
    node: str = ""
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    owner: OwnerReference | None = None  # its controller
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    deleting: bool = False

    def is_known_as(self, uid: str) -> bool:
        """Whether runtimes call it so: a static pod is known to them by a hash, which the API server's copy of it
        carries as an annotation.
        """
        return uid in (self.uid, self.annotations.get(STATIC_HASH))

    @property
    def finished(self) -> bool:
        """Whether it ran to its end, and will never run again (R14)."""
        return self.phase in ("Succeeded", "Failed")


class WorkloadState(msgspec.Struct, frozen=True, kw_only=True):
    """A workload as it is wanted now."""

    workload: Workload
    uid: str
    replicas: int
    ordinals_start: int = 0
    annotations: Mapping[str, str] = {}  # of the workload and of its pod template, the workload's own first
    deleting: bool = False

    def wants(self, ordinal: int) -> bool:
        """Whether a replica of this ordinal is to run."""
        return self.ordinals_start <= ordinal < self.ordinals_start + self.replicas


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the API server describes it."""

    name: str
    ready: bool = True
    out_of_service: bool = False  # taint node.kubernetes.io/out-of-service
