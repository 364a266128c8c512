"""A stand-in for the kubelet of one node: from pods bound to it to sandboxes, and back. I/O: the API server, `Runtime`.

It does what a CNI plugin can tell apart from a real one: a failed ADD is followed by DEL and a new container ID, DEL is
repeated until it succeeds, and a pod's object goes only after that. It starts no containers: a pod with its network is
Running and Ready. Each pod has a thread; any number of kubelets may live in one process.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from homeport.model.errors import CniError
from homeport.wiring import prepare_for_threads
from testcluster.access import Access
from testcluster.api import STRATEGIC, Api, ApiError, Json, NotReached, Watch
from testcluster.machines import IpFailed, Machine
from testcluster.nodes import NodeObject, running_status
from testcluster.sandboxes import Runtime, Sandbox

_EVENT_MAX = 1024  # characters of an event's message
_FAILURES = (CniError, ApiError, NotReached, IpFailed)


@dataclass(frozen=True)
class Failed:
    """A step on a pod that will be tried again."""

    pod: str  # namespace/name
    error: Exception


class Kubelet:
    """Of the node `machine`. `failures` grows with each step that failed.

    `heartbeat_seconds` is how often it tells that it lives, `retry_seconds` how long it waits after a failure.
    """

    def __init__(
        self,
        machine: Machine,
        access: Access,
        runtime: Runtime,
        *,
        heartbeat_seconds: float = 2.0,
        retry_seconds: float = 0.3,
    ) -> None:
        self.name = machine.name
        self.machine = machine
        self.runtime = runtime
        self.failures: list[Failed] = []
        self.retry_seconds = retry_seconds
        self._api = Api(access)
        self._node = NodeObject(machine.name, machine.address, self._api)
        self._heartbeat_seconds = heartbeat_seconds
        self._stopping = threading.Event()
        self._connected = threading.Event()
        self._connected.set()
        self._lock = threading.Lock()
        self._workers: dict[str, _PodWorker] = {}  # by the pod's UID
        self._watch: Watch | None = None
        self._threads: list[threading.Thread] = []

    # --- its life --------------------------------------------------------------------------------------------------

    def start(self, seconds: float = 30.0) -> None:
        """Registers the node; returns when the scheduler may use it.

        The node is ready while its configuration directory holds a network. Without one, this returns at once.
        """
        prepare_for_threads()
        self._node.register()
        for sandbox in self.runtime.sandboxes():  # of the kubelet before
            self._worker(sandbox.pod_uid, f"{sandbox.namespace}/{sandbox.name}", sandbox if sandbox.ready else None)
        ready = self._tell()
        for name, loop in (("heartbeat", self._beat), ("pods", self._follow)):
            thread = threading.Thread(target=loop, name=f"{self.name}-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        if ready:
            wait_for(self._node.is_schedulable, seconds, f"node {self.name} is schedulable")

    def stop(self) -> None:
        """Ends when plugins that run have ended; sandboxes stay, as when a kubelet is restarted. Idempotent."""
        for thread in self._end():
            thread.join()
        self._api.close()

    def kill(self) -> None:
        """The node loses power: every process on it dies, namespaces and links are gone, its disk stays. Idempotent."""
        threads = self._end()

        def have_ended() -> bool:  # each may wait for a plugin, or be about to start one
            for thread in threads:
                thread.join(0.01)
            return not any(thread.is_alive() for thread in threads)

        self.machine.power_off(have_ended)
        self.stop()
        self.runtime.lose_all()

    def _end(self) -> list[threading.Thread]:
        """Tells every thread to end."""
        self._stopping.set()
        self._connected.set()
        self._close_watch()
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.wake()
        return [*self._threads, *(worker.thread for worker in workers)]

    def partition(self) -> None:
        """It and the API server no longer hear each other; pods run on."""
        self._connected.clear()
        self._close_watch()

    def heal(self) -> None:
        """Ends `partition`."""
        self._connected.set()

    # --- its pods --------------------------------------------------------------------------------------------------

    def sandbox(self, namespace: str, name: str) -> Sandbox | None:
        """Of the newest pod of that name, once its network is made."""
        worker = self._newest(f"{namespace}/{name}")
        return worker.sandbox if worker else None

    def sandboxes(self) -> list[Sandbox]:
        """Of all pods that have their network."""
        with self._lock:
            return [worker.sandbox for worker in self._workers.values() if worker.sandbox]

    def restart_sandbox(self, namespace: str, name: str) -> None:
        """The same pod gets a new container: DEL of the old one, then ADD. Returns at once."""
        worker = self._newest(f"{namespace}/{name}")
        assert worker, f"{self.name} has no pod {namespace}/{name}"
        worker.restart()

    def force_delete(self, namespace: str, name: str) -> None:
        """Removes the pod's object at once, as `kubectl delete --force` does; its sandbox is removed after that."""
        self._api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", grace_seconds=0)

    # --- loops -----------------------------------------------------------------------------------------------------

    def api(self) -> Api:
        """Raises `NotReached` while partitioned."""
        if not self._connected.is_set():
            raise NotReached(f"{self.name} is partitioned")
        return self._api

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def _beat(self) -> None:
        while not self._stopping.wait(self._heartbeat_seconds):
            try:
                self.api()
                self._tell()
                self._node.renew_lease()
            except (ApiError, NotReached):
                continue

    def _tell(self) -> bool:
        """Reports whether the node is ready, and returns it."""
        try:
            self.runtime.network()
            reason = ""
        except CniError as error:
            reason = str(error)
        self._node.report(ready=not reason, reason=reason)
        return not reason

    def _follow(self) -> None:
        """Lists and watches its pods for ever."""
        mine = {"fieldSelector": f"spec.nodeName={self.name}"}
        while not self._stopping.is_set():
            self._connected.wait()
            try:
                listing = self.api().get("/api/v1/pods", **mine)
                self._replace(listing["items"])
                version = listing["metadata"]["resourceVersion"]
                self._watch = self.api().watch("/api/v1/pods", resourceVersion=version, **mine)
                if self._stopping.is_set() or not self._connected.is_set():
                    self._close_watch()
                for event in self._watch:
                    if event["type"] == "ERROR":
                        break
                    self._take(event["object"], gone=event["type"] == "DELETED")
            except (ApiError, NotReached):
                self._stopping.wait(self.retry_seconds)
            finally:
                self._close_watch()

    def _close_watch(self) -> None:
        watch = self._watch
        if watch:
            watch.close()

    def _replace(self, pods: Iterable[Json]) -> None:
        """A whole list: what is not in it is gone."""
        listed = {pod["metadata"]["uid"]: pod for pod in pods}
        with self._lock:
            missing = [worker for uid, worker in self._workers.items() if uid not in listed]
        for worker in missing:
            worker.take(None)
        for pod in listed.values():
            self._take(pod, gone=False)

    def _take(self, pod: Json, *, gone: bool) -> None:
        metadata = pod["metadata"]
        if gone and metadata["uid"] not in self._workers:
            return
        self._worker(metadata["uid"], f"{metadata['namespace']}/{metadata['name']}").take(None if gone else pod)

    def _worker(self, uid: str, ref: str, sandbox: Sandbox | None = None) -> _PodWorker:
        with self._lock:
            worker = self._workers.get(uid)
            if worker is None:
                worker = self._workers[uid] = _PodWorker(self, uid, ref, sandbox)
                worker.thread.start()
            return worker

    def _newest(self, ref: str) -> _PodWorker | None:
        with self._lock:
            return next((worker for worker in reversed(self._workers.values()) if worker.ref == ref), None)

    def forget(self, uid: str) -> None:
        """A pod's worker has done all."""
        with self._lock:
            self._workers.pop(uid, None)


