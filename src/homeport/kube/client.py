"""`ports.Kubernetes` by a real API server: watches for what is asked often, one request for everything else.

What a watch told is answered as it is while the watch goes on; when it has been interrupted for longer, the API server
is asked first and the watch's last word counts only while nobody answers. A miss is always asked live, so that None is
the API server's own 404. docs/kubernetes.md has the requests, their deadlines and the role they need.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, TypeVar

import msgspec

from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.kube import decoding, errors, requests
from homeport.kube.asking import DEADLINE_SECONDS, Asker
from homeport.kube.caching import Cache
from homeport.kube.configs import ApiConfig
from homeport.kube.decoding import Identity
from homeport.kube.discovering import Discovery
from homeport.kube.events import EventSender
from homeport.kube.objects import KubernetesObjects
from homeport.kube.requests import Request
from homeport.kube.sending import Observe, Sender
from homeport.kube.watching import USUAL, Timing, Watcher
from homeport.model.errors import CniError, TryAgainLater
from homeport.model.names import PodRef
from homeport.multinet import ipam_claims
from homeport.multinet.ipam_claims import IpamClaim
from homeport.ports import Event, NetworkDefinition, Resource

T = TypeVar("T")
K = TypeVar("K")

START_SECONDS = 5.0  # that `start` waits for the first lists
REMEMBERED_SECONDS = 1.0  # that a positive answer may be given again
_MET_MAX = 1000
_FAILED_SECONDS = 1.0  # after a question without an answer, in which known things are not asked anew
_FLUSH_SECONDS = 2.0
_JOIN_SECONDS = 1.0

_IPAM_CLAIMS = Resource(
    group="k8s.cni.cncf.io", version="v1alpha1", plural="ipamclaims", kind="IPAMClaim", namespaced=True
)

OnPodGone = Callable[[PodRef, str], None]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the node knows what it watches. `problems` says why not, a line each, for people."""

    pods_listed: bool
    definitions_listed: bool
    pods_current: bool
    definitions_current: bool
    problems: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Pods are known. Definitions are not needed: where their resource is not installed, no pod can name one."""
        return self.pods_listed


class KubernetesClient:
    """The API server as the node `node` sees it. Safe to share by threads.

    `recall` is asked for a pod when the API server does not answer and no watch has it: the node's own records (E20).
    `observe` is told of every attempt (request, status or 0, seconds); `on_trouble` of what goes wrong in the
    background, where nobody waits for an answer. With `remembered_seconds` 0 every question about a workload is asked
    live: for whoever decides by the answer, and not again before something changes. `objects` asks for any other
    resource, with the same deadlines.
    """

    def __init__(
        self,
        config: ApiConfig,
        *,
        node: str,
        deadline_seconds: float = DEADLINE_SECONDS,
        observe: Observe | None = None,
        on_trouble: Callable[[CniError], None] | None = None,
        timing: Timing = USUAL,
        remembered_seconds: float = REMEMBERED_SECONDS,
    ) -> None:
        self.recall: Callable[[PodRef], Pod | None] = lambda _ref: None
        self._sender = Sender(config, observe=observe)
        self._asker = Asker(self._sender, deadline_seconds=deadline_seconds)
        self._discovery = Discovery(self._asker)
        self.objects = KubernetesObjects(self._asker, on_trouble=on_trouble, timing=timing)
        self._on_pod_gone: list[OnPodGone] = []
        self._known_pods = Cache(decoding.decode_pod)
        self._known_definitions = Cache(decoding.decode_definition)
        self._pods = Watcher(
            "pods",
            self._sender,
            self._known_pods,
            list_page=lambda token, _version: requests.list_pods(node, continue_token=token),
            watch=lambda version, seconds: requests.watch_pods(node, version, timeout_seconds=seconds),
            on_gone=self._pod_gone,
            on_trouble=on_trouble,
            timing=timing,
        )
        self._definitions = Watcher(
            requests.DEFINITIONS,
            self._sender,
            self._known_definitions,
            list_page=lambda token, _version: requests.list_definitions(continue_token=token),
            watch=lambda version, seconds: requests.watch_definitions(version, timeout_seconds=seconds),
            on_trouble=on_trouble,
            timing=timing,
        )
        self._events = EventSender(self._sender, node, on_trouble=on_trouble)
        self._recent_pods = _Recent[PodRef, Pod](remembered_seconds)
        self._recent_workloads = _Recent[Workload, WorkloadState](remembered_seconds)
        self._met = _Met()

    # --- its life ---

    def start(self, *, watching: bool = True, seconds: float = START_SECONDS) -> None:
        """Begins to send events and to watch, and waits for the first lists no longer than `seconds`.

        Without `watching`, every question is asked live.
        """
        until = time.monotonic() + seconds
        self._events.start()
        watchers = (self._pods, self._definitions) if watching else ()
        for watcher in watchers:
            watcher.start()
        for watcher in watchers:
            watcher.listed.wait(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Sends the events that wait, for a short time, and ends the watches, those of `objects` too. Questions under
        way break off.
        """
        self._events.close(seconds=_FLUSH_SECONDS)
        watchers = (self._pods, self._definitions)
        for watcher in watchers:
            watcher.stop()
        self.objects.close()
        for watcher in watchers:
            watcher.join(_JOIN_SECONDS)

    def on_pod_gone(self, callback: OnPodGone) -> None:
        """`callback(ref, uid)` is called when the watch proves a pod of this node gone: it was deleted, or it is not
        in a complete list that follows. From the watch's thread: it must not wait for long.
        """
        self._on_pod_gone.append(callback)

    def health(self) -> Health:
        watchers = (self._pods, self._definitions)
        return Health(
            pods_listed=self._pods.listed.is_set(),
            definitions_listed=self._definitions.listed.is_set(),
            pods_current=self._pods.current(),
            definitions_current=self._definitions.current(),
            problems=tuple(str(w.problem) for w in watchers if w.problem is not None),
        )

    def definitions_seen(self) -> int:
        """How many definitions the watch knows."""
        return len(self._known_definitions)

    def pods_seen(self) -> int:
        """How many pods of this node the watch knows."""
        return len(self._known_pods)

    @property
    def events_dropped(self) -> int:
        """Events that never reached the API server."""
        return self._events.dropped

    # --- ports.Kubernetes ---

    def pod(self, ref: PodRef) -> Pod | None:
        return self.pod_with_uid(ref, "")

    def pod_now(self, ref: PodRef) -> Pod | None:
        found = self._find(requests.get_pod(ref), decoding.decode_pod)
        if found is None:
            self._recent_pods.forget(ref)
        else:
            self._recent_pods.put(ref, found)
        return found

    def pod_with_uid(self, ref: PodRef, uid: str) -> Pod | None:
        found = self._pod_with_uid(ref, uid)
        if found is not None and uid and self._met.is_new(found.uid) and found.owner is not None:
            # A pod is younger than what its workload was changed to before: no answer from before it counts.
            self._recent_workloads.forget_where(partial(_is_owner, found))
        return found

    def _pod_with_uid(self, ref: PodRef, uid: str) -> Pod | None:
        for known in (self._recent_pods.get(ref), self._watched_pod(ref)):
            if known is not None and _is_of(known, uid):
                return known
        try:
            return self.pod_now(ref)
        except TryAgainLater:
            watched = self._known_pods.get(ref.namespace, ref.name)
            if watched is not None and _is_of(watched, uid):
                return watched
            recalled = self.recall(ref)
            if recalled is not None and _is_of(recalled, uid):
                return recalled
            raise

    def workload(self, workload: Workload) -> WorkloadState | None:
        known = self._recent_workloads.get(workload)
        if known is not None:
            return known
        found = self._discovery.workload(workload)
        if found is not None:
            self._recent_workloads.put(workload, found)
        return found

    def node(self, name: str) -> NodeState | None:
        return self._find(requests.get_node(name), decoding.decode_node)

    def definition(self, namespace: str, name: str) -> NetworkDefinition | None:
        known = self._known_definitions.get(namespace, name)
        if known is not None and (self._definitions.current() or self._sender.failed_within(_FAILED_SECONDS)):
            return known
        try:
            return self._find(requests.get_definition(namespace, name), decoding.decode_definition)
        except TryAgainLater:
            if known is None:
                raise
            return known

    def ipam_claim(self, namespace: str, name: str) -> IpamClaim | None:
        found = self.objects.get(_IPAM_CLAIMS, name, namespace=namespace)
        return None if found is None else ipam_claims.decode(namespace, name, found.body)

    def write_annotations(self, ref: PodRef, uid: str, annotations: Mapping[str, str]) -> bool:
        request = requests.patch_pod_annotations(ref, uid, annotations)
        answer = self._asker.ask(request)
        if answer.code == 200:
            return True
        if errors.is_absence(request, answer.code, answer.body):
            return False
        if uid and errors.may_be_another(answer.code, answer.body):
            now = self.pod_now(ref)
            if now is None or now.uid != uid:
                return False
        raise errors.refused(request, answer.code, answer.body, place=self._sender.place)

    def emit(self, event: Event) -> None:
        self._events.emit(event)

    # --- the rest ---

    def _watched_pod(self, ref: PodRef) -> Pod | None:
        if self._pods.current() or self._sender.failed_within(_FAILED_SECONDS):
            return self._known_pods.get(ref.namespace, ref.name)
        return None

    def _find(self, request: Request, decode: Callable[[bytes], T]) -> T | None:
        """The object, or None when the API server says that it is not there."""
        body = self._asker.find(request)
        return None if body is None else decode(body)

    def _pod_gone(self, identity: Identity) -> None:
        ref = PodRef(identity.namespace, identity.name)
        recent = self._recent_pods.get(ref)
        if recent is not None and recent.uid == identity.uid:
            self._recent_pods.forget(ref)
        for callback in self._on_pod_gone:
            callback(ref, identity.uid)


