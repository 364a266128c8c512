"""Three nodes that share a store, on which the whereabouts plugin is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.stand_ins import Neighbourhood, StandingClock, World, attachment_of, netconf, shells_on

from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.ipam.identities import Workload
from homeport.ipam.objects import Pod
from homeport.model.errors import LinkExists
from homeport.model.names import PodRef
from homeport.plugins import whereabouts
from homeport.ports import AllocationStore, Shells
from homeport.stores.memory import MemoryStore

POOL = {"range": "10.93.96.0/20", "range_start": "10.93.97.12", "range_end": "10.93.97.21"}
DUAL = {**POOL, "ipRanges": [{"range": "fd00:93::/64"}]}


class Cluster:
    """Three nodes that share a store, and the containers of their pods."""

    def __init__(self, ipam: Mapping[str, Any] = POOL, *, store: AllocationStore | None = None) -> None:
        self.world = World()
        self.clock = StandingClock()
        self.store = store or MemoryStore(now=self.clock.now)
        self.probe = Neighbourhood()
        self.conf = netconf(ipam)
        self.running: dict[PodRef, list[Attachment]] = {}
        self._containers = 0

    def add(self, pod: Pod, *, conf: NetConf | None = None, ifname: str = "net1", **args: str) -> list[str]:
        """ADD in a new container of the pod; the addresses without prefix."""
        self._containers += 1
        attachment = attachment_of(pod, f"c{self._containers}", ifname=ifname, **args)
        self.running.setdefault(pod.ref, []).append(attachment)
        return self.repeat(attachment, pod, conf=conf)

    def repeat(self, attachment: Attachment, pod: Pod, *, conf: NetConf | None = None) -> list[str]:
        result = whereabouts.add(conf or self.conf, attachment, self.shells(pod.node))
        return [str(ip.address.ip) for ip in result.ips]

    def delete(self, pod: Pod, *, conf: NetConf | None = None) -> None:
        """DEL of every container of the pod's name."""
        for attachment in self.running.pop(pod.ref, []):
            whereabouts.delete(conf or self.conf, attachment, self.shells(pod.node))

    def replica(self, workload: Workload, ordinal: int, *, node: str = "n1", **keys: Any) -> list[str]:
        """The replica's pod, as new, and its addresses."""
        return self.add(self.world.start(workload, ordinal, node=node), **keys)

    def stop(self, workload: Workload, ordinal: int) -> None:
        self.delete(self.world.pods[PodRef(workload.namespace, f"{workload.name}-{ordinal}")])

    def stranger(self, name: str) -> list[str]:
        return self.add(self.world.start_stranger(name))

    def shells(self, node: str) -> Shells:
        return shells_on(node, self.store, world=self.world, clock=self.clock, probe=self.probe)

    def phases(self) -> dict[str, str]:
        return {str(a.address): a.phase.value for a in self.store.all()}


def add_and_fail(cluster: Cluster, attachment: Attachment, shells: Shells) -> list[str]:
    """An interface plugin whose IPAM succeeds and whose own work does not; the addresses it had for a moment."""
    addresses: list[str] = []

    def fail() -> None:
        with shells.host.operation():
            addresses.extend(str(ip.address.ip) for ip in whereabouts.add(cluster.conf, attachment, shells).ips)
            raise LinkExists("create link")

    with pytest.raises(LinkExists):
        fail()
    return addresses