class _PodWorker:
    """Brings one pod's sandbox to what the API server wants of it, again and again until that is done."""

    def __init__(self, kubelet: Kubelet, uid: str, ref: str, sandbox: Sandbox | None) -> None:
        self.ref = ref
        self.sandbox = sandbox
        self.thread = threading.Thread(target=self._run, name=f"{kubelet.name}-{ref}", daemon=True)
        self._kubelet = kubelet
        self._uid = uid
        self._pod: Json | None = None
        self._known = False  # whether the API server's word on the pod has come
        self._told = ""  # of an ADD that failed, the last
        self._reported = ""  # the container whose addresses are in the pod's status
        self._restart = False
        self._changed = threading.Event()

    def take(self, pod: Json | None) -> None:
        """The pod as it is now; None when there is none with this UID any more."""
        self._pod, self._known = pod, True
        self._changed.set()

    def restart(self) -> None:
        self._restart = True
        self._changed.set()

    def wake(self) -> None:
        self._changed.set()

    def _run(self) -> None:
        while not self._kubelet.is_stopping:
            self._changed.clear()
            if self._kubelet.is_stopping:  # it woke us before the line above
                return
            try:
                if self._known and self._advance():
                    self._kubelet.forget(self._uid)
                    return
                self._changed.wait()
            except _FAILURES as error:
                if not self._kubelet.is_stopping:
                    self._kubelet.failures.append(Failed(self.ref, error))
                self._changed.wait(self._kubelet.retry_seconds)

    def _advance(self) -> bool:
        """One pass; whether nothing is left to do for ever."""
        pod = self._pod
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            self._remove()
            if pod is not None:
                self._kubelet.api().delete(_path(pod), grace_seconds=0, uid=self._uid)
            return True
        if self._restart or (self.sandbox and not self.sandbox.exists):
            self._remove()
            self._restart = False
        if self.sandbox is None:
            self._remove()  # what a failed ADD could not undo
            try:
                self.sandbox = self._kubelet.runtime.run_sandbox(pod)
            except CniError as error:
                self._report_failure(pod, f"Failed to create pod sandbox: {error}"[:_EVENT_MAX])
                raise
        is_forgotten = pod["status"].get("phase") == "Pending"  # as after a restored backup, or when it was never told
        if self._reported != self.sandbox.container_id or is_forgotten:
            status = running_status(pod, self.sandbox.addresses, self._kubelet.machine.address)
            self._kubelet.api().patch(f"{_path(pod)}/status", status, STRATEGIC)
            self._reported = self.sandbox.container_id
        return False

    def _report_failure(self, pod: Json, message: str) -> None:
        """The event people read in `kubectl describe pod`. The same words are told once."""
        if message == self._told:
            return
        metadata = pod["metadata"]
        involved = {"kind": "Pod", **{key: metadata[key] for key in ("namespace", "name", "uid")}}
        event = {
            "metadata": {"name": f"{metadata['name']}.{secrets.token_hex(8)}"},
            "involvedObject": {"apiVersion": "v1", **involved},
            "type": "Warning",
            "reason": "FailedCreatePodSandBox",
            "message": message,
            "source": {"component": "kubelet", "host": self._kubelet.name},
        }
        with suppress(ApiError, NotReached):  # as events are: nobody waits for them
            self._kubelet.api().create(f"/api/v1/namespaces/{metadata['namespace']}/events", event)
            self._told = message

    def _remove(self) -> None:
        """Every sandbox the pod has; none is forgotten before its DEL succeeded."""
        for sandbox in self._kubelet.runtime.sandboxes():
            if sandbox.pod_uid == self._uid:
                self._kubelet.runtime.stop_sandbox(sandbox)
        self.sandbox = None


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Until it is true; `AssertionError` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds:g} s: {what}"
        time.sleep(0.02)


def _path(pod: Json) -> str:
    metadata: dict[str, Any] = pod["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
