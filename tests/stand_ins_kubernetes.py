"""An API server in memory, as `ports.Kubernetes`, held to tests/contract/test_kubernetes.py like the real client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.kube import requests
from homeport.model.errors import IOFailure, TryAgainLater
from homeport.model.names import PodRef
from homeport.multinet.ipam_claims import IpamClaim
from homeport.ports import Event, NetworkDefinition

Mood = Literal["answering", "unreachable", "refusing"]


class FakeKubernetes:
    """What is in the mappings was created, what is not is "not found".

    `mood` makes every question fail: "unreachable" as if the API server were away, "refusing" as if our role lacked
    the verb. `delay_seconds` is how long each answer takes; one longer than `deadline_seconds` is a failed question.
    `recall` answers for pods while the API server is away, as the node's own records do. `asked` lists every
    question that was put, as (method, object).
    """

    def __init__(self, *, deadline_seconds: float = 2.5) -> None:
        self.pods: dict[PodRef, Pod] = {}
        self.definitions: dict[tuple[str, str], NetworkDefinition] = {}
        self.workloads: dict[Workload, WorkloadState] = {}
        self.nodes: dict[str, NodeState] = {}
        self.ipam_claims: dict[tuple[str, str], IpamClaim] = {}
        self.events: list[Event] = []
        self.mood: Mood = "answering"
        self.delay_seconds = 0.0
        self.deadline_seconds = deadline_seconds
        self.recall: Callable[[PodRef], Pod | None] = lambda _ref: None
        self.asked: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    # what tests put in

    def create_pod(self, pod: Pod) -> None:
        """Creates it, or overwrites what is there."""
        with self._lock:
            self.pods[pod.ref] = pod

    def delete_pod(self, ref: PodRef) -> None:
        with self._lock:
            del self.pods[ref]

    def create_definition(self, definition: NetworkDefinition) -> None:
        """Creates it, or overwrites what is there."""
        with self._lock:
            self.definitions[definition.namespace, definition.name] = definition

    # ports.Kubernetes

    def pod(self, ref: PodRef) -> Pod | None:
        return self.pod_with_uid(ref, "")

    def pod_with_uid(self, ref: PodRef, uid: str) -> Pod | None:
        requests.get_pod(ref)  # raises for what no object can be called
        try:
            self._ask("pod", str(ref))
        except TryAgainLater:
            known = self.recall(ref)
            if known is None or (uid and known.uid != uid):
                raise
            return known
        with self._lock:
            return self.pods.get(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        requests.get_pod(ref)
        self._ask("pod", str(ref))
        with self._lock:
            return self.pods.get(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        if "." not in workload.kind:
            requests.get_stateful_set(workload)
        self._ask("workload", str(workload))
        with self._lock:
            return self.workloads.get(workload)

    def node(self, name: str) -> NodeState | None:
        requests.get_node(name)
        self._ask("node", name)
        with self._lock:
            return self.nodes.get(name)

    def definition(self, namespace: str, name: str) -> NetworkDefinition | None:
        requests.get_definition(namespace, name)
        self._ask("definition", f"{namespace}/{name}")
        with self._lock:
            return self.definitions.get((namespace, name))

    def ipam_claim(self, namespace: str, name: str) -> IpamClaim | None:
        self._ask("ipam_claim", f"{namespace}/{name}")
        with self._lock:
            return self.ipam_claims.get((namespace, name))

    def write_annotations(self, ref: PodRef, uid: str, annotations: Mapping[str, str]) -> bool:
        requests.patch_pod_annotations(ref, uid, annotations)
        self._ask("write_annotations", str(ref))
        with self._lock:
            pod = self.pods.get(ref)
            if pod is None or (uid and pod.uid != uid):
                return False
            self.pods[ref] = msgspec.structs.replace(pod, annotations={**pod.annotations, **annotations})
            return True

    def emit(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def _ask(self, method: str, what: str) -> None:
        with self._lock:
            self.asked.append((method, what))
            mood, delay = self.mood, self.delay_seconds
        if delay:
            time.sleep(min(delay, self.deadline_seconds))
        if mood == "unreachable":
            raise TryAgainLater(f"ask the API server for {what}: connection refused")
        if delay > self.deadline_seconds:
            raise TryAgainLater(f"ask the API server for {what}: no answer within {self.deadline_seconds} s")
        if mood == "refusing":
            raise IOFailure(f"ask the API server for {what}: forbidden")
