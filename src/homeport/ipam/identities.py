"""Who owns an address: replicas, pods, containers; the slot; the holder. No I/O.

The terms of the identity rules (docs/identity.md).
"""

from __future__ import annotations

import msgspec

from homeport.model.addresses import MacAddress
from homeport.model.names import PodRef


class Workload(msgspec.Struct, frozen=True, order=True):
    """A controller of replicas, by name; the UID is deliberately absent (R11: same name inherits)."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


class Replica(msgspec.Struct, frozen=True, order=True, tag="replica"):
    """One place in a workload."""

    workload: Workload
    ordinal: int

    @property
    def pod(self) -> PodRef:
        """The name of the pod that is this replica."""
        return PodRef(self.workload.namespace, f"{self.workload.name}-{self.ordinal}")

    def __str__(self) -> str:
        return f"{self.workload.namespace}/{self.workload.name}-{self.ordinal}"


class PodOwner(msgspec.Struct, frozen=True, order=True, tag="pod"):
    """Any other pod. Owns addresses only as long as it lives."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ContainerOwner(msgspec.Struct, frozen=True, order=True, tag="container"):
    """A container outside Kubernetes (no K8S_POD_* in CNI_ARGS)."""

    container_id: str

    def __str__(self) -> str:
        return self.container_id


Owner = Replica | PodOwner | ContainerOwner


class Slot(msgspec.Struct, frozen=True, order=True):
    """One interface of one owner on one network (`network` is the CNI network's name)."""

    owner: Owner
    network: str
    ifname: str

    @property
    def workload(self) -> Workload | None:
        """The workload of a replica's slot; None for any other owner."""
        return self.owner.workload if isinstance(self.owner, Replica) else None

    def __str__(self) -> str:
        return f"{self.owner} {self.network}/{self.ifname}"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """What uses the address now. `pod_uid` is "" outside Kubernetes; `node` is the node's name."""

    container_id: str
    ifname: str
    netns_path: str
    node: str
    pod_uid: str = ""
    mac: MacAddress | None = None
