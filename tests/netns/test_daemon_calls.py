"""A real daemon in a real node: single plugins and the meta-plugin, by its own protocol and by upstream's."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.daemons import DaemonProcess, call_of, http, send

from homeport.daemon.calls import Call

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, KernelState, MakeNetns, Node

pytestmark = pytest.mark.root

MACVLAN = {
    "cniVersion": "0.4.0",
    "name": "lan",
    "type": "macvlan",
    "master": "eth1",
    "ipam": {"type": "whereabouts", "range": "10.93.96.0/20"},
}
META = {"cniVersion": "0.4.0", "name": "node", "type": "homeport", "delegates": [MACVLAN]}


def helpers_of(daemon: DaemonProcess) -> list[int]:
    """Its children: the process that enters namespaces for it. `nsenter` has become the daemon, so its ID is that."""
    listed = subprocess.run(["pgrep", "-P", str(daemon.pid)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in listed.stdout.split()]


@pytest.fixture
def daemon(tmp_path: Path, node: Node) -> Iterator[DaemonProcess]:
    made = DaemonProcess(tmp_path, netns=node.netns).start()
    yield made
    assert made.stop() == 0
    assert "Traceback" not in made.log.read_text()
    made.end()


def call(command: str, pod: str, *, plugin: str, conf: dict[str, Any], container: str = "c1") -> Call:
    return call_of(command, container, plugin=plugin, stdin=json.dumps(conf).encode(), NETNS=pod)


@pytest.mark.parametrize(("plugin", "conf"), [("macvlan", MACVLAN), ("homeport", META), ("multus", META)])
def test_a_pod_comes_and_goes(
    daemon: DaemonProcess,
    netns: MakeNetns,
    ip_json: IpJson,
    kernel_state: KernelState,
    plugin: str,
    conf: dict[str, Any],
) -> None:
    pod = netns("pod")
    before = kernel_state(pod)
    reply = send(daemon.socket, call("ADD", pod, plugin=plugin, conf=conf))
    assert reply.exit_code == 0, reply.stdout
    result = json.loads(reply.stdout)
    assert result["cniVersion"] == "0.4.0"
    (link,) = ip_json(pod, "address", "show", "dev", "eth0")
    assert f"{link['addr_info'][0]['local']}/20" == result["ips"][0]["address"]
    chained = {**conf, "prevResult": result}
    assert send(daemon.socket, call("CHECK", pod, plugin=plugin, conf=chained)).exit_code == 0
    again = send(daemon.socket, call("ADD", pod, plugin=plugin, conf=conf))
    assert again.exit_code == 1
    for _ in range(2):  # the second finds nothing, which is success
        done = send(daemon.socket, call("DEL", pod, plugin=plugin, conf=chained))
        assert (done.exit_code, done.stdout) == (0, b"")
    assert kernel_state(pod) == before


def test_a_pod_by_upstreams_protocol(daemon: DaemonProcess, netns: MakeNetns, ip_json: IpJson) -> None:
    pod, path = netns("pod"), daemon.socket.with_name("multus.sock")

    def post(command: str) -> tuple[int, bytes]:
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": pod, "CNI_ARGS": "IgnoreUnknown=1"}
        config = base64.b64encode(json.dumps(META).encode()).decode()
        return http(path, "POST", "/cni", json.dumps({"env": env, "config": config}).encode())

    status, body = post("ADD")
    assert status == 200
    result = json.loads(body)["Result"]
    assert result["cniVersion"] == "1.1.0"
    assert result["interfaces"][0]["name"] == "eth0"
    assert ip_json(pod, "link", "show", "dev", "eth0")
    status, body = post("ADD")
    assert status == 400
    assert json.loads(body)["code"] == 103
    assert post("CHECK") == (200, b"")
    assert post("DEL") == (200, b"")
    assert [link["ifname"] for link in ip_json(pod, "link", "show")] == ["lo"]


def test_one_network_more_by_hotplug(daemon: DaemonProcess, netns: MakeNetns, ip_json: IpJson) -> None:
    """As hotplug controllers ask: without CNI_PATH, and with the addresses they want."""
    pod = netns("pod")
    conf = {**MACVLAN, "capabilities": {"mac": True}}
    del conf["ipam"]

    def post(command: str) -> int:
        env = {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1", "CNI_NETNS": pod, "CNI_IFNAME": "net7"}
        config = base64.b64encode(json.dumps(conf).encode()).decode()
        wanted = {"mac": "02:00:00:00:00:07"}
        body = {"env": env, "config": config, "interfaceAttributes": wanted}
        return http(daemon.socket, "POST", "/delegate", json.dumps(body).encode())[0]

    assert post("ADD") == 200
    (link,) = ip_json(pod, "link", "show", "dev", "net7")
    assert link["address"] == "02:00:00:00:00:07"
    assert post("CHECK") == 200
    assert post("DEL") == 200
    assert [link["ifname"] for link in ip_json(pod, "link", "show")] == ["lo"]


def test_the_nodes_own_namespace_is_refused(daemon: DaemonProcess, node: Node, kernel_state: KernelState) -> None:
    before = kernel_state(node.netns)
    for plugin, conf in (("macvlan", MACVLAN), ("homeport", META)):
        for command in ("ADD", "DEL"):
            reply = send(daemon.socket, call(command, node.netns, plugin=plugin, conf=conf))
            assert json.loads(reply.stdout)["code"] == 8
    assert kernel_state(node.netns) == before


def test_thirty_two_pods_at_once(daemon: DaemonProcess, netns: MakeNetns) -> None:
    pods = [netns("pod") for _ in range(32)]

    def attach(n: int) -> str:
        reply = send(daemon.socket, call("ADD", pods[n], plugin="homeport", conf=META, container=f"c{n}"))
        assert reply.exit_code == 0, reply.stdout
        address: str = json.loads(reply.stdout)["ips"][0]["address"]
        return address

    def detach(n: int) -> int:
        return send(daemon.socket, call("DEL", pods[n], plugin="homeport", conf=META, container=f"c{n}")).exit_code

    with ThreadPoolExecutor(32) as pool:
        assert len(set(pool.map(attach, range(32)))) == 32
        assert set(pool.map(detach, range(32))) == {0}
    assert [path for path in daemon.cni_dir.rglob("*") if path.is_file()] == []
    assert list(daemon.journal.iterdir()) == []


def test_a_helper_that_is_killed_costs_no_call(daemon: DaemonProcess, netns: MakeNetns) -> None:
    """Whatever threads have asked it, they ask the next one."""
    pods = [netns("pod") for _ in range(16)]
    first = call("ADD", pods[0], plugin="homeport", conf=META, container="c0")
    assert send(daemon.socket, first).exit_code == 0
    (helper,) = helpers_of(daemon)

    def attach(n: int) -> int:
        if n == 4:
            os.kill(helper, signal.SIGKILL)
        return send(daemon.socket, call("ADD", pods[n], plugin="homeport", conf=META, container=f"c{n}")).exit_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(attach, range(1, 16))) == {0}
    assert helpers_of(daemon) not in ([], [helper])
