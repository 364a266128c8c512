"""Real StatefulSets on simulated nodes: what a pod's network goes through there, from ADD to the last DEL."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.api import Api
from testcluster.control_plane import Timing
from testcluster.kubelet import Kubelet
from testcluster.machines import Machine, path_of
from testcluster.sandboxes import Sandbox

if TYPE_CHECKING:
    from tests.apiserver.conftest import MakeControlPlane, MakeKubelet, MakeMachine

pytestmark = pytest.mark.root
WaitUntil = Callable[..., None]
SECONDS = 30.0


def bridge(folder: Path, machine: Machine) -> dict[str, Any]:
    """A node's default network; the nodes' disks are one, so each has its own host-local directory."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.77.0.0/24"}]],
        "dataDir": str(folder / machine.name / "ips"),
    }
    plugin = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "default", "plugins": [plugin]}


def statefulset(admin: Api, namespace: str, name: str, replicas: int) -> None:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    spec = {"serviceName": name, "replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    admin.create(f"/apis/apps/v1/namespaces/{namespace}/statefulsets", {"metadata": {"name": name}, "spec": spec})


def pods(admin: Api, namespace: str) -> dict[str, dict[str, Any]]:
    return {pod["metadata"]["name"]: pod for pod in admin.get(f"/api/v1/namespaces/{namespace}/pods")["items"]}


def running(admin: Api, namespace: str) -> dict[str, str]:
    """Pod to node, of those that run and are not being deleted."""
    return {
        name: pod["spec"]["nodeName"]
        for name, pod in pods(admin, namespace).items()
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def addresses_in(netns: str) -> dict[str, list[str]]:
    """Interface to IPv4 addresses, as the kernel has them."""
    out = subprocess.run(["ip", "-n", netns, "-4", "-j", "address"], capture_output=True, text=True, check=True).stdout
    return {link["ifname"]: [a["local"] for a in link["addr_info"]] for link in json.loads(out)}


def links_in(netns: str) -> list[str]:
    out = subprocess.run(["ip", "-n", netns, "-j", "link"], capture_output=True, text=True, check=True).stdout
    return [link["ifname"] for link in json.loads(out)]


def sandbox_of(kubelet: Kubelet, namespace: str, name: str) -> Sandbox:
    sandbox = kubelet.sandbox(namespace, name)
    assert sandbox
    return sandbox


def test_a_statefulset_runs_is_rescheduled_and_leaves_nothing(
    admin: Api,
    namespace: str,
    make_machine: MakeMachine,
    make_kubelet: MakeKubelet,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    machines = [make_machine("node-a"), make_machine("node-b")]
    kubelets = {m.name: make_kubelet(m, bridge(tmp_path, m)) for m in machines}
    statefulset(admin, namespace, "web", 2)
    wait_until(lambda: len(running(admin, namespace)) == 2, SECONDS)
    placed = running(admin, namespace)
    assert set(placed.values()) == {"node-a", "node-b"}, "the scheduler spreads them"
    for name, node in placed.items():
        sandbox = sandbox_of(kubelets[node], namespace, name)
        address = pods(admin, namespace)[name]["status"]["podIP"]
        assert addresses_in(sandbox.netns) == {"lo": ["127.0.0.1"], "eth0": [address]}
    assert len(list(tmp_path.glob("*/ips/default/10.*"))) == 2
    assert len(list(tmp_path.rglob("default-*-eth0"))) == 2

    old = pods(admin, namespace)["web-0"]["metadata"]["uid"]
    left = sandbox_of(kubelets[placed["web-0"]], namespace, "web-0")
    admin.patch(f"/api/v1/nodes/{placed['web-0']}", {"spec": {"unschedulable": True}})
    admin.delete(f"/api/v1/namespaces/{namespace}/pods/web-0")
    wait_until(lambda: pods(admin, namespace).get("web-0", {}).get("metadata", {}).get("uid", old) != old, SECONDS)
    wait_until(lambda: len(running(admin, namespace)) == 2, SECONDS)
    assert running(admin, namespace)["web-0"] != placed["web-0"], "its node took no new pod"
    assert not left.exists

    admin.delete(f"/apis/apps/v1/namespaces/{namespace}/statefulsets/web")
    wait_until(lambda: not pods(admin, namespace), SECONDS)
    for machine in machines:
        kubelet = kubelets[machine.name]
        assert kubelet.runtime.sandboxes() == []
        assert kubelet.failures == []
        assert not [name for name in os.listdir("/run/netns") if name.startswith(f"{machine.netns}-")]
        assert set(links_in(machine.netns)) == {"lo", "eth0", "eth1", "cni0"}, "the plugin keeps its bridge"
    assert not list(tmp_path.glob("*/ips/default/10.*"))
    assert not list(tmp_path.rglob("default-*-eth0"))


# --- what a runtime tells plugins ----------------------------------------------------------------------------------

PLUGIN = """#!/bin/sh
# Writes down each call; fails as often as the file `fail-VERB` has lines.
{ echo "== $CNI_COMMAND"; env | grep -E '^(CNI_|MARK)' | sort; cat; echo; } >>"$LOG"
fails="$(dirname "$LOG")/fail-$CNI_COMMAND"
if [ -s "$fails" ]; then
  sed -i 1d "$fails"
  echo '{"cniVersion": "1.0.0", "code": 11, "msg": "not now"}'
  exit 1
fi
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.8.7/24"}]}'
"""


class Recorder:
    """A plugin that does nothing but remember."""

    def __init__(self, folder: Path) -> None:
        self.bin_dir = folder / "bin"
        self.log = folder / "calls.log"
        self._folder = folder
        self.bin_dir.mkdir()
        plugin = self.bin_dir / "recorder"
        plugin.write_text(PLUGIN)
        plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
        self.environ = {"PATH": os.environ["PATH"], "LOG": str(self.log), "MARK": "of this node"}
        self.config = {"cniVersion": "1.0.0", "name": "default", "plugins": [{"type": "recorder"}]}

    def fail(self, verb: str, times: int) -> None:
        (self._folder / f"fail-{verb}").write_text("x\n" * times)

    def calls(self) -> list[tuple[str, dict[str, str]]]:
        """(verb, variables) in order."""
        text = self.log.read_text() if self.log.exists() else ""
        found = []
        for part in text.split("== ")[1:]:
            verb, *lines = part.splitlines()
            found.append((verb, dict(line.split("=", 1) for line in lines if line.startswith(("CNI_", "MARK")))))
        return found

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.calls()]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


@pytest.fixture
def kubelet(make_machine: MakeMachine, make_kubelet: MakeKubelet, recorder: Recorder) -> Kubelet:
    """Of one node that has the recording plugin."""
    return make_kubelet(make_machine("node-a"), recorder.config, bin_dirs=[recorder.bin_dir], environ=recorder.environ)


def test_plugins_are_called_as_a_container_runtime_calls_them(
    admin: Api, namespace: str, kubelet: Kubelet, recorder: Recorder, wait_until: WaitUntil
) -> None:
    statefulset(admin, namespace, "web", 1)
    wait_until(lambda: running(admin, namespace), SECONDS)
    ((verb, variables),) = recorder.calls()
    sandbox = sandbox_of(kubelet, namespace, "web-0")
    uid = pods(admin, namespace)["web-0"]["metadata"]["uid"]
    assert verb == "ADD"
    assert variables == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": sandbox.container_id,
        "CNI_NETNS": sandbox.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(recorder.bin_dir),
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web-0;"
        f"K8S_POD_INFRA_CONTAINER_ID={sandbox.container_id};K8S_POD_UID={uid}",
        "MARK": "of this node",
    }
    assert pods(admin, namespace)["web-0"]["status"]["podIP"] == "10.9.8.7"
    kubelet.runtime.check(sandbox)
    kubelet.runtime.status()
    assert recorder.verbs() == ["ADD", "CHECK"], "STATUS is not in version 1.0.0 of the protocol"


def test_a_failed_add_is_deleted_and_tried_with_a_new_container(
    admin: Api, namespace: str, kubelet: Kubelet, recorder: Recorder, wait_until: WaitUntil
) -> None:
    recorder.fail("ADD", 2)
    statefulset(admin, namespace, "web", 1)
    wait_until(lambda: running(admin, namespace), SECONDS)
    containers = list(dict.fromkeys(v["CNI_CONTAINERID"] for _, v in recorder.calls()))
    assert len(containers) == 3
    for container in containers[:2]:
        assert [verb for verb, v in recorder.calls() if v["CNI_CONTAINERID"] == container][:2] == ["ADD", "DEL"]
    assert [str(f.error) for f in kubelet.failures] == ['plugin "recorder": not now'] * 2
    assert [s.container_id for s in kubelet.runtime.sandboxes()] == [containers[2]]


def test_a_pod_goes_only_after_its_del_succeeded(
    admin: Api, namespace: str, kubelet: Kubelet, recorder: Recorder, wait_until: WaitUntil
) -> None:
    statefulset(admin, namespace, "web", 1)
    wait_until(lambda: running(admin, namespace), SECONDS)
    sandbox = sandbox_of(kubelet, namespace, "web-0")
    recorder.fail("DEL", 3)
    admin.delete(f"/apis/apps/v1/namespaces/{namespace}/statefulsets/web")
    wait_until(lambda: kubelet.failures, SECONDS)
    assert "web-0" in pods(admin, namespace)
    assert sandbox.exists
    wait_until(lambda: not pods(admin, namespace), SECONDS)
    assert recorder.verbs() == ["ADD", "DEL", "DEL", "DEL", "DEL"]
    assert not sandbox.exists


def test_a_restarted_sandbox_is_another_container_of_the_same_pod(
    admin: Api, namespace: str, kubelet: Kubelet, recorder: Recorder, wait_until: WaitUntil
) -> None:
    statefulset(admin, namespace, "web", 1)
    wait_until(lambda: running(admin, namespace), SECONDS)
    before = sandbox_of(kubelet, namespace, "web-0")
    kubelet.restart_sandbox(namespace, "web-0")
    wait_until(lambda: kubelet.sandbox(namespace, "web-0") not in (None, before), SECONDS)
    after = sandbox_of(kubelet, namespace, "web-0")
    assert recorder.verbs() == ["ADD", "DEL", "ADD"]
    assert after.pod_uid == before.pod_uid
    assert after.container_id != before.container_id
    assert not before.exists


def test_a_pod_deleted_by_force_is_cleaned_up_afterwards(
    admin: Api, namespace: str, kubelet: Kubelet, recorder: Recorder, wait_until: WaitUntil
) -> None:
    statefulset(admin, namespace, "web", 1)
    wait_until(lambda: running(admin, namespace), SECONDS)
    before = sandbox_of(kubelet, namespace, "web-0")
    kubelet.force_delete(namespace, "web-0")
    wait_until(lambda: not before.exists, SECONDS)
    wait_until(lambda: kubelet.sandbox(namespace, "web-0") not in (None, before), SECONDS)
    assert sandbox_of(kubelet, namespace, "web-0").pod_uid != before.pod_uid


# --- nodes in trouble ----------------------------------------------------------------------------------------------


def test_a_restarted_kubelet_finds_its_sandboxes(
    admin: Api,
    namespace: str,
    kubelet: Kubelet,
    make_kubelet: MakeKubelet,
    recorder: Recorder,
    wait_until: WaitUntil,
) -> None:
    statefulset(admin, namespace, "web", 2)
    wait_until(lambda: len(running(admin, namespace)) == 2, SECONDS)
    kept = sandbox_of(kubelet, namespace, "web-0")
    kubelet.stop()
    kubelet.force_delete(namespace, "web-1")
    again = make_kubelet(kubelet.machine, recorder.config, bin_dirs=[recorder.bin_dir], environ=recorder.environ)
    wait_until(lambda: sorted(recorder.verbs()) == ["ADD", "ADD", "ADD", "DEL"], SECONDS)
    assert again.sandbox(namespace, "web-0") == kept


def test_a_node_that_lost_power_comes_back_with_new_containers(
    admin: Api,
    namespace: str,
    kubelet: Kubelet,
    make_kubelet: MakeKubelet,
    recorder: Recorder,
    wait_until: WaitUntil,
) -> None:
    statefulset(admin, namespace, "web", 1)
    wait_until(lambda: running(admin, namespace), SECONDS)
    before = sandbox_of(kubelet, namespace, "web-0")
    daemon = kubelet.machine.start(["sleep", "600"])
    kubelet.kill()
    assert daemon.wait(10) == -9
    assert not before.exists
    assert not os.path.exists(kubelet.machine.path)
    kubelet.machine.power_on()
    again = make_kubelet(kubelet.machine, recorder.config, bin_dirs=[recorder.bin_dir], environ=recorder.environ)
    wait_until(lambda: again.sandbox(namespace, "web-0") not in (None, before), SECONDS)
    assert [(verb, v.get("CNI_NETNS")) for verb, v in recorder.calls()] == [
        ("ADD", before.path),
        ("DEL", ""),
        ("ADD", sandbox_of(again, namespace, "web-0").path),
    ]


def test_a_power_cut_does_not_wait_for_plugins(
    admin: Api,
    namespace: str,
    make_machine: MakeMachine,
    make_kubelet: MakeKubelet,
    recorder: Recorder,
    wait_until: WaitUntil,
) -> None:
    plugin = recorder.bin_dir / "recorder"
    plugin.write_text(PLUGIN + "sleep 100\n")
    kubelet = make_kubelet(
        make_machine("node-a"), recorder.config, bin_dirs=[recorder.bin_dir], environ=recorder.environ
    )
    statefulset(admin, namespace, "web", 1)
    wait_until(recorder.verbs, SECONDS)
    (sandbox,) = kubelet.runtime.sandboxes()
    cut = threading.Thread(target=kubelet.kill)
    cut.start()
    cut.join(SECONDS)
    assert not cut.is_alive()
    assert not sandbox.exists
    assert kubelet.runtime.sandboxes() == [sandbox], "its disk remembers what DEL is owed to"


def test_a_partitioned_node_keeps_its_pods_and_is_given_up(
    make_control_plane: MakeControlPlane,
    make_machine: MakeMachine,
    make_kubelet: MakeKubelet,
    recorder: Recorder,
    wait_until: WaitUntil,
) -> None:
    plane = make_control_plane(Timing(node_grace_seconds=3, evict_after_seconds=1))
    admin = Api(plane.access())
    kubelets = [  # two, since a node controller that hears of none takes the fault for its own and evicts nothing
        make_kubelet(
            make_machine(name, plane),
            recorder.config,
            plane=plane,
            bin_dirs=[recorder.bin_dir],
            environ=recorder.environ,
        )
        for name in ("node-a", "node-b")
    ]
    statefulset(admin, "default", "web", 1)
    wait_until(lambda: running(admin, "default"), SECONDS)
    kubelet = next(k for k in kubelets if k.sandbox("default", "web-0"))
    sandbox = sandbox_of(kubelet, "default", "web-0")
    kubelet.partition()
    wait_until(lambda: "deletionTimestamp" in pods(admin, "default")["web-0"]["metadata"], SECONDS)
    assert sandbox.exists
    assert recorder.verbs() == ["ADD"]
    kubelet.heal()
    wait_until(lambda: recorder.verbs() == ["ADD", "DEL", "ADD"], SECONDS)
    wait_until(lambda: running(admin, "default"), SECONDS)
    admin.close()


def test_a_node_without_a_configuration_is_not_ready(
    admin: Api,
    namespace: str,
    make_machine: MakeMachine,
    make_kubelet: MakeKubelet,
    recorder: Recorder,
    wait_until: WaitUntil,
) -> None:
    kubelet = make_kubelet(make_machine("node-a"), {}, bin_dirs=[recorder.bin_dir], environ=recorder.environ)
    statefulset(admin, namespace, "web", 1)
    wait_until(lambda: pods(admin, namespace), SECONDS)
    ready = admin.get("/api/v1/nodes/node-a")["status"]["conditions"][0]
    assert (ready["type"], ready["status"]) == ("Ready", "False")
    assert "no network configuration" in ready["message"]
    (kubelet.runtime.conf_dir / "10-late.conf").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "late", "type": "recorder"})
    )
    wait_until(lambda: running(admin, namespace), SECONDS)


def test_a_node_reaches_the_api_server_and_its_neighbours_only(make_machine: MakeMachine, control_plane: Any) -> None:
    one, other = make_machine("node-a"), make_machine("node-b")
    for machine, address in ((one, "10.93.96.11"), (other, "10.93.96.12")):
        subprocess.run(["ip", "-n", machine.netns, "address", "add", f"{address}/20", "dev", "eth1"], check=True)
    for target in ("10.93.96.12", "10.93.96.1", control_plane.place.api_address):
        ping = ["nsenter", f"--net={path_of(one.netns)}", "ping", "-c1", "-W5", target]
        assert subprocess.run(ping, capture_output=True, check=False).returncode == 0, target
    curl = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    host, _, port = control_plane.server.removeprefix("https://").partition(":")
    subprocess.run(["nsenter", f"--net={one.path}", "python3", "-c", curl, host, port], check=True)
    ports = ["ip", "-o", "link", "show", "master", control_plane.place.bridge]
    assert len(subprocess.check_output(ports).splitlines()) == 2
    one.close()
    other.close()
    assert not os.path.exists(one.path)
    assert subprocess.check_output(ports) == b""
