"""What the cluster says of a holder and an owner, for one pass. I/O: through `ports.Cluster`.

Every answer is a thing, None for "not found", or `Unknown`: what hangs on a fact that cannot be had stays as it is
(docs/identity.md R12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from homeport.ipam.allocations import Allocation
from homeport.ipam.identities import ContainerOwner, Holder, Replica, Workload
from homeport.ipam.moving import HolderFacts
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.model.errors import CniError
from homeport.model.names import PodRef
from homeport.ports import Cluster

T = TypeVar("T")

NetnsExists = Callable[[Holder], bool | None]
"""Whether a holder's namespace is there; None when this place cannot see."""


class Unknown(Exception):
    """A fact could not be had; `passing` when it may be had later without anybody's doing."""

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class Answers:
    """The cluster's word, asked once for each workload and node. Short-lived: an answer is true for a moment."""

    def __init__(self, cluster: Cluster | None, netns_exists: NetnsExists) -> None:
        self._cluster = cluster
        self._netns_exists = netns_exists
        self._workloads: dict[Workload, WorkloadState | None] = {}
        self._nodes: dict[str, NodeState | None] = {}

    def pod(self, ref: PodRef) -> Pod | None:
        return self._ask(lambda cluster: cluster.pod_now(ref))

    def workload(self, workload: Workload) -> WorkloadState | None:
        if workload not in self._workloads:
            self._workloads[workload] = self._ask(lambda cluster: cluster.workload(workload))
        return self._workloads[workload]

    def node(self, name: str) -> NodeState | None:
        if name not in self._nodes:
            self._nodes[name] = self._ask(lambda cluster: cluster.node(name))
        return self._nodes[name]

    def holder_facts(self, allocation: Allocation, holder: Holder) -> HolderFacts:
        """The node is asked for only once its word can decide."""
        owner = allocation.slot.owner
        exists = self._netns_exists(holder)
        if isinstance(owner, ContainerOwner):
            return HolderFacts(netns_exists=exists)
        ref = owner.pod if isinstance(owner, Replica) else PodRef(owner.namespace, owner.name)
        pod = self.pod(ref)
        if not holder.pod_uid:
            raise Unknown("its pod's UID was never known")
        facts = HolderFacts(
            pod_gone=pod is None or not pod.is_known_as(holder.pod_uid),
            pod_finished=pod is not None and pod.is_known_as(holder.pod_uid) and pod.finished,
            netns_exists=exists,
        )
        if exists is not None or not (facts.pod_gone or facts.pod_finished):
            return facts
        node = self.node(holder.node)
        return msgspec.structs.replace(
            facts, node_gone=node is None, node_out_of_service=node is not None and node.out_of_service
        )

    def _ask(self, question: Callable[[Cluster], T]) -> T:
        if self._cluster is None:
            raise Unknown("there is no cluster to ask")
        try:
            return question(self._cluster)
        except CniError as e:
            raise Unknown(e.msg, passing=e.retryable) from e
