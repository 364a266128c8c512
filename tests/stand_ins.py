"""A cluster, a clock and files made of plain values, and the shells of one node among them.

The kernel is the real one: only its operations and their undoing are used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.files import LocalFiles
from homeport.host.kernel import Kernel
from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import TryAgainLater
from homeport.model.names import PodRef
from homeport.ports import AllocationStore, Delegates, FileAllocations, Shells

START = datetime(2026, 1, 1, tzinfo=UTC)


class StandingClock:
    """Time that passes only by `sleep` and `advance`."""

    def __init__(self) -> None:
        self._passed = timedelta()

    def now(self) -> datetime:
        return START + self._passed

    def monotonic(self) -> float:
        return self._passed.total_seconds()

    def sleep(self, seconds: float) -> None:
        self._passed += timedelta(seconds=seconds)

    def advance(self, **span: float) -> None:
        self._passed += timedelta(**span)


class World:
    """An API server: what is in it was created, what is not is "not found". `unreachable` makes every question fail.

    `seen` are pods that a watch still shows though they are gone or replaced.
    """

    def __init__(self) -> None:
        self.pods: dict[PodRef, Pod] = {}
        self.seen: dict[PodRef, Pod] = {}
        self.workloads: dict[Workload, WorkloadState] = {}
        self.nodes: dict[str, NodeState] = {name: NodeState(name=name) for name in ("n1", "n2", "n3")}
        self.unreachable = False
        self._uids = 0

    def pod(self, ref: PodRef) -> Pod | None:
        return self.seen.get(ref) or self.pod_now(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        self._require_reachable()
        return self.pods.get(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        self._require_reachable()
        return self.workloads.get(workload)

    def node(self, name: str) -> NodeState | None:
        self._require_reachable()
        return self.nodes.get(name)

    def uid(self) -> str:
        self._uids += 1
        return f"uid-{self._uids}"

    def scale(
        self,
        name: str,
        replicas: int,
        *,
        start: int = 0,
        annotations: Mapping[str, str] | None = None,
        namespace: str = "ns",
    ) -> Workload:
        """A StatefulSet of so many replicas, the object it was if it is there already; pods are made by `start`."""
        workload = Workload(namespace, "StatefulSet", name)
        known = self.workloads.get(workload)
        self.workloads[workload] = WorkloadState(
            workload=workload,
            uid=known.uid if known else self.uid(),
            replicas=replicas,
            ordinals_start=start,
            annotations=annotations if annotations is not None else known.annotations if known else {},
        )
        return workload

    def start(self, workload: Workload, ordinal: int, *, node: str = "n1") -> Pod:
        """The replica's pod: a new one, whatever was there under its name."""
        state = self.workloads[workload]
        pod = Pod(
            ref=PodRef(workload.namespace, f"{workload.name}-{ordinal}"),
            uid=self.uid(),
            node=node,
            owner=OwnerReference(api_version="apps/v1", kind="StatefulSet", name=workload.name, uid=state.uid),
            annotations=state.annotations,
        )
        self.pods[pod.ref] = pod
        return pod

    def start_stranger(self, name: str, *, namespace: str = "ns", node: str = "n1") -> Pod:
        """A pod of no workload that has replicas."""
        pod = Pod(ref=PodRef(namespace, name), uid=self.uid(), node=node)
        self.pods[pod.ref] = pod
        return pod

    def _require_reachable(self) -> None:
        if self.unreachable:
            raise TryAgainLater("ask the cluster: unreachable")


class Neighbourhood:
    """A `Probe`: who answers for what."""

    def __init__(self) -> None:
        self.answering: dict[IPAddress, MacAddress] = {}
        self.asked: list[tuple[IPAddress, str]] = []

    def answers(
        self, address: IPAddress, *, link: str, netns: str | None = None, timeout_seconds: float = 0.5
    ) -> MacAddress | None:
        self.asked.append((address, link))
        return self.answering.get(address)


class Drawer:
    """`Files` out of a dictionary; logs are written for real."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self.contents = dict(contents or {})

    def read(self, path: str | Path) -> bytes | None:
        return self.contents.get(str(path))

    def list(self, path: str | Path) -> tuple[str, ...] | None:
        below = tuple(sorted(name.rpartition("/")[2] for name in self.contents if name.startswith(f"{path}/")))
        return below or None

    def append(self, path: str | Path, text: str, *, max_bytes: int) -> None:
        LocalFiles().append(path, text, max_bytes=max_bytes)


def shells_on(
    node: str,
    store: AllocationStore,
    *,
    world: World | None = None,
    clock: StandingClock | None = None,
    probe: Neighbourhood | None = None,
    files: Drawer | None = None,
    host: Kernel | None = None,
) -> Shells:
    """What a plugin of that node acts on. Without a world there is no cluster."""

    def no_files(data_dir: str, network: str) -> FileAllocations:
        raise AssertionError("whereabouts keeps nothing in host-local's files")

    return Shells(
        host=host or Kernel(),
        probe=probe or Neighbourhood(),
        clock=clock or StandingClock(),
        files=files or Drawer(),
        delegates=cast(Delegates, None),
        open_allocations=lambda path: store,
        open_file_allocations=no_files,
        cluster=world,
        node=node,
    )


def netconf(ipam: Mapping[str, Any] | None = None, **keys: Any) -> NetConf:
    """A macvlan network whose addresses are whereabouts'."""
    raw = {"cniVersion": "1.1.0", "name": "multustest", "type": "macvlan", "master": "eth1", **keys}
    raw["ipam"] = {"type": "whereabouts", **(ipam or {})}
    return netconfs.parse(msgspec.json.encode(raw))


def attachment_of(
    pod: Pod | None, container_id: str, *, ifname: str = "net1", netns_path: str = "", **args: str
) -> Attachment:
    """The attachment a runtime makes for a pod's sandbox."""
    named: dict[str, str] = {}
    if pod is not None:
        named = {"K8S_POD_NAMESPACE": pod.ref.namespace, "K8S_POD_NAME": pod.ref.name, "K8S_POD_UID": pod.uid}
    return Attachment(
        container_id=container_id,
        ifname=ifname,
        netns_path=netns_path or f"/run/netns/{container_id}",
        args={**named, **args},
    )
