"""R9 on a bridge: a replica's MAC address moves with its address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.host.kernel import Kernel
from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.model.names import PodRef
from homeport.model.results import Result
from homeport.plugins import bridge
from homeport.wiring import build_shells

if TYPE_CHECKING:
    from tests.netns.conftest import MakeNetns, Node

pytestmark = pytest.mark.root


class OneStatefulSet:
    """A cluster in which every pod is a replica of `test/web`: `ports.Cluster`."""

    def pod(self, ref: PodRef) -> Pod | None:
        owner = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="web", uid="w1")
        return Pod(ref=ref, uid="u1", node="node-a", phase="Running", owner=owner)

    def pod_now(self, ref: PodRef) -> Pod | None:
        return self.pod(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        return WorkloadState(workload=workload, uid="w1", replicas=3)

    def node(self, name: str) -> NodeState | None:
        return NodeState(name=name)


@pytest.fixture
def restart(node: Node, netns: MakeNetns, tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """Starts a replica in a container of its own, and ends it again."""
    (tmp_path / "flat.conf").write_text("{}")
    ipam = {"type": "whereabouts", "range": "10.93.97.0/24", "configuration_path": str(tmp_path / "flat.conf")}
    store = str(tmp_path / "allocations.db")
    shells = build_shells(netns=node.netns, node="node-a", cluster=OneStatefulSet(), store=store, environ={})
    count = iter(range(100))

    def run(pod: str = "web-0", **keys: Any) -> Result:
        conf = netconfs.parse({"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": ipam, **keys})
        args = {"K8S_POD_NAMESPACE": "test", "K8S_POD_NAME": pod, "K8S_POD_UID": "u1"}
        attachment = Attachment(container_id=f"c{next(count)}", ifname="net1", netns_path=netns("pod"), args=args)
        made = bridge.add(conf, attachment, shells)
        bridge.delete(conf, attachment, shells)
        return made

    yield run
    assert isinstance(shells.host, Kernel)
    shells.host.close()


def test_a_replica_returns_with_address_and_mac(restart: Callable[..., Result]) -> None:
    first, again = restart(), restart()
    assert again.ips == first.ips
    assert again.interfaces[2].mac == first.interfaces[2].mac
    assert restart("web-1").interfaces[2].mac != first.interfaces[2].mac


def test_a_mac_that_is_asked_for_is_the_addresss_from_then_on(restart: Callable[..., Result]) -> None:
    restart()
    assert restart(mac="02:00:00:00:00:77").interfaces[2].mac == "02:00:00:00:00:77"
    assert restart().interfaces[2].mac == "02:00:00:00:00:77"
