"""The lab's API objects, and what its nodes hold. Values only; no I/O.

Objects say what is wanted (`Network`, `WorkloadObject`, `PodObject`, `NodeObject`); a `Sandbox` is a fact of one node:
the namespace and attachments a runtime made for a pod. The two part company exactly as in a cluster: a pod deleted by
force is gone at once, its sandbox only when its node has delivered the DEL.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from homeport.ipam.identities import Workload
from homeport.model.names import PodRef

WorkloadKind = Literal["StatefulSet", "Deployment"]
PodPhase = Literal["Pending", "ContainerCreating", "Running", "Terminating", "Unknown"]
EventType = Literal["Normal", "Warning"]


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A NetworkAttachmentDefinition; `config` is the JSON text of `spec.config`."""

    namespace: str
    name: str
    config: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A pod template, as far as networks are concerned."""

    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest says of a workload. `partition` and the policies are a StatefulSet's."""

    workload: Workload
    replicas: int = 1
    ordinals_start: int = 0
    pod_management: Literal["OrderedReady", "Parallel"] = "OrderedReady"
    update_strategy: Literal["RollingUpdate", "OnDelete"] = "RollingUpdate"
    partition: int = 0
    annotations: Mapping[str, str] = {}
    template: Template = Template()


class WorkloadObject(msgspec.Struct, frozen=True, kw_only=True):
    """A workload that exists. A change of `restarts` or of the template is a new `revision`."""

    spec: WorkloadSpec
    uid: str
    revision: str
    restarts: int = 0


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """One secondary interface of a sandbox. `conflist` is the configuration it was made with, which its DEL gets too.

    `addresses` are CIDRs in the result's order; empty, with `mac` None, until the ADD succeeded.
    """

    network: str  # namespace/name of the NetworkAttachmentDefinition
    ifname: str
    conflist: str
    args: Mapping[str, str] = {}
    capability_args: Mapping[str, Any] = {}
    addresses: tuple[str, ...] = ()
    mac: str | None = None


class PodObject(msgspec.Struct, frozen=True, kw_only=True):
    """A pod. `ordinal` is None for other than a StatefulSet's; `workload_uid` is "" once orphaned."""

    ref: PodRef
    uid: str
    workload: Workload | None
    workload_uid: str = ""
    ordinal: int | None = None
    revision: str = ""
    template: Template = Template()
    node: str = ""
    running: bool = False
    deleting: bool = False
    message: str = ""  # why it is not running yet


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A pod's namespace on a node. `ready` once every attachment's ADD succeeded."""

    container_id: str
    ref: PodRef
    pod_uid: str
    node: str
    netns_path: str
    attachments: tuple[Attached, ...] = ()
    ready: bool = False


class NodeObject(msgspec.Struct, frozen=True, kw_only=True):
    """A node. `killed`: it lost power, and everything in it is gone. `partitioned`: it runs, and no controller reaches
    it; unless `answering`, nor does anybody else.
    """

    name: str
    killed: bool = False
    partitioned: bool = False
    answering: bool = False
    cordoned: bool = False

    @property
    def ready(self) -> bool:
        """As the API server would see it."""
        return not (self.killed or self.partitioned)

    @property
    def status(self) -> str:
        """The STATUS column of `get nodes`."""
        ready = "Ready" if self.ready else "NotReady"
        return f"{ready},SchedulingDisabled" if self.cordoned else ready


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an object; `count` times in a row."""

    at: datetime
    type: EventType
    reason: str
    regarding: str  # kind/name
    message: str
    count: int = 1


def phase(pod: PodObject, node: NodeObject | None) -> PodPhase:
    """The STATUS column of `get pods`."""
    if pod.node and (node is None or not node.ready):
        return "Terminating" if pod.deleting else "Unknown"
    if pod.deleting:
        return "Terminating"
    if pod.running:
        return "Running"
    return "ContainerCreating" if pod.node else "Pending"