class _Recent(Generic[K, T]):
    """Positive answers of the last moment: one pod's interfaces ask the same things one after the other."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._answers: dict[K, tuple[float, T]] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> T | None:
        with self._lock:
            at, answer = self._answers.get(key, (0.0, None))
        return answer if answer is not None and time.monotonic() - at < self._seconds else None

    def put(self, key: K, answer: T) -> None:
        """Answers come in the order of time, so that the oldest are first."""
        now = time.monotonic()
        with self._lock:
            self._answers.pop(key, None)
            self._answers[key] = (now, answer)
            while self._answers and now - next(iter(self._answers.values()))[0] >= self._seconds:
                del self._answers[next(iter(self._answers))]

    def forget(self, key: K) -> None:
        with self._lock:
            self._answers.pop(key, None)

    def forget_where(self, condition: Callable[[K], bool]) -> None:
        with self._lock:
            for key in [key for key in self._answers if condition(key)]:
                del self._answers[key]


class _Met:
    """The pods that were asked for lately, by UID."""

    def __init__(self) -> None:
        self._uids: dict[str, None] = {}
        self._lock = threading.Lock()

    def is_new(self, uid: str) -> bool:
        """Only the first time that it is asked."""
        with self._lock:
            is_new = uid not in self._uids
            self._uids[uid] = None
            while len(self._uids) > _MET_MAX:
                del self._uids[next(iter(self._uids))]
            return is_new


def _is_owner(pod: Pod, workload: Workload) -> bool:
    return pod.owner is not None and (workload.namespace, workload.name) == (pod.ref.namespace, pod.owner.name)


def _is_of(pod: Pod, uid: str) -> bool:
    return not uid or pod.is_known_as(uid)
