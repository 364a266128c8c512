"""What the meta-plugin keeps in files: records, device information; and the file it waits for."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.stand_ins import StandingClock, World

from homeport.cni import conflists
from homeport.ipam.objects import Pod
from homeport.metaplugin import readiness
from homeport.metaplugin.device_info import DeviceInfos
from homeport.metaplugin.records import PodRecord, PodRecords, RecordedCluster
from homeport.model.errors import DecodeFailure, IOFailure, TryAgainLater
from homeport.model.names import PodRef
from homeport.multinet import scratch
from homeport.multinet.delegates import Delegate
from homeport.runtime import node_files

REF = PodRef("apps", "web-0")


def network(**keys: object) -> Delegate:
    conf = conflists.parse({"cniVersion": "1.1.0", "name": "lan", "plugins": [{"type": "sriov", **keys}]})
    return Delegate(
        name="apps/lan", network=conf, ifname="net1", device_id="0000:3b:02.4", resource_name="intel.com/vf"
    )


def record(uid: str = "u1", container_id: str = "c1", **fields: object) -> PodRecord:
    made = PodRecord(
        uid=uid, pod=Pod(ref=REF, uid=uid), container_id=container_id, delegates=scratch.encode((network(),))
    )
    return msgspec.structs.replace(made, **fields)


# --- records -----------------------------------------------------------------------------------------------------


def test_records_outlive_the_daemon(tmp_path: Path) -> None:
    world = World()
    workload = world.workloads[world.scale("web", 3)]
    made = record(status="[]", delivered=False, workload=workload)
    PodRecords(tmp_path).put(made)
    again = PodRecords(tmp_path)
    assert again.find("u1") == made
    assert again.recall(REF) == made
    assert again.undelivered() == [made]
    found = again.find("u1")
    assert found is not None
    (delegate,) = found.decoded_delegates()
    assert (delegate.name, delegate.ifname, delegate.device_id) == ("apps/lan", "net1", "0000:3b:02.4")


def test_the_newest_of_a_name_is_recalled(tmp_path: Path) -> None:
    records = PodRecords(tmp_path)
    first, second = record("u2"), record("u1")
    records.put(first)
    records.put(second)
    assert records.recall(REF) == second
    records.forget("u1")
    assert records.recall(REF) == first
    assert records.find("u1") is None


def test_a_delivery_does_not_hide_a_newer_status(tmp_path: Path) -> None:
    records = PodRecords(tmp_path)
    old, new = record(status="old", delivered=False), record(status="new", delivered=False)
    records.put(old)
    records.put(new)
    records.mark_delivered(old)
    assert records.undelivered() == [new]
    records.mark_delivered(new)
    assert records.undelivered() == []
    assert PodRecords(tmp_path).undelivered() == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"uid": "u1"}', "\0"])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    PodRecords(tmp_path).put(record("u2"))
    (tmp_path / "pods" / "u1").write_text(text)
    assert [r.uid for r in PodRecords(tmp_path).all()] == ["u2"]


def test_a_record_under_another_name_is_none(tmp_path: Path) -> None:
    PodRecords(tmp_path).put(record("u2"))
    (tmp_path / "pods" / "u2").rename(tmp_path / "pods" / "u1")
    assert PodRecords(tmp_path).all() == []


@pytest.mark.parametrize("uid", ["", "../u1", "a/b", ".u1"])
def test_a_uid_is_no_path(tmp_path: Path, uid: str) -> None:
    with pytest.raises(DecodeFailure, match="expected a file name"):
        PodRecords(tmp_path).put(record(uid))
    assert list(tmp_path.rglob("*")) == []


def test_a_cluster_that_is_away_is_answered_for(tmp_path: Path) -> None:
    world = World()
    workload = world.scale("web", 3, namespace="apps")
    pod = world.start(workload, 0)
    known = record(pod=pod, workload=world.workloads[workload])
    world.scale("web", 5, namespace="apps")
    cluster = RecordedCluster(world, known)
    assert cluster.workload(workload) == cluster.workload_seen == world.workloads[workload] != known.workload
    world.unreachable = True
    assert cluster.pod(pod.ref) == pod
    assert cluster.workload(workload) == known.workload
    with pytest.raises(TryAgainLater):
        cluster.pod(PodRef("apps", "web-1"))
    with pytest.raises(TryAgainLater):
        cluster.workload(world.scale("other", 1))
    with pytest.raises(TryAgainLater):
        cluster.node("n1")
    with pytest.raises(TryAgainLater):
        RecordedCluster(world, None).pod(pod.ref)


def test_what_is_gone_stays_gone(tmp_path: Path) -> None:
    world = World()
    cluster = RecordedCluster(world, record(pod=Pod(ref=REF, uid="u1")))
    assert cluster.pod(REF) is None
    assert cluster.node("n9") is None


# --- files -------------------------------------------------------------------------------------------------------


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    node_files.replace(path, b"one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    node_files.replace(path, b"two", mode=0o444)
    assert (node_files.read(path), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o444)
    assert node_files.names(path.parent) == ("b",)
    node_files.remove(path)
    node_files.remove(path)
    assert node_files.read(path) is None
    assert node_files.names(path) == ()


def test_only_absence_is_absence(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for act in (node_files.read, node_files.remove):
        with pytest.raises(IOFailure, match="directory"):
            act(tmp_path / "directory")
    with pytest.raises(IOFailure, match="loop"):
        node_files.read(tmp_path / "loop")
    with pytest.raises(IOFailure, match="list"):
        node_files.names(tmp_path / "loop")
    (tmp_path / "file").touch()
    with pytest.raises(IOFailure, match="write"):
        node_files.replace(tmp_path / "file" / "below", b"")


# --- device information --------------------------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path: Path) -> Path:
    """What the device plugin says of the device."""
    path = tmp_path / "var/run/k8s.cni.cncf.io/devinfo/dp/intel.com-vf-0000:3b:02.4-device.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"type": "pci", "version": "1.1.0", "pci": {"pci-address": "0000:3b:02.4"}}))
    return path


def test_a_device_is_described(tmp_path: Path, told: Path) -> None:
    infos = DeviceInfos(str(tmp_path))
    copy = tmp_path / "var/run/k8s.cni.cncf.io/devinfo/cni/apps-lan-c1_net1"
    infos.provide(network(), "c1")
    assert copy.read_bytes() == told.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o444
    infos.provide(network(), "c1")
    assert infos.read(network(), "c1") == {
        "type": "pci",
        "version": "1.1.0",
        "pci": {"pci-address": "0000:3b:02.4"},
    }
    infos.remove([network()], "c1")
    infos.remove([network()], "c1")
    assert infos.read(network(), "c1") is None
    assert told.exists()


def test_a_plugin_learns_where_the_description_is(tmp_path: Path) -> None:
    asking, silent = network(capabilities={"CNIDeviceInfoFile": True}), network(capabilities={"ips": True})
    found = DeviceInfos(str(tmp_path)).told([asking, silent], "c1")
    expected = f"{tmp_path}/var/run/k8s.cni.cncf.io/devinfo/cni/apps-lan-c1_net1"
    assert [delegate.capability_args for delegate in found] == [{"CNIDeviceInfoFile": expected}, {}]


@pytest.mark.parametrize("spoil", [lambda p: p.unlink(), lambda p: p.write_text("{"), lambda p: p.write_text("[]")])
def test_a_description_that_is_missing_or_wrong_fails_nothing(
    tmp_path: Path, told: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(told)
    infos = DeviceInfos(str(tmp_path))
    infos.provide(network(), "c1")
    assert infos.read(network(), "c1") is None
    infos.remove([network()], "c1")


# --- waiting -------------------------------------------------------------------------------------------------------


def test_waiting_for_readiness(tmp_path: Path) -> None:
    indicator, clock = tmp_path / "ready", StandingClock()

    def pause(seconds: float) -> bool:
        clock.sleep(seconds)
        if clock.monotonic() > 3:
            indicator.touch()
        return False

    readiness.await_indicator(str(indicator), clock, pause)
    assert 3 < clock.monotonic() < 3.5
    readiness.await_indicator(str(indicator), clock, pause)
    assert clock.monotonic() < 3.5


def test_readiness_that_never_comes(tmp_path: Path) -> None:
    clock = StandingClock()

    def pause(seconds: float) -> bool:
        clock.sleep(seconds)
        return False

    with pytest.raises(TryAgainLater, match="within 45 s"):
        readiness.await_indicator(str(tmp_path / "absent"), clock, pause)
    assert 45 <= clock.monotonic() < 46


def test_waiting_ends_with_the_daemon(tmp_path: Path) -> None:
    with pytest.raises(TryAgainLater, match="the daemon is stopping"):
        readiness.await_indicator(str(tmp_path / "absent"), StandingClock(), lambda _: True)


def test_an_indicator_that_cannot_be_looked_for(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (str(tmp_path / "loop"), "nul\0"):
        with pytest.raises(IOFailure):
            readiness.is_ready(path)
