"""The lab's state in the words of `ports.Cluster`. A snapshot: no I/O, so plugins in any thread may ask it."""

from __future__ import annotations

from collections.abc import Iterable

from homeport.ipam.identities import Workload
from homeport.lab.objects import NodeObject, PodObject, WorkloadObject
from homeport.model.names import PodRef
from homeport.ports import NodeState, OwnerReference, Pod, WorkloadState


class LabCluster:
    """What the API server would answer. `refresh` replaces all of it at once."""

    def __init__(self) -> None:
        self._pods: dict[PodRef, Pod] = {}
        self._workloads: dict[Workload, WorkloadState] = {}
        self._nodes: dict[str, NodeState] = {}

    def refresh(
        self, workloads: Iterable[WorkloadObject], pods: Iterable[PodObject], nodes: Iterable[NodeObject]
    ) -> None:
        self._pods = {p.ref: as_pod(p) for p in pods}
        self._workloads = {w.spec.workload: as_workload_state(w) for w in workloads}
        # A killed node is one an operator has declared so: the taint says that nothing on it runs any more (R8).
        self._nodes = {n.name: NodeState(name=n.name, ready=n.ready, out_of_service=n.killed) for n in nodes}

    def pod(self, ref: PodRef) -> Pod | None:
        return self._pods.get(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        return self.pod(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        return self._workloads.get(workload)

    def node(self, name: str) -> NodeState | None:
        return self._nodes.get(name)


def as_pod(pod: PodObject) -> Pod:
    """With the labels and the owner that Kubernetes' controllers give it."""
    labels = dict(pod.template.labels)
    owner = None
    if pod.ordinal is not None:
        labels["apps.kubernetes.io/pod-index"] = str(pod.ordinal)
        labels["statefulset.kubernetes.io/pod-name"] = pod.ref.name
    if pod.workload and pod.workload_uid:
        kind, name = pod.workload.kind, pod.workload.name
        if kind == "Deployment":  # its pods belong to a ReplicaSet of the template's revision
            kind, name = "ReplicaSet", f"{name}-{pod.revision}"
        owner = OwnerReference(api_version="apps/v1", kind=kind, name=name, uid=pod.workload_uid)
    return Pod(
        ref=pod.ref,
        uid=pod.uid,
        node=pod.node,
        phase="Running" if pod.running else "Pending",
        owner=owner,
        labels=labels,
        annotations=pod.template.annotations,
        deleting=pod.deleting,
    )


def as_workload_state(workload: WorkloadObject) -> WorkloadState:
    """With the annotations of the workload and, behind them, of its template."""
    spec = workload.spec
    return WorkloadState(
        workload=spec.workload,
        uid=workload.uid,
        replicas=spec.replicas,
        ordinals_start=spec.ordinals_start,
        annotations={**spec.template.annotations, **spec.annotations},
    )
