"""What the node itself knows of its pods, for the time without the API server (docs/identity.md E20). I/O: files.

`<stateDir>/pods/<podUID>`, one file a pod whose ADD succeeded here: the pod and its workload as they were then, its
delegates, and its status, which may still have to be delivered. A record goes when its pod is proven gone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from homeport.cni import documents
from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.model.errors import CniError, DecodeFailure, TryAgainLater
from homeport.model.names import PodRef, is_identifier
from homeport.multinet import scratch
from homeport.multinet.delegates import Delegate
from homeport.ports import Cluster
from homeport.runtime import node_files


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`uid` is what the kubelet calls the pod; it is not `pod.uid` where that is a static pod's mirror.

    `container_id` is the sandbox of the last ADD, `delegates` its scratch file's text. `status` is the annotation's
    value, `delivered` whether the API server has taken it, or has said that the pod is gone.
    """

    uid: str
    pod: Pod
    container_id: str
    delegates: bytes
    status: str = ""
    delivered: bool = True
    workload: WorkloadState | None = None

    def decoded_delegates(self) -> tuple[Delegate, ...]:
        """Raises `DecodeFailure`."""
        return scratch.decode(self.delegates, container_id=self.container_id, main_ifname="")


class PodRecords:
    """The records of one node. Used by several threads at once.

    A file that cannot be read is as none: its pod is then asked of the API server again.
    """

    def __init__(self, state_dir: str | Path) -> None:
        self._directory = Path(state_dir) / "pods"
        self._lock = threading.Lock()
        self._known: dict[str, PodRecord] | None = None

    def put(self, record: PodRecord) -> None:
        """Replaces the pod's record, on disk first."""
        with self._lock:
            known = self._loaded()
            node_files.replace(self._path(record.uid), msgspec.json.encode(record))
            known.pop(record.uid, None)  # so that the newest is the last
            known[record.uid] = record

    def find(self, uid: str) -> PodRecord | None:
        """By the kubelet's UID of the pod."""
        with self._lock:
            return self._loaded().get(uid)

    def recall(self, ref: PodRef) -> PodRecord | None:
        """The newest of this name."""
        with self._lock:
            return next((r for r in reversed(self._loaded().values()) if r.pod.ref == ref), None)

    def undelivered(self) -> Sequence[PodRecord]:
        """Those whose status is still to be delivered."""
        with self._lock:
            return [record for record in self._loaded().values() if not record.delivered]

    def mark_delivered(self, record: PodRecord) -> None:
        """Unless another ADD has put a newer record in its place."""
        with self._lock:
            if self._loaded().get(record.uid) == record:
                delivered = msgspec.structs.replace(record, delivered=True)
                node_files.replace(self._path(record.uid), msgspec.json.encode(delivered))
                self._loaded()[record.uid] = delivered

    def forget(self, uid: str) -> None:
        """Of a pod that is proven gone, under either of its UIDs; idempotent."""
        with self._lock:
            known = self._loaded()
            for name in {uid, *(r.uid for r in known.values() if uid in (r.uid, r.pod.uid))}:
                node_files.remove(self._path(name))
                known.pop(name, None)

    def all(self) -> Sequence[PodRecord]:
        """Every pod that was added here and is not proven gone."""
        with self._lock:
            return list(self._loaded().values())

    def _loaded(self) -> dict[str, PodRecord]:
        if self._known is None:
            self._known = {record.uid: record for record in self._read_all()}
        return self._known

    def _read_all(self) -> Iterator[PodRecord]:
        for name in node_files.names(self._directory):
            path = self._directory / name
            try:
                contents = node_files.read(path)
                record = None if contents is None else _decode(contents, path)
            except CniError:
                continue
            if record is not None and record.uid == name:
                yield record

    def _path(self, uid: str) -> Path:
        if not is_identifier(uid):
            raise DecodeFailure(f"name record of pod: found UID {documents.shown(uid)}, expected a file name")
        return self._directory / uid


class RecordedCluster:
    """`ports.Cluster` for the plugins of one request: the cluster's word, or while it is away that of the pod's record.

    `workload_seen` is the last workload the cluster told of, for the record that will be made.
    """

    def __init__(self, cluster: Cluster, record: PodRecord | None) -> None:
        self._cluster = cluster
        self._record = record
        self.workload_seen = record.workload if record is not None else None

    def pod(self, ref: PodRef) -> Pod | None:
        try:
            return self._cluster.pod(ref)
        except TryAgainLater:
            if self._record is None or self._record.pod.ref != ref:
                raise
            return self._record.pod

    def pod_now(self, ref: PodRef) -> Pod | None:
        return self._cluster.pod_now(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        try:
            state = self._cluster.workload(workload)
        except TryAgainLater:
            recorded = self._record.workload if self._record is not None else None
            if recorded is None or recorded.workload != workload:
                raise
            return recorded
        self.workload_seen = state or self.workload_seen
        return state

    def node(self, name: str) -> NodeState | None:
        return self._cluster.node(name)


def _decode(contents: bytes, path: Path) -> PodRecord:
    return documents.convert(documents.decode(contents, f"record {path}"), PodRecord, error=DecodeFailure)
