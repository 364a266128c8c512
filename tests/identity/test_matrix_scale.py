"""E24 of the conformance matrix (docs/identity.md): a whole pool for one workload. The allocation path alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from homeport import wiring
from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.ipam.identities import Workload
from homeport.lab.cluster import LabCluster
from homeport.lab.objects import NodeObject, PodObject, WorkloadObject, WorkloadSpec
from homeport.model.names import PodRef
from homeport.plugins import whereabouts

if TYPE_CHECKING:
    from tests.identity.shapes import Shape

T = TypeVar("T")
REPLICAS = 1000
AT_ONCE = 16
WEB = Workload("shop", "StatefulSet", "web")


class Crowd:
    """A thousand replicas and what they were given."""

    def __init__(self, shape: Shape, directory: Path) -> None:
        self._shape = shape
        self._cluster = LabCluster()
        self._shells = wiring.build_shells(
            netns=None, node="node-1", cluster=self._cluster, store=str(directory / "allocations.db")
        )
        self._store = self._shells.open_allocations(None)

    def start(self, generation: int) -> Mapping[int, tuple[str, ...]]:
        """ADD of all, in no order, many at once; every replica's addresses."""
        self._cluster.refresh(
            [WorkloadObject(spec=WorkloadSpec(workload=WEB, replicas=REPLICAS), uid="w", revision="r")],
            [_pod(n, generation) for n in range(REPLICAS)],
            [NodeObject(name="node-1")],
        )
        return dict(self._all(lambda n: (n, self._add(n, generation))))

    def restart(self, generation: int) -> Mapping[int, tuple[str, ...]]:
        """Every replica's DEL, then all start again."""
        self._all(lambda n: self._delete(n, generation - 1))
        return self.start(generation)

    def allocated(self) -> int:
        return sum(1 for _ in self._store.all())

    def _all(self, work: Callable[[int], T]) -> list[T]:
        """`work` for every ordinal."""
        ordinals = random.sample(range(REPLICAS), REPLICAS)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(work, ordinals))

    def _add(self, n: int, generation: int) -> tuple[str, ...]:
        return tuple(
            str(ip.address.ip)
            for ifname, conf in self._networks()
            for ip in whereabouts.add(conf, _attachment(n, generation, ifname), self._shells).ips
        )

    def _delete(self, n: int, generation: int) -> None:
        for ifname, conf in self._networks():
            whereabouts.delete(conf, _attachment(n, generation, ifname), self._shells)

    def _networks(self) -> list[tuple[str, netconfs.NetConf]]:
        found = []
        for i, name in enumerate(self._shape.networks, start=1):
            ranges = self._shape.ranges(name, REPLICAS)
            ipam = {"type": "whereabouts", "ipRanges": ranges}
            conf = {"cniVersion": "1.0.0", "name": name, "type": "macvlan", "ipam": ipam}
            found.append((f"net{i}", netconfs.parse(conf)))
        return found


def _pod(n: int, generation: int) -> PodObject:
    return PodObject(
        ref=PodRef("shop", f"web-{n}"),
        uid=f"{n}-{generation}",
        workload=WEB,
        workload_uid="w",
        ordinal=n,
        node="node-1",
    )


def _attachment(n: int, generation: int, ifname: str) -> Attachment:
    pod = _pod(n, generation)
    args = {"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": pod.ref.name, "K8S_POD_UID": pod.uid}
    return Attachment(
        container_id=f"c{pod.uid}", ifname=ifname, netns_path=f"/run/netns/none-{pod.uid}", args=args, path=("/",)
    )


def test_e24_a_thousand_replicas_and_a_thousand_addresses(shape: Shape, tmp_path: Path) -> None:
    crowd = Crowd(shape, tmp_path)
    expected = {
        n: tuple(address for addresses in shape.numbered(n).values() for address in addresses) for n in range(REPLICAS)
    }
    assert crowd.start(1) == expected
    assert crowd.restart(2) == expected
    assert crowd.allocated() == REPLICAS * shape.interfaces * (2 if shape.dual else 1)
