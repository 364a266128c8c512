"""R9: a replica's MAC address moves with its address, on the real kernel and the real store."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from homeport.cni import netconfs
from homeport.cni.invocations import Attachment
from homeport.cni.netconfs import NetConf
from homeport.host.clocks import SystemClock
from homeport.host.kernel import Kernel
from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, OwnerReference, Pod, WorkloadState
from homeport.model.errors import TryAgainLater
from homeport.model.names import PodRef
from homeport.plugins import macvlan
from homeport.ports import Shells
from homeport.wiring import build_shells

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, KernelState, MakeNetns, Node

pytestmark = pytest.mark.root


class Known:
    """A cluster that is what the test says: `ports.Cluster`."""

    def __init__(self) -> None:
        self.pods: dict[PodRef, Pod] = {}

    def pod(self, ref: PodRef) -> Pod | None:
        return self.pods.get(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        return self.pod(ref)

    def workload(self, workload: Workload) -> WorkloadState | None:
        return WorkloadState(workload=workload, uid="w1", replicas=3)

    def node(self, name: str) -> NodeState | None:
        return NodeState(name=name)

    def start(self, name: str, uid: str, kind: str) -> None:
        owner = OwnerReference(api_version="apps/v1", kind=kind, name=name.rpartition("-")[0], uid="w1")
        ref = PodRef("test", name)
        self.pods[ref] = Pod(ref=ref, uid=uid, node="node-a", phase="Running", owner=owner)


@pytest.fixture
def cluster() -> Known:
    return Known()


@pytest.fixture
def shells(node: Node, cluster: Known, tmp_path: Path) -> Iterator[Shells]:
    built = build_shells(
        netns=node.netns, node="node-a", cluster=cluster, store=str(tmp_path / "allocations.db"), environ={}
    )
    yield built
    assert isinstance(built.host, Kernel)
    built.host.close()


class Hasty(SystemClock):
    """Time that passes by sleeping, a thousand times as fast."""

    def __init__(self) -> None:
        self.slept = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.slept

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        super().sleep(seconds / 1000)


def conf(tmp_path: Path, **keys: Any) -> NetConf:
    (tmp_path / "flat.conf").write_text("{}")
    ipam = {"type": "whereabouts", "range": "10.93.97.0/24", "configuration_path": str(tmp_path / "flat.conf")}
    whole = {"cniVersion": "1.1.0", "name": "sticky", "type": "macvlan", "master": "eth1", "ipam": ipam, **keys}
    return netconfs.parse(whole)


class Run:
    """Pods that start and end: a container and a namespace each time."""

    def __init__(self, shells: Shells, cluster: Known, netns: MakeNetns, ip_json: IpJson, conf: NetConf) -> None:
        self.shells, self.cluster, self.netns, self.ip_json, self.conf = shells, cluster, netns, ip_json, conf
        self.count = 0

    def start(self, name: str, kind: str = "StatefulSet") -> tuple[Attachment, str, str]:
        """(attachment, address, MAC as the kernel has it)."""
        self.count += 1
        self.cluster.start(name, uid := f"uid{self.count}", kind)
        args = {"K8S_POD_NAMESPACE": "test", "K8S_POD_NAME": name, "K8S_POD_UID": uid}
        attachment = Attachment(container_id=f"c{self.count}", ifname="net1", netns_path=self.netns("pod"), args=args)
        result = macvlan.add(self.conf, attachment, self.shells)
        (link,) = (entry for entry in self.ip_json(attachment.netns_path, "link", "show") if entry["ifname"] == "net1")
        assert result.interfaces[0].mac == link["address"]
        return attachment, str(result.ips[0].address.ip), link["address"]

    def end(self, attachment: Attachment) -> None:
        macvlan.delete(self.conf, attachment, self.shells)


@pytest.fixture
def run(shells: Shells, cluster: Known, netns: MakeNetns, ip_json: IpJson, tmp_path: Path) -> Run:
    return Run(shells, cluster, netns, ip_json, conf(tmp_path))


def test_a_replica_returns_with_its_mac(run: Run) -> None:
    first, address, mac = run.start("web-0")
    run.end(first)
    _, again, mac_again = run.start("web-0")
    assert (again, mac_again) == (address, mac)


def test_two_replicas_have_different_macs(run: Run) -> None:
    assert run.start("web-0")[2] != run.start("web-1")[2]


def test_any_other_pod_has_a_mac_of_its_own(run: Run) -> None:
    first, address, mac = run.start("job-0", kind="ReplicaSet")
    run.end(first)
    _, again, mac_again = run.start("job-0", kind="ReplicaSet")
    assert again == address
    assert mac_again != mac


def test_a_replica_whose_namespace_is_still_being_taken_down_returns_with_its_mac(run: Run) -> None:
    """E3: its DEL comes late, and the kernel removes the old link some time after the namespace's path is gone."""
    first, address, mac = run.start("web-0")
    subprocess.run(["ip", "netns", "delete", Path(str(first.netns_path)).name], check=True)
    _, again, mac_again = run.start("web-0")
    assert (again, mac_again) == (address, mac)
    run.end(first)
    assert run.shells.open_allocations(None).of_holder("c2", "net1")  # the late DEL changed nothing


def test_a_mac_that_is_asked_for_goes_before_the_one_that_moves(run: Run, tmp_path: Path) -> None:
    first, _, mac = run.start("web-0")
    run.end(first)
    run.conf = conf(tmp_path, mac="02:00:00:00:00:77")
    second, _, asked = run.start("web-0")
    assert asked == "02:00:00:00:00:77" != mac
    run.end(second)
    run.conf = conf(tmp_path)
    assert run.start("web-0")[2] == asked  # it is the address's now


def test_a_mac_still_in_use_is_waited_for_and_then_nothing_is_left(
    run: Run, node: Node, netns: MakeNetns, kernel_state: KernelState
) -> None:
    first, _, mac = run.start("web-0")
    run.end(first)
    squatter = netns("squatter")
    on_node = ["nsenter", f"--net={node.netns}", "--", "ip", "link", "add", "m0", "link", "eth1", "address", mac]
    subprocess.run([*on_node, "netns", Path(squatter).name, "type", "macvlan", "mode", "bridge"], check=True)
    subprocess.run(["nsenter", f"--net={squatter}", "--", "ip", "link", "set", "m0", "up"], check=True)
    run.shells = msgspec.structs.replace(run.shells, clock=Hasty())
    before = kernel_state(node.netns)
    with pytest.raises(TryAgainLater, match="another interface still has it"):
        run.start("web-0")
    assert kernel_state(node.netns) == before
    assert not run.shells.open_allocations(None).of_holder("c2", "net1")
