"""What the lab's controllers would do next. Pure: objects in, actions out; no I/O, no clock, no randomness.

Each is level-triggered: it looks at the world as it is, asks for the next steps, and is called again after them until
it asks for nothing. The rules are those of Kubernetes' StatefulSet, Deployment, scheduler and kubelet as far as they
decide which pod exists when and where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from homeport.lab.objects import NodeObject, PodObject, Sandbox, WorkloadObject
from homeport.model.names import PodRef


class CreatePod(msgspec.Struct, frozen=True):
    """A pod of `workload`; without an ordinal its name gets a random suffix."""

    workload: WorkloadObject
    ordinal: int | None


class DeletePod(msgspec.Struct, frozen=True):
    """Graceful: the pod stays, deleting, until its node has torn it down."""

    pod: PodObject
    reason: str


class AdoptPod(msgspec.Struct, frozen=True):
    """An orphan of the same name becomes the workload's own again."""

    pod: PodObject
    workload: WorkloadObject


class RemovePod(msgspec.Struct, frozen=True):
    """A deleting pod without a sandbox is done."""

    pod: PodObject


class BindPod(msgspec.Struct, frozen=True):
    """The scheduler's answer."""

    pod: PodObject
    node: str


class StartPod(msgspec.Struct, frozen=True):
    """A new sandbox with every attachment the pod asks for."""

    pod: PodObject


class ResumePod(msgspec.Struct, frozen=True):
    """The pod never stopped; its node is back."""

    pod: PodObject


class StopSandbox(msgspec.Struct, frozen=True):
    """DEL of every attachment, then the namespace goes. `late`: its pod was forgotten before."""

    sandbox: Sandbox
    late: bool


WorkloadAction = CreatePod | DeletePod | AdoptPod
NodeAction = StartPod | ResumePod | StopSandbox | RemovePod


def decide_workload(workload: WorkloadObject, pods: Iterable[PodObject]) -> list[WorkloadAction]:
    """The next steps of one workload; `pods` may be all of the cluster."""
    owned = [p for p in pods if p.workload == workload.spec.workload]
    orphans = [p for p in owned if p.workload_uid != workload.uid]
    if orphans:
        return [AdoptPod(p, workload) for p in orphans if not p.workload_uid and not p.deleting]
    if workload.spec.workload.kind == "StatefulSet":
        return _decide_stateful_set(workload, owned)
    return _decide_deployment(workload, owned)


def _decide_stateful_set(workload: WorkloadObject, owned: Sequence[PodObject]) -> list[WorkloadAction]:
    """Wanted ordinals from the lowest up, the rest from the highest down, then updates from the highest down.

    OrderedReady stops at the first pod that is not running; Parallel creates and deletes at once. An update is one
    pod at a time under either.
    """
    spec = workload.spec
    by_ordinal = {p.ordinal: p for p in owned if p.ordinal is not None}
    wanted = range(spec.ordinals_start, spec.ordinals_start + spec.replicas)
    condemned = sorted((o for o in by_ordinal if o not in wanted), reverse=True)
    ordered = spec.pod_management == "OrderedReady"

    actions: list[WorkloadAction] = []
    for ordinal in wanted:
        pod = by_ordinal.get(ordinal)
        if pod is None:
            actions.append(CreatePod(workload, ordinal))
        if ordered and not _is_running(pod):
            return actions
    for ordinal in condemned:
        if not by_ordinal[ordinal].deleting:
            actions.append(DeletePod(by_ordinal[ordinal], "scaled down"))
        if ordered:
            return actions
    if actions or condemned or spec.update_strategy == "OnDelete":
        return actions

    for ordinal in reversed(wanted):
        if ordinal < spec.partition:
            break
        pod = by_ordinal[ordinal]
        if pod.revision != workload.revision and not pod.deleting:
            return [DeletePod(pod, "template changed")]
        if not _is_running(pod):
            break
    return []


def _decide_deployment(workload: WorkloadObject, owned: Sequence[PodObject]) -> list[WorkloadAction]:
    """RollingUpdate with one pod of surge and none unavailable, Kubernetes' default for fewer than four replicas."""
    wanted = workload.spec.replicas
    live = sorted((p for p in owned if not p.deleting), key=lambda p: p.ref)
    new = [p for p in live if p.revision == workload.revision]
    old = [p for p in live if p.revision != workload.revision]

    ceiling = wanted + 1 if old and wanted else wanted
    missing = min(wanted - len(new), ceiling - len(live))
    if missing > 0:
        return [CreatePod(workload, None)] * missing
    if len(new) > wanted:
        surplus = sorted(new, key=_is_running)[: len(new) - wanted]  # those that serve nobody go first
        return [DeletePod(p, "scaled down") for p in surplus]
    idle = [p for p in old if not _is_running(p)]
    spare = sum(map(_is_running, live)) - wanted
    serving = [p for p in old if _is_running(p)][: max(0, spare)]
    return [DeletePod(p, "template changed") for p in (*idle, *serving)]


def collect_garbage(workloads: Mapping[str, WorkloadObject], pods: Iterable[PodObject]) -> list[DeletePod | RemovePod]:
    """Pods whose owner is gone (`workloads` is by UID, all of them; orphans have no owner and stay), and deleting
    pods that no node ever had.
    """
    garbage: list[DeletePod | RemovePod] = []
    for pod in pods:
        if pod.deleting and not pod.node:
            garbage.append(RemovePod(pod))
        elif pod.workload_uid and pod.workload_uid not in workloads and not pod.deleting:
            garbage.append(DeletePod(pod, "owner deleted"))
    return garbage


def schedule(pods: Sequence[PodObject], nodes: Iterable[NodeObject]) -> list[BindPod]:
    """Each pod without a node to the ready node with the fewest pods, the first by name among equals."""
    load = Counter({n.name: 0 for n in nodes if n.ready and not n.cordoned})
    load.update(p.node for p in pods if p.node in load)
    bound = []
    for pod in pods:
        if not pod.node and not pod.deleting and load:
            node = min(sorted(load), key=load.__getitem__)
            load[node] += 1
            bound.append(BindPod(pod, node))
    return bound


def decide_node(node: NodeObject, pods: Mapping[PodRef, PodObject], sandboxes: Iterable[Sandbox]) -> list[NodeAction]:
    """The kubelet of one node: starts first, so that a forgotten pod's DEL comes after its successor's ADD.

    A sandbox that is not ready is what an interrupted start or a lost keeper left: it is torn down, and the
    pod gets a new one.
    """
    if not node.ready:
        return []
    mine = {ref: p for ref, p in pods.items() if p.node == node.name}
    held = {s.pod_uid: s for s in sandboxes if s.node == node.name}
    starts: list[NodeAction] = []
    stops: list[NodeAction] = []
    for pod in mine.values():
        sandbox = held.get(pod.uid)
        if pod.deleting:
            stops.append(StopSandbox(sandbox, late=False) if sandbox else RemovePod(pod))
        elif sandbox is None:
            starts.append(StartPod(pod))
        elif not sandbox.ready:
            stops.append(StopSandbox(sandbox, late=False))
        elif not pod.running:
            starts.append(ResumePod(pod))
    known = {p.uid for p in mine.values()}
    stops += [StopSandbox(s, late=True) for s in held.values() if s.pod_uid not in known]
    return [*starts, *stops]


def _is_running(pod: PodObject | None) -> bool:
    return pod is not None and pod.running and not pod.deleting
