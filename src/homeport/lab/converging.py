"""Making the lab as it is wanted: the controllers' answers carried out, again and again, until they want nothing more.

Every step is in the state before the next begins, so a command killed here is continued by the next one.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from homeport import wiring
from homeport.lab import building, controllers
from homeport.lab.controllers import (
    AdoptPod,
    BindPod,
    CreatePod,
    DeletePod,
    NodeAction,
    RemovePod,
    ResumePod,
    StartPod,
    StopSandbox,
    WorkloadAction,
)
from homeport.lab.kubelets import Failure, Kubelet, Started
from homeport.lab.objects import Network, NodeObject, PodObject, Sandbox, WorkloadObject
from homeport.lab.retaining import retain
from homeport.lab.sessions import Lab, forget_disk
from homeport.model.errors import CniError
from homeport.model.names import PodRef

_AT_ONCE = 8  # sandboxes started or stopped side by side
Report = Callable[[str], None]
T = TypeVar("T")
R = TypeVar("R")


def converge(lab: Lab, report: Report) -> None:
    """Returns when nothing is left to do, or what is left failed and nothing has been released since."""
    nodes = lab.state.all(NodeObject)
    links = building.masters(lab.state.all(Network))
    building.build(lab.host, lab.places, nodes, links)
    for node in nodes:
        if node.killed:
            _bury(lab, node, links)
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        run = _Run(lab, report, workers)
        run.retain()  # before any pod starts: what maps reserve must not go to strangers
        while run.step():
            continue


def _bury(lab: Lab, node: NodeObject, links: Sequence[str]) -> None:
    """What a node without power had is gone: its sandboxes with no DEL, and its pods are deleted by force."""
    sandboxes = [s for s in lab.state.all(Sandbox) if s.node == node.name]
    pods = [p for p in lab.state.all(PodObject) if p.node == node.name]
    building.power_off(lab.host, lab.places, node.name, [s.netns_path for s in sandboxes], links)
    forget_disk(lab.places, node.name)
    for pod in pods:
        lab.record(pod, "Warning", "NodeLost", f"Node {node.name} is gone; force deleted")
    with lab.state.transaction():
        lab.state.remove(*sandboxes, *pods)


class _Run:
    """One convergence. `releases` counts what may have made room; a failed pod is tried again only after more of it."""

    def __init__(self, lab: Lab, report: Report, workers: ThreadPoolExecutor) -> None:
        self._lab = lab
        self._report = report
        self._workers = workers
        self._releases = 0
        self._failed: dict[str, int] = {}  # pod UID -> releases when it failed
        self._stuck: set[str] = set()  # sandboxes whose DEL failed; the next convergence tries again

    def step(self) -> bool:
        """One round; whether anything was done in it."""
        acted = self._control()
        acted = self._schedule() or acted
        acted = self._run_nodes() or acted
        return acted or self.retain()

    def retain(self) -> bool:
        """The controller's pass over allocations; whether it changed any."""
        changed = retain(self._lab)
        self._releases += changed
        return changed > 0

    # --- workloads --------------------------------------------------------------------------------------------

    def _control(self) -> bool:
        state = self._lab.state
        workloads, pods = state.all(WorkloadObject), state.all(PodObject)
        actions: list[WorkloadAction | RemovePod] = []
        actions += controllers.collect_garbage({w.uid: w for w in workloads}, pods)
        for workload in workloads:
            actions += controllers.decide_workload(workload, pods)
        for action in actions:
            self._control_one(action)
        self._lab.refresh_cluster()
        return bool(actions)

    def _control_one(self, action: WorkloadAction | RemovePod) -> None:
        lab = self._lab
        match action:
            case CreatePod(workload, ordinal):
                pod = new_pod(workload, ordinal)
                lab.state.put(pod)
                lab.record(workload, "Normal", "SuccessfulCreate", f"create Pod {pod.ref.name}")
            case DeletePod(pod, reason):
                lab.state.put(msgspec.structs.replace(pod, deleting=True))
                lab.record(pod, "Normal", "Killing", f"Stopping: {reason}")
            case AdoptPod(pod, workload):
                lab.state.put(msgspec.structs.replace(pod, workload_uid=workload.uid))
                lab.record(workload, "Normal", "Adopted", f"adopt Pod {pod.ref.name}")
            case RemovePod(pod):
                lab.state.remove(pod)

    def _schedule(self) -> bool:
        state = self._lab.state
        pods = state.all(PodObject)
        bound = controllers.schedule(pods, state.all(NodeObject))
        for binding in bound:
            self._bind(binding)
        for pod in pods:
            if not pod.node and not pod.deleting and not bound:
                self._blame(pod, "FailedScheduling", "no node is Ready")
        return bool(bound)

    def _bind(self, binding: BindPod) -> None:
        pod = msgspec.structs.replace(binding.pod, node=binding.node, message="")
        self._lab.state.put(pod)
        self._lab.record(pod, "Normal", "Scheduled", f"Assigned {pod.ref} to {binding.node}")

    # --- nodes ------------------------------------------------------------------------------------------------

    def _run_nodes(self) -> bool:
        """Graceful stops and starts; forgotten sandboxes only in a round that started nothing."""
        state = self._lab.state
        pods: dict[PodRef, PodObject] = {p.ref: p for p in state.all(PodObject)}
        sandboxes = state.all(Sandbox)
        actions: list[NodeAction] = []
        for node in state.all(NodeObject):
            actions += controllers.decide_node(node, pods, sandboxes)
        self._lab.refresh_cluster()
        owed = [a for a in actions if isinstance(a, StopSandbox) and a.sandbox.container_id not in self._stuck]
        stops, late = [a.sandbox for a in owed if not a.late], [a.sandbox for a in owed if a.late]
        starts = [a.pod for a in actions if isinstance(a, StartPod) and self._is_due(a.pod)]
        done = [a for a in actions if isinstance(a, RemovePod | ResumePod)]
        for action in done:
            self._finish(action)
        self._stop(stops)
        self._start(starts)
        if not starts:
            self._stop(late)
        return bool(done or stops or starts or late)

    def _is_due(self, pod: PodObject) -> bool:
        return self._failed.get(pod.uid, -1) < self._releases

    def _finish(self, action: NodeAction) -> None:
        match action:
            case ResumePod(pod):
                self._lab.state.put(msgspec.structs.replace(pod, running=True, message=""))
                self._lab.record(pod, "Normal", "NodeReady", f"Node {pod.node} is back")
            case RemovePod(pod):
                self._lab.state.remove(pod)
                self._releases += 1

    def _start(self, pods: Sequence[PodObject]) -> None:
        lab = self._lab
        planned: list[tuple[PodObject, Sandbox, Kubelet]] = []
        for pod in pods:
            try:
                kubelet = lab.kubelet(pod.node)
                sandbox = kubelet.plan(pod, lab.state.all(Network))
            except CniError as error:
                self._fail(pod, error)
                continue
            lab.state.put(sandbox)  # so that what a killed command began gets its DEL
            planned.append((pod, sandbox, kubelet))
        if planned:
            self._report("starting " + ", ".join(pod.ref.name for pod, _, _ in planned))
        outcomes = self._side_by_side(lambda one: one[2].start(one[1]), planned)
        for (pod, sandbox, _), outcome in zip(planned, outcomes, strict=True):
            self._note_start(pod, sandbox, outcome)

    def _note_start(self, pod: PodObject, sandbox: Sandbox, outcome: Started | Failure) -> None:
        lab = self._lab
        if isinstance(outcome, Failure):
            if outcome.left is None:
                lab.state.remove(sandbox)
            else:
                lab.state.put(outcome.left)
                self._stuck.add(sandbox.container_id)
            self._fail(pod, outcome.error)
            return
        with lab.state.transaction():
            lab.state.put(outcome.sandbox, msgspec.structs.replace(pod, running=True, message=""))
        for attached in outcome.sandbox.attachments:
            addresses = " ".join(attached.addresses)
            lab.record(pod, "Normal", "AddedInterface", f"Add {attached.ifname} [{addresses}] from {attached.network}")

    def _fail(self, pod: PodObject, error: CniError) -> None:
        self._failed[pod.uid] = self._releases
        self._blame(pod, "FailedCreatePodSandBox", str(error))

    def _blame(self, pod: PodObject, reason: str, message: str) -> None:
        self._lab.state.put(msgspec.structs.replace(pod, message=message))
        self._lab.record(pod, "Warning", reason, message)

    def _stop(self, sandboxes: Sequence[Sandbox]) -> None:
        lab = self._lab
        if sandboxes:
            self._report("stopping " + ", ".join(s.ref.name for s in sandboxes))
        doomed = [(lab.kubelet(s.node), s) for s in sandboxes]
        outcomes = self._side_by_side(lambda one: one[0].stop(one[1]), doomed)
        for sandbox, error in zip(sandboxes, outcomes, strict=True):
            if error is not None:
                self._stuck.add(sandbox.container_id)
                lab.record(sandbox, "Warning", "FailedKillPod", str(error))
                continue
            lab.state.remove(sandbox)
            self._releases += 1

    def _side_by_side(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """The results of `work`, in order as they come."""
        if len(items) < 2:
            return map(work, items)
        wiring.prepare_for_threads()
        return self._workers.map(work, items)


def new_pod(workload: WorkloadObject, ordinal: int | None) -> PodObject:
    """The pod a controller creates. A Deployment's gets a random suffix, as its ReplicaSet would give it."""
    key = workload.spec.workload
    name = f"{key.name}-{ordinal}" if ordinal is not None else f"{key.name}-{workload.revision}-{suffix()}"
    return PodObject(
        ref=PodRef(key.namespace, name),
        uid=new_uid(),
        workload=key,
        workload_uid=workload.uid,
        ordinal=ordinal,
        revision=workload.revision,
        template=workload.spec.template,
    )


def suffix() -> str:
    """Five characters of Kubernetes' own alphabet for names: no vowels, so no words."""
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))


def new_uid() -> str:
    """As the API server makes them: a random UUID."""
    return str(uuid.uuid4())
