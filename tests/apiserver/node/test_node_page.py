"""docs/node.md, step by step: what it says to do is done here, below a directory that stands for the node's root."""

from __future__ import annotations

import base64
import configparser
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML
from testcluster.api import Api
from testcluster.binaries import ROOT
from testcluster.homeport_node import addresses
from tests.apiserver.node.workloads import Cluster

if TYPE_CHECKING:
    from tests.apiserver.node.conftest import MakeNode

pytestmark = pytest.mark.root
PAGE = (ROOT / "docs/node.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block(language: str, containing: str) -> str:
    (found,) = [text for kind, text in FENCE.findall(PAGE) if kind == language and containing in text]
    return str(found)


def unit() -> configparser.ConfigParser:
    """deploy/homeportd.service, keys as they are written."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "deploy/homeportd.service")
    return parser


def secret(admin: Api, cluster: Cluster) -> dict[str, str]:
    """That of deploy/node-token.yaml, once the controller has filled it."""
    path = "/api/v1/namespaces/kube-system/secrets/homeport-node"
    cluster.wait(lambda: "token" in admin.get(path).get("data", {}), "the token is there")
    data: dict[str, str] = admin.get(path)["data"]
    return data


def test_the_page(cluster: Cluster, admin: Api, make_node: MakeNode) -> None:
    applied = re.findall(r"kubectl apply -f (\S+)", PAGE)
    assert len(applied) == 3
    for path in (ROOT / name for name in applied):
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            admin.apply_file(file)
    data = secret(admin, cluster)

    node = make_node("node-a", start=False)
    disk = node.disk
    (disk.bin_dir / "homeport").unlink()
    subprocess.run(["make", "-s", "-C", str(ROOT / "shim"), "native"], check=True, capture_output=True)
    (line,) = re.findall(r"^# /opt/homeport/bin/(homeport install .*)$", PAGE, re.MULTILINE)
    argv = line.replace("/opt/cni/bin", str(disk.bin_dir)).split()
    subprocess.run([str(Path(sys.executable).with_name(argv[0])), *argv[1:]], check=True, capture_output=True)
    assert os.listdir(disk.bin_dir) == ["homeport"]

    kubeconfig: dict[str, Any] = YAML(typ="safe", pure=True).load(block("yaml", "kind: Config"))
    server = json.loads((disk.config_file.parent / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
    kubeconfig["clusters"][0]["cluster"] = {"server": server, "certificate-authority-data": data["ca.crt"]}
    kubeconfig["users"][0]["user"]["token"] = base64.b64decode(data["token"]).decode()
    (disk.config_file.parent / "kubeconfig").write_text(json.dumps(kubeconfig))
    written = json.loads(disk.config_file.read_text())
    paged = json.loads(block("json", "multusConfigFile"))
    assert paged["kubeconfig"] == "/etc/homeport/kubeconfig"
    assert paged.keys() <= written.keys()
    for key in ("logLevel", "confDir"):
        del written[key]
    disk.config_file.write_text(json.dumps(written))  # the page's, but for where directories are

    service = unit()["Service"]
    program, *arguments = service["ExecStart"].split()
    assert program == "/opt/homeport/bin/homeportd"
    assert arguments == ["--config", "/etc/homeport/homeportd.json"]
    node.start()
    assert (disk.socket_dir / "multus.sock").resolve() == disk.socket

    ipam = {"type": "whereabouts", "range": "10.93.96.0/20", "range_start": "10.93.97.12"}
    cluster.network("front", {"type": "macvlan", "master": "eth1", "ipam": ipam})
    cluster.statefulset("web", 1, "front")
    cluster.await_running(1)
    sandbox = node.sandbox(cluster.namespace, "web-0")
    assert addresses(sandbox.netns)["net1"] == ["10.93.97.12/20"]
    assert cluster.status("web-0"), "the role allows it"

    # systemctl reload: the same process, and calls meanwhile are served
    assert node.daemon
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    serving = node.log().count("serving")
    node.daemon.send_signal(signal.SIGHUP)
    node.runtime.check(sandbox)
    node.wait(lambda: node.log().count("serving") > serving, 20, "its successor serves")
    node.runtime.check(sandbox)
    disk.config_file.write_text('{"socketDir": 7}')
    node.daemon.send_signal(signal.SIGHUP)
    node.wait(lambda: "no restart" in node.log(), 20, "it refuses a broken file")
    disk.config_file.write_text(json.dumps(written))

    # Multus ends, and takes the runtime's configuration with it
    disk.generated.unlink()
    node.wait(disk.generated.exists, 5, "the file is back")

    # systemctl stop, and a DEL meanwhile
    node.stop_daemon()
    cluster.delete_statefulset("web")
    cluster.await_gone()
    assert len(os.listdir(disk.journal)) == 1
    node.start_daemon()
    node.await_nothing_left()


def test_the_unit_gives_the_daemon_the_time_it_needs() -> None:
    service = unit()["Service"]
    drain = re.search(r"\| `drainSeconds` \| `(\d+)` \|", (ROOT / "docs/configuration.md").read_text())
    assert drain
    assert float(service["TimeoutStopSec"]) > float(drain[1])
    assert service["Restart"] == "always"
    assert unit()["Unit"]["StartLimitIntervalSec"] == "0", "it is never given up"
