"""From Multus to Homeport while pods run: what it added is deleted, and its shim is served, requests to the byte."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from testcluster.homeport_node import FOREIGN, HomeportNode, addresses, files, links
from testcluster.machines import delete_namespace, path_of
from tests.apiserver.node.workloads import NETWORKS, Cluster, allocations

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root


class Container:
    """One of a pod on the node, whose calls a test makes itself."""

    def __init__(self, node: HomeportNode, pod: Mapping[str, Any]) -> None:
        self.id = secrets.token_hex(32)
        self.netns = f"cni-{node.name}-{self.id[:12]}"
        self.pod = pod
        self.node = node
        subprocess.run(["ip", "netns", "add", self.netns], check=True)

    def environ(self, command: str, *, ifname: str = "eth0", path: str = "") -> dict[str, str]:
        """As containerd has it."""
        metadata = self.pod["metadata"]
        args = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": metadata["namespace"],
            "K8S_POD_NAME": metadata["name"],
            "K8S_POD_INFRA_CONTAINER_ID": self.id,
            "K8S_POD_UID": metadata["uid"],
        }
        return {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.id,
            "CNI_NETNS": path_of(self.netns),
            "CNI_IFNAME": ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in args.items()),
            "CNI_PATH": path or str(self.node.disk.bin_dir),
        }

    def run(self, program: Path, environ: Mapping[str, str], config: Mapping[str, Any]) -> Any:
        """A plugin in the node's namespace; what it printed."""
        argv = ["nsenter", f"--net={self.node.machine.path}", "--", str(program)]
        env = {**self.node.shim_environ, **environ}
        done = subprocess.run(argv, env=env, input=json.dumps(config).encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture
def container(cluster: Cluster, make_node: MakeNode, disks: Path) -> Iterator[Container]:
    """Of a pod with one network besides the default one, on a node that has no daemon yet."""
    node = make_node("node-a", start=False, settings={"cniVersion": "1.1.0"})
    ipam = {"type": "host-local", "subnet": "10.93.96.0/20", "dataDir": str(node.disk.addresses)}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": ipam})
    spec = {"nodeName": node.name, "containers": [{"name": "main", "image": "none"}]}
    pod = cluster.create_pod({"metadata": {"name": "old", "annotations": {NETWORKS: "front"}}, "spec": spec})
    made = Container(node, pod)
    yield made
    delete_namespace(made.netns)


def add_as_multus(node: HomeportNode, container: Container, front: Mapping[str, Any], namespace: str) -> None:
    """What Multus 4.2 does on ADD: runs the reference plugins, caches their results, writes its scratch file."""
    primary = json.loads((node.disk.conf_dir / "10-pod-network.conflist").read_text())
    named = {**front, "name": "front"}
    scratch = []
    for config, ifname, name in ((primary, "eth0", "pod-network"), (named, "net1", f"{namespace}/front")):
        environ = container.environ("ADD", ifname=ifname, path=FOREIGN)
        (plugin,) = config["plugins"]
        conf = {**plugin, "name": config["name"], "cniVersion": config["cniVersion"]}
        result = container.run(Path(FOREIGN) / plugin["type"], environ, conf)
        text = json.dumps(config).encode()
        entry = {
            "kind": "cniCacheV1",
            "containerId": container.id,
            "config": base64.b64encode(text).decode(),
            "ifName": ifname,
            "networkName": config["name"],
            "netns": environ["CNI_NETNS"],
            "cniArgs": [pair.split("=", 1) for pair in environ["CNI_ARGS"].split(";")],
            "result": result,
        }
        cached = node.disk.cni_dir / "results" / f"{config['name']}-{container.id}-{ifname}"
        cached.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        cached.write_text(json.dumps(entry))
        told = {"cniVersion": "", "name": "", "type": plugin["type"], "ipam": {"type": "host-local"}, "dns": {}}
        scratch.append(
            {
                "Conf": {"name": "", "cniVersion": "", "type": "", "ipam": {}, "dns": {}},
                "ConfList": {"cniVersion": config["cniVersion"], "name": config["name"], "plugins": [told]},
                "Name": name,
                "ifnameRequest": "" if ifname == "eth0" else ifname,
                "IsFilterV4Gateway": False,
                "IsFilterV6Gateway": False,
                "Bytes": base64.b64encode(text).decode(),
            }
        )
    (node.disk.cni_dir / container.id).write_text(json.dumps(scratch))


def test_a_pod_that_multus_added_is_deleted(container: Container, cluster: Cluster) -> None:
    node = container.node
    path = f"/apis/k8s.cni.cncf.io/v1/namespaces/{cluster.namespace}/network-attachment-definitions/front"
    front = json.loads(cluster.api.get(path)["spec"]["config"])
    add_as_multus(node, container, front, cluster.namespace)
    assert set(addresses(container.netns)) == {"eth0", "net1"}
    assert len([path for path in files(node.disk.addresses) if path.name[0].isdigit()]) == 2

    node.start_daemon()
    config = json.loads(node.disk.generated.read_text())
    shim = node.disk.bin_dir / "homeport"
    container.run(shim, container.environ("CHECK"), config)
    container.run(shim, container.environ("DEL"), config)
    assert set(links(container.netns)) == {"lo"}
    delete_namespace(container.netns)
    cluster.forget_pod("old")
    node.await_nothing_left()
    container.run(shim, container.environ("DEL"), config)  # again, as runtimes do


# --- upstream's shim -------------------------------------------------------------------------------------------------


def ask(node: HomeportNode, request: bytes) -> tuple[int, bytes]:
    """Status and body. Upstream's shim connects where its `daemonSocketDir` says, to `multus.sock`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(node.disk.socket_dir / "multus.sock"))
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """What Go's net/http sends for `client.Post("http://dummy" + path, "application/json", ...)`, to the byte."""
    text = json.dumps(body, separators=(",", ":"), sort_keys=False).encode()
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: dummy",
        "User-Agent: Go-http-client/1.1",
        f"Content-Length: {len(text)}",
        "Content-Type: application/json",
        "Accept-Encoding: gzip",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: dummy\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n"


def body_of(environ: Mapping[str, str], config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """As the shim does: all of its environment, and its standard input in base64. Go sorts the keys of a map."""
    env = {**environ, "PATH": "/usr/bin", "INVOCATION_ID": "5ee1"}
    return {
        "env": dict(sorted(env.items())),
        "config": base64.b64encode(json.dumps(config).encode()).decode(),
        **more,
    }


def test_an_unmodified_multus_shim_is_served(container: Container, cluster: Cluster) -> None:
    node = container.node
    node.start_daemon()
    config = {**json.loads(node.disk.generated.read_text()), "type": "multus-shim"}

    def call(command: str, **keys: Any) -> tuple[int, bytes]:
        return ask(node, post("/cni", body_of(container.environ(command), {**config, **keys})))

    assert ask(node, HEALTH)[0] == 200
    status, body = call("ADD")
    assert status == 200, body
    result = json.loads(body)["Result"]
    assert result["cniVersion"] == "1.1.0"
    assert addresses(container.netns)["eth0"] == [ip["address"] for ip in result["ips"]]
    assert cluster.status("old").count('"interface": ') == 2

    plugin = {
        "type": "macvlan",
        "master": "eth1",
        "ipam": {"type": "static"},
        "capabilities": {"ips": True, "mac": True},
    }
    hotplug = {"cniVersion": "1.0.0", "name": "plugged", **plugin}
    attributes = {"ips": ["10.9.9.9/24"], "mac": "02:00:00:00:09:09"}
    for command in ("ADD", "DEL"):
        environ = container.environ(command, ifname="hot0")
        status, body = ask(node, post("/delegate", body_of(environ, hotplug, interfaceAttributes=attributes)))
        assert status == 200, body
        found = links(container.netns)
        assert found["hot0"]["address"] == attributes["mac"] if command == "ADD" else "hot0" not in found

    for command in ("CHECK", "STATUS", "DEL", "DEL"):
        assert call(command) == (200, b""), command
    assert set(links(container.netns)) == {"lo"}
    status, body = call("ADD", clusterNetwork="/nowhere")
    assert status == 400
    assert "/nowhere" in json.loads(body)["msg"]
    delete_namespace(container.netns)
    cluster.forget_pod("old")
    node.await_nothing_left()
    assert allocations(cluster.api) == {}
