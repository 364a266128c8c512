"""A node's allocation store and the pods that claim from it: what `benchmarks.cluster` measures, and one of its nodes.

`python -m benchmarks.claimant KUBECONFIG NODE COUNT WHO RANGE` claims COUNT addresses when it is told to by a line on
its standard input, and prints what came of that as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path

import msgspec
from benchmarks.leased import LeasedNode, Lost
from tests.stand_ins_whereabouts import StorageEngineError

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.files import LocalFiles
from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.kube import configs
from homeport.kube.asking import DEADLINE_SECONDS
from homeport.kube.objects import KubernetesObjects
from homeport.model.errors import CniError, TryAgainLater
from homeport.model.names import PodRef
from homeport.plugins import whereabouts
from homeport.stores.claims import Claims
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.nodes import NodeStore
from homeport.wiring import build_shells

RANGE = "10.64.0.0/15"
OURS, LEASED = "ours", "Whereabouts' requests"
PATIENT = 60.0  # seconds that Whereabouts' client would wait for one answer
SECONDS = 40.0  # for a share of many addresses
WEB = Workload("bench", "StatefulSet", "web")


class Known:
    """The cluster as a daemon's watch knows it: pods and a workload, no question asked."""

    def __init__(self) -> None:
        self.pods: dict[PodRef, Pod] = {}
        self._state = WorkloadState(workload=WEB, uid="web", replicas=200_000)

    def pod(self, ref: PodRef) -> Pod | None:
        return self.pods.get(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        return self.pods.get(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        return self._state if workload == WEB else None

    def node(self, name: str) -> NodeState | None:
        return NodeState(name=name)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one node got of many addresses claimed at once."""

    addresses: list[str]
    ms: list[float]
    failures: list[str]


class Claimant:
    """One node's IPAM plugin over its store in the cluster."""

    def __init__(
        self,
        kubeconfig: Path,
        node: str,
        folder: Path,
        range_: str = RANGE,
        *,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        config = configs.load(str(kubeconfig), {}, LocalFiles())
        assert config is not None
        self.objects = KubernetesObjects.connect(config, deadline_seconds=deadline_seconds)
        self.remote = KubernetesStore(self.objects)
        self.remote.start()
        self.store = NodeStore(self.remote, Claims(folder / f"{node}.db"), node=node)
        self._known = Known()
        self._conf = _conf(range_)
        shells = build_shells(node=node, cluster=self._known)
        self._shells = msgspec.structs.replace(shells, open_allocations=lambda _path: self.store)

    def connect(self) -> None:
        """So that the first claim finds a connection; many processes that start at once may keep each other waiting."""
        until = time.monotonic() + PATIENT
        while True:
            try:
                self.remote.get("", ip_address("10.64.0.1"))
            except TryAgainLater:
                if time.monotonic() > until:
                    raise
            else:
                return

    def pod(self, name: str, *, is_replica: bool = False) -> Pod:
        """A pod of the node, as its watch tells of it."""
        owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="web", uid="web") if is_replica else None
        pod = Pod(ref=PodRef("bench", name), uid=f"uid-{name}", owner=owner)
        self._known.pods[pod.ref] = pod
        return pod

    def add(self, pod: Pod, container_id: str) -> str:
        """The address."""
        result = whereabouts.add(self._conf, _attachment(pod, container_id), self._shells)
        return str(result.ips[0].address.ip)

    def delete(self, pod: Pod, container_id: str) -> None:
        whereabouts.delete(self._conf, _attachment(pod, container_id), self._shells)

    def deliver(self) -> None:
        """What the daemon does in the background."""
        while self.store.deliver():
            pass

    def close(self) -> None:
        self.objects.close()
        self.store.claims.close()


def _conf(range_: str) -> NetConf:
    ipam = {"type": "whereabouts", "range": range_}
    return netconfs.parse(
        json.dumps({"cniVersion": "1.0.0", "name": "pool", "type": "macvlan", "master": "eth1", "ipam": ipam}).encode()
    )


def _attachment(pod: Pod, container_id: str) -> Attachment:
    named = {"K8S_POD_NAMESPACE": pod.ref.namespace, "K8S_POD_NAME": pod.ref.name, "K8S_POD_UID": pod.uid}
    return Attachment(container_id=container_id, ifname="net1", netns_path=f"/run/netns/{container_id}", args=named)


def _share(claimant: Claimant, node: str, count: int, who: str, range_: str) -> Share:
    """One after the other, as far as the time goes."""
    leased = LeasedNode(claimant.objects, range_, node)
    share = Share(addresses=[], ms=[], failures=[])
    until = time.monotonic() + SECONDS
    for n in range(count):
        began = time.monotonic()
        if began > until:
            break
        name = f"{node}-{n}"
        try:
            if who == OURS:
                share.addresses.append(claimant.add(claimant.pod(name), name))
            else:
                share.addresses.append(str(leased.add(name, f"bench/{name}")[0]))
        except (CniError, StorageEngineError, Lost) as e:
            share.failures.append(str(e) or type(e).__name__)
        else:
            share.ms.append((time.monotonic() - began) * 1000)
    return share


def main() -> None:
    kubeconfig, node, count, who, range_ = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="hpb-") as folder:
        patience = DEADLINE_SECONDS if who == OURS else PATIENT
        claimant = Claimant(Path(kubeconfig), node, Path(folder), range_, deadline_seconds=patience)
        claimant.connect()
        print("ready", flush=True)
        sys.stdin.readline()
        print(msgspec.json.encode(_share(claimant, node, int(count), who, range_)).decode(), flush=True)
        claimant.close()


if __name__ == "__main__":
    main()
