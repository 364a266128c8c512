"""`homeport doctor` on a node: a healthy one is silent, and each breakage is told by its name and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.api import MERGE, Api
from testcluster.control_plane import ADMIN, ControlPlane
from testcluster.homeport_node import HomeportNode, addresses, links
from testcluster.machines import IpFailed, ip
from tests.apiserver.node.workloads import Cluster

import homeport
from homeport.doctor import gathering_daemon
from homeport.doctor.facts import Answering
from homeport.doctor.gathering_cluster import ClusterGatherer
from homeport.host.files import LocalFiles
from homeport.kube import configs

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
HOMEPORT = str(Path(sys.executable).with_name("homeport"))
RANGE = {"type": "whereabouts", "range": "10.93.97.0/24"}
MACVLAN = {"type": "macvlan", "master": "eth1", "ipam": RANGE}
UP = ("link set port9 master br9 up", "link set far9 up")
HOUR = 3600
OURS = "/apis/homeport.dev/v1alpha1/ipallocations"

Break = AbstractContextManager[object]
Breakages = list[tuple[set[str], Callable[[], Break]]]


class Doctor:
    """Runs the command where the node's own programs would run it."""

    def __init__(self, node: HomeportNode) -> None:
        self.node = node

    def run(self, *arguments: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
        argv = ["nsenter", f"--net={self.node.machine.path}", "--", HOMEPORT, "doctor"]
        return subprocess.run(
            [*argv, "--config", str(config or self.node.disk.config_file), *arguments],
            env={"PATH": os.environ["PATH"], "HOMEPORT_NODE": self.node.name},
            capture_output=True,
            text=True,
            check=False,
        )

    def report(self, *arguments: str, config: Path | None = None) -> dict[str, Any]:
        done = self.run("-o", "json", *arguments, config=config)
        assert done.returncode in (0, 1, 2), done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return {**found, "exit_code": done.returncode}

    def ids(self, *arguments: str) -> set[str]:
        report = self.report(*arguments)
        assert not report["unlooked"], report
        return {d["id"] for d in report["diagnoses"]}


@pytest.fixture
def node(make_node: MakeNode, cluster: Cluster) -> HomeportNode:
    """One on which a replica has an address of a range."""
    node = make_node("node-a")
    cluster.network("lan", MACVLAN)
    cluster.statefulset("db", 1, "lan")
    cluster.wait(lambda: set(cluster.running()) == {"db-0"}, "db-0 runs")
    node.wait(lambda: all(n["state"] == "Bound" for n in node.claims().values()), 20, "the claim is told")
    return node


# --- breaking things, and mending them -------------------------------------------------------------------------------


@contextmanager
def changed(path: Path, contents: bytes | str, mode: int | None = None) -> Iterator[Path]:
    """The file, made or overwritten in place; as it was afterwards."""
    before, before_mode = (path.read_bytes(), path.stat().st_mode) if path.exists() else (None, 0o600)
    path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
    if mode is not None:
        path.chmod(mode)
    try:
        yield path
    finally:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
            path.chmod(before_mode)


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    aside = path.with_name(f".{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        if path.is_dir():
            path.rmdir()
        aside.rename(path)


@contextmanager
def of_mode(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


@contextmanager
def commands(netns: str, breaking: list[str], mending: list[str]) -> Iterator[None]:
    """Of `ip`, in that namespace."""
    ip(*breaking, netns=netns)
    try:
        yield
    finally:
        ip(*mending, netns=netns)


@contextmanager
def network(cluster: Cluster, plugin: Mapping[str, Any]) -> Iterator[None]:
    """One more definition."""
    cluster.network("other", plugin)
    try:
        yield
    finally:
        path = f"/apis/k8s.cni.cncf.io/v1/namespaces/{cluster.namespace}/network-attachment-definitions/other"
        cluster.api.delete(path)


@contextmanager
def running(node: HomeportNode, name: str, tmp_path: Path, **environ: str) -> Iterator[None]:
    """A process of this name on the node."""
    program = tmp_path / name
    shutil.copy("/bin/sleep", program)
    process = node.machine.start([str(program), "600"], environ=environ)
    comm = Path(f"/proc/{process.pid}/comm")
    try:
        node.wait(lambda: comm.read_text().strip() == name, 10, f"{name} runs")
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def stopped(node: HomeportNode) -> Iterator[None]:
    assert node.daemon
    node.daemon.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.daemon.send_signal(signal.SIGCONT)


@contextmanager
def older(path: Path, contents: bytes) -> Iterator[None]:
    """A file that was written an hour ago."""
    with changed(path, contents):
        then = time.time() - HOUR
        os.utime(path, (then, then))
        yield


@contextmanager
def setting(node: HomeportNode, key: str, value: str) -> Iterator[None]:
    argv = ["ip", "netns", "exec", node.machine.netns, "sysctl", "-qw"]
    read = ["ip", "netns", "exec", node.machine.netns, "sysctl", "-n", key]
    before = subprocess.run(read, capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([*argv, f"{key}={value}"], check=True)
    try:
        yield
    finally:
        subprocess.run([*argv, f"{key}={before}"], check=True)


@contextmanager
def both(one: Break, other: Break) -> Iterator[None]:
    with one, other:
        yield


def knows_ipvlan(netns: str) -> bool:
    """By trying, in the node's namespace."""
    try:
        ip("link add link eth0 name try0 type ipvlan", netns=netns)
    except IpFailed as failure:
        if "Unknown device type" not in str(failure):
            raise
        return False
    ip("link delete try0", netns=netns)
    return True


def result(node: HomeportNode, cluster: Cluster, **instead: str) -> tuple[Path, bytes]:
    """(path, contents) of a result like that of db-0's secondary interface, of another container and without ranges."""
    (path,) = [p for p in (node.disk.cni_dir / "results").iterdir() if p.name.endswith("-net1")]
    entry = json.loads(path.read_text())
    entry.update({"containerId": "f" * 40, "config": ""})
    arguments = dict(entry["cniArgs"])
    arguments.update({"K8S_POD_UID": "00000000-dead", "K8S_POD_NAME": "gone-0"})
    entry["cniArgs"] = list(arguments.items())
    entry.update(instead)
    return path.with_name(f"{entry['networkName']}-{entry['containerId']}-net1"), json.dumps(entry).encode()


# --- what is to be found ---------------------------------------------------------------------------------------------


def test_a_healthy_node_is_silent(node: HomeportNode) -> None:
    done = Doctor(node).run()
    assert (done.returncode, done.stdout) == (0, "node node-a: nothing is wrong\n"), done.stdout + done.stderr


def test_what_the_daemon_and_the_api_server_say_of_themselves(node: HomeportNode) -> None:
    daemon = gathering_daemon.gather(str(node.disk.socket))
    assert (daemon.answering, daemon.version) == (Answering.READY, homeport.__version__)
    assert daemon.is_here is False, "this test runs on no node"
    config = configs.load(str(node.disk.config_file.parent / "kubeconfig"), {}, LocalFiles())
    assert config is not None
    gatherer = ClusterGatherer(config)
    try:
        api = gatherer.api()
    finally:
        gatherer.close()
    assert api.skew_seconds is not None, "it tells its time"
    assert abs(api.skew_seconds) < 1.5, "it has this machine's clock, and tells whole seconds"
    assert 0 < api.seconds < 2.5


def assert_each_is_found(node: HomeportNode, breakages: Breakages) -> None:
    """Each by its name and nothing beside it; and nothing at all once all is mended."""
    doctor = Doctor(node)
    for expected, broken in breakages:
        with broken():
            assert doctor.ids() == expected
        node.wait(node.is_ready, 10, f"the daemon answers after {expected}")
    assert doctor.ids() == set()


def test_what_is_wrong_with_files_and_programs(node: HomeportNode, tmp_path: Path) -> None:
    disk = node.disk
    shim = disk.bin_dir / "homeport"
    config = json.loads(disk.config_file.read_text())
    old = homeport.__version__.translate(str.maketrans("0123456789", "9999999999")).encode()
    breakages: Breakages = [
        ({"config-key-unknown"}, lambda: changed(disk.config_file, json.dumps({**config, "stateDirr": "/x"}))),
        ({"runtime-config-broken"}, lambda: changed(disk.conf_dir / "00-a.conflist", "{")),
        (
            {"runtime-config-overruled"},
            lambda: changed(disk.conf_dir / "00-a.conf", '{"cniVersion": "0.4.0", "name": "a", "type": "bridge"}'),
        ),
        ({"primary-missing"}, lambda: moved_away(disk.conf_dir / "10-pod-network.conflist")),
        ({"shim-missing"}, lambda: moved_away(shim)),
        ({"shim-not-executable"}, lambda: of_mode(shim, 0o644)),
        ({"shim-foreign"}, lambda: changed(shim, "#!/bin/sh\n")),
        ({"shim-version"}, lambda: changed(shim, shim.read_bytes().replace(homeport.__version__.encode(), old))),
        ({"journal-missing"}, lambda: moved_away(disk.journal)),
        ({"journal-unreadable"}, lambda: changed(disk.journal / "c-eth0-1.del.bad", "nonsense")),
        ({"journal-unfinished"}, lambda: older(disk.journal / ".tmp-0123456789abcdef", b"HPR1")),
        ({"secret-readable"}, lambda: of_mode(disk.config_file.parent / "kubeconfig", 0o644)),
        ({"file-writable"}, lambda: of_mode(disk.config_file, 0o666)),
        ({"meta-plugin-beside"}, lambda: running(node, "multus-daemon", tmp_path)),
        ({"shim-misled"}, lambda: running(node, "containerd", tmp_path, HOMEPORT_JOURNAL=str(disk.journal))),
        ({"daemon-silent"}, lambda: stopped(node)),
    ]
    assert_each_is_found(node, breakages)


def test_what_is_wrong_with_links(node: HomeportNode, cluster: Cluster) -> None:
    host = node.machine.netns
    lacking = set() if knows_ipvlan(host) else {"kind-missing"}
    breakages: Breakages = [
        ({"plugin-missing"}, lambda: network(cluster, {"type": "exotic"})),
        ({"master-missing"}, lambda: network(cluster, {**MACVLAN, "master": "eth9"})),
        ({"master-mtu"}, lambda: network(cluster, {**MACVLAN, "mtu": 9000})),
        ({"master-down"}, lambda: commands(host, ["link set eth1 down"], ["link set eth1 up"])),
        (
            {"link-half-made"},
            lambda: commands(
                host, ["link add link eth1 name veth0badf00d type macvlan mode bridge"], ["link delete veth0badf00d"]
            ),
        ),
        (lacking | {"master-shared"}, lambda: network(cluster, {"type": "ipvlan", "master": "eth1"})),
        (
            {"master-enslaved"},
            lambda: both(
                commands(
                    host,
                    ["link add br9 type bridge", "link add port9 type veth peer name far9", *UP],
                    ["link delete br9", "link delete port9"],
                ),
                network(cluster, {**MACVLAN, "master": "port9"}),
            ),
        ),
        (
            {"forwarding-off"},
            lambda: both(
                setting(node, "net.ipv4.ip_forward", "0"),
                network(cluster, {"type": "bridge", "bridge": "br7", "isGateway": True}),
            ),
        ),
    ]
    assert_each_is_found(node, breakages)


def test_what_is_wrong_with_what_pods_have(node: HomeportNode, cluster: Cluster) -> None:
    pod = node.sandbox(cluster.namespace, "db-0").netns
    address = addresses(pod)["net1"][0]
    left, contents = result(node, cluster)
    gone, gone_contents = result(node, cluster, netns="/run/netns/not-there", containerId="e" * 40)
    breakages: Breakages = [
        (
            {"interface-lost"},
            lambda: commands(pod, [f"address delete {address} dev net1"], [f"address add {address} dev net1"]),
        ),
        ({"namespace-left"}, lambda: older(left, contents)),
        ({"result-left"}, lambda: older(gone, gone_contents)),
        ({"entry-unreadable"}, lambda: changed(left, "{")),
    ]
    assert_each_is_found(node, breakages)


def test_what_is_wrong_without_a_daemon(node: HomeportNode, cluster: Cluster) -> None:
    disk, doctor = node.disk, Doctor(node)
    (address,) = node.claims()
    generated = disk.generated.read_bytes()
    node.stop_daemon()
    assert doctor.ids() == {"daemon-missing"}
    with moved_away(disk.generated):
        assert doctor.ids() == {"daemon-missing", "runtime-config-missing"}
    assert disk.generated.read_bytes() == generated

    frame = deletion()
    with older(disk.journal / "c-eth0-1.del", frame):
        assert doctor.ids() == {"daemon-missing", "journal-old"}

    claims = disk.state_dir / "claims.db"
    whole = claims.read_bytes()
    with changed(claims, whole[:4096] + b"\xff" * (len(whole) - 4096)):
        report = doctor.report()
        assert {d["id"] for d in report["diagnoses"]} == {"daemon-missing", "database-damaged"}
        assert [place["place"] for place in report["unlooked"]] == ["claims of this node"]

    allocation = allocation_of(cluster, address)
    cluster.api.delete(f"{OURS}/{allocation}")
    note(claims, at="2020-01-01T00:00:00Z", state="Bound")
    assert doctor.ids() == {"daemon-missing", "address-unguarded"}
    note(claims, at="2020-01-01T00:00:00Z", state="Retaining")
    assert doctor.ids() == {"daemon-missing", "claim-untold"}
    assert doctor.report()["exit_code"] == 1
    forget_claims(claims)
    assert doctor.ids() == {"daemon-missing"}, "its ADD may be under way"
    (noted,) = [path for path in (disk.cni_dir / "results").iterdir() if path.name.endswith("-net1")]
    os.utime(noted, (time.time() - HOUR,) * 2)
    assert doctor.ids() == {"daemon-missing", "address-unguarded"}, "a pod has an address that nobody knows of"


def test_what_the_cluster_has_and_the_node_does_not(node: HomeportNode, cluster: Cluster) -> None:
    doctor = Doctor(node)
    (address,) = node.claims()
    node.stop_daemon()
    forget_claims(node.disk.state_dir / "claims.db")
    assert doctor.ids() == {"daemon-missing"}, "its ADD may be under way"
    since = {"status": {"since": "2020-01-01T00:00:00Z"}}
    cluster.api.patch(f"{OURS}/{allocation_of(cluster, address)}", since, MERGE)
    assert doctor.ids() == {"daemon-missing", "allocation-unaccounted"}


def test_an_api_server_that_nobody_reaches(node: HomeportNode, tmp_path: Path) -> None:
    kubeconfig = json.loads((node.disk.config_file.parent / "kubeconfig").read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    elsewhere = tmp_path / "kubeconfig"
    with changed(elsewhere, json.dumps(kubeconfig), 0o600):
        config = json.loads(node.disk.config_file.read_text())
        with changed(node.disk.config_file, json.dumps({**config, "kubeconfig": str(elsewhere)})):
            report = Doctor(node).report()
    assert {d["id"] for d in report["diagnoses"]} == {"api-unreachable"}
    assert {place["place"] for place in report["unlooked"]} == {
        "network-attachment-definitions",
        "pods of this node",
        "ipallocations of this node",
    }


def test_a_configuration_that_cannot_be_right_is_all_that_is_told(node: HomeportNode) -> None:
    with changed(node.disk.config_file, '{"stateDir": "relative"}'):
        report = Doctor(node).report()
    assert [d["id"] for d in report["diagnoses"]] == ["config-broken"]
    assert 'key "stateDir"' in report["diagnoses"][0]["found"]
    assert report["unlooked"]


def test_a_look_at_the_cluster_from_afar(node: HomeportNode, control_plane: ControlPlane, admin: Api) -> None:
    admin.delete("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/homeport-controller")
    argv = [HOMEPORT, "doctor", "--cluster", "--kubeconfig", str(control_plane.kubeconfig(ADMIN)), "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert {d["id"] for d in report["diagnoses"]} == {"controller-missing"}, "the node itself is well"
    assert (done.returncode, report["unlooked"]) == (1, [])


# --- --repair --------------------------------------------------------------------------------------------------------


def test_repair_does_what_its_proof_allows_and_no_more(node: HomeportNode, cluster: Cluster) -> None:
    disk, doctor, host = node.disk, Doctor(node), node.machine.netns
    gone, contents = result(node, cluster, netns="/run/netns/not-there")
    unfinished = disk.journal / ".tmp-0123456789abcdef"
    for path, text in ((gone, contents), (unfinished, b"HPR1")):
        path.write_bytes(text)
        os.utime(path, (time.time() - HOUR,) * 2)
    scratch = disk.cni_dir / ("f" * 40)
    shutil.copy(disk.cni_dir / node.sandbox(cluster.namespace, "db-0").container_id, scratch)
    (disk.config_file.parent / "kubeconfig").chmod(0o644)
    ip("link add link eth1 name veth0badf00d type macvlan mode bridge", netns=host)
    ip("link add link eth1 name veth0badf11d type macvlan mode bridge", "link set veth0badf11d up", netns=host)
    expected = {"result-left", "journal-unfinished", "secret-readable", "link-half-made"}
    assert doctor.ids() == expected
    assert "--yes" in doctor.run("--repair").stderr, "nobody is there to be asked"
    assert doctor.ids() == expected, "nothing was done"

    before = addresses(node.sandbox(cluster.namespace, "db-0").netns)
    done = doctor.run("--repair", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("node node-a: nothing is wrong\n")
    assert len([line for line in done.stderr.splitlines() if line.startswith("repair ")]) == len(expected)
    assert not gone.exists()
    assert not unfinished.exists()
    assert "veth0badf00d" not in links(host)
    assert "veth0badf11d" in links(host), "it is up: somebody uses it"
    assert (disk.config_file.parent / "kubeconfig").stat().st_mode & 0o777 == 0o600
    assert addresses(node.sandbox(cluster.namespace, "db-0").netns) == before
    assert node.claims()
    again = doctor.run("--repair", "--yes")
    assert (again.returncode, again.stderr) == (0, ""), "there is nothing left to do"


# --- what is written in others' formats ------------------------------------------------------------------------------


def deletion() -> bytes:
    """A DEL as docs/shim.md describes it, of a container that nobody knows."""
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "HOMEPORT_PLUGIN": "homeport"}
    environment = b"".join(f"{name}={value}\0".encode() for name, value in variables.items())
    return b"HPR1" + len(environment).to_bytes(4) + (0).to_bytes(4) + environment


def note(claims: Path, **changes: str) -> None:
    """Writes into the row's note."""
    with sqlite3.connect(claims) as db:
        ((text,),) = db.execute("SELECT note FROM claims").fetchall()
        db.execute("UPDATE claims SET note = ?", (json.dumps({**json.loads(text), **changes}),))
    db.close()


def forget_claims(claims: Path) -> None:
    with sqlite3.connect(claims) as db:
        db.execute("DELETE FROM claims")
    db.close()


def allocation_of(cluster: Cluster, address: str) -> str:
    found = cluster.api.get(OURS)["items"]
    (name,) = [one["metadata"]["name"] for one in found if one["spec"]["address"] == address]
    return str(name)
