"""A runtime that reads the generated configuration, up to the pod's interface: what the primary alone would give.

The runtime is `homeport cni`, which loads a directory by libcni's rules and starts the shim like any foreign plugin;
the shim asks a real daemon. The other side of the comparison is the same runtime with the primary's own configuration.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.daemons import DaemonProcess
from tests.shim.builds import build

if TYPE_CHECKING:
    from tests.netns.conftest import IpJson, KernelState, MakeNetns

pytestmark = pytest.mark.root

WaitUntil = Callable[..., None]
GENERATED, PRIMARY = "multus-cni-network", "pods"


class Runtime:
    """A node's container runtime with its directories."""

    def __init__(self, root: Path, node: str) -> None:
        self.root = root
        self.node = node
        self.directory = root / "net.d"
        self.directory.mkdir()
        self.bin = root / "bin"
        self.bin.mkdir()
        shutil.copy(build("native"), self.bin / "homeport")
        self.daemon = DaemonProcess(
            root,
            netns=node,
            multusConfigFile="auto",
            cniConfigDir=str(self.directory),
            logLevel="debug",
        )

    def write_primary(self, version: str, **bridge: Any) -> None:
        plugin = {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "capabilities": {"mac": True, "ips": True},
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.root / "host-local"),
                "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
            **bridge,
        }
        unfinished = self.root / "unfinished"
        unfinished.write_text(json.dumps({"cniVersion": version, "name": PRIMARY, "plugins": [plugin]}))
        unfinished.rename(self.directory / "10-pods.conflist")

    def call(self, verb: str, network: str, *arguments: str) -> dict[str, Any]:
        """One call of the runtime; the result of an ADD."""
        argv = ["nsenter", f"--net={self.node}", "--", sys.executable, "-m", "homeport", "cni", verb, network]
        where = ["--conf-dir", str(self.directory), "--cache-dir", str(self.root / "cache")]
        where += ["--bin-dir", str(self.bin)] if verb != "gc" else []
        env = {**os.environ, "HOMEPORT_SOCKET": str(self.daemon.socket), "HOMEPORT_CONNECT_SECONDS": "0"}
        argv += [*arguments, *where, *(["-o", "json"] if verb == "add" else [])]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, f"{verb} {network}: {done.stdout}{done.stderr}\n{self.daemon.log.read_text()}"
        found: dict[str, Any] = json.loads(done.stdout) if verb == "add" else {}
        return found


@pytest.fixture
def runtime(tmp_path: Path, netns: MakeNetns) -> Iterator[Runtime]:
    made = Runtime(tmp_path, netns("node"))
    yield made
    made.daemon.end()


def without_chance(result: dict[str, Any]) -> dict[str, Any]:
    """MACs, the host's end of the pair and the namespace differ between any two attachments, the last byte of an
    address too.
    """
    kept = {key: value for key, value in result.items() if key not in ("interfaces", "ips")}
    names = [interface["name"] for interface in result["interfaces"]]
    sandboxed = ["sandbox" in interface for interface in result["interfaces"]]
    addresses = [{**ip, "address": ip["address"].rpartition("/")[2]} for ip in result["ips"]]
    return {**kept, "names": [names[0], names[1][:4], names[2]], "sandboxed": sandboxed, "ips": addresses}


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_same_as_primary(
    runtime: Runtime, netns: MakeNetns, ip_json: IpJson, wait_until: WaitUntil, version: str
) -> None:
    runtime.write_primary(version)
    runtime.daemon.start()
    wait_until((runtime.directory / "00-multus.conf").exists)
    direct, led = netns("direct"), netns("led")
    alone = runtime.call("add", PRIMARY, direct)
    through = runtime.call("add", GENERATED, led)
    assert through["cniVersion"] == version
    assert without_chance(through) == without_chance(alone)

    def seen(where: str) -> list[Any]:
        links = ip_json(where, "address", "show", "eth0")
        routes = [route for family in "46" for route in ip_json(where, f"-{family}", "route", "show")]
        shown = [(link["mtu"], link["operstate"], [a["prefixlen"] for a in link["addr_info"]]) for link in links]
        return [*shown, *sorted((r["dst"], r.get("gateway", ""), r["dev"]) for r in routes)]

    assert seen(led) == seen(direct)
    for network, where in ((PRIMARY, direct), (GENERATED, led)):
        runtime.call("check", network, where)
        runtime.call("del", network, where)
        runtime.call("del", network, where)
        assert [link["ifname"] for link in ip_json(where, "link", "show")] == ["lo"]
    assert not [name for name in os.listdir(runtime.root / "host-local" / PRIMARY) if name[0].isdigit()]
    assert os.listdir(runtime.root / "cache/results") == []


def test_capabilities_reach_it(runtime: Runtime, netns: MakeNetns, ip_json: IpJson, wait_until: WaitUntil) -> None:
    """The file declares what the primary can do, so the runtime sends it, and it arrives at the primary's plugins."""
    runtime.write_primary("1.0.0")
    runtime.daemon.start()
    wait_until((runtime.directory / "00-multus.conf").exists)
    pod = netns("pod")
    asked = {"mac": "02:00:00:00:09:07", "ips": ["10.9.0.77"]}
    runtime.call("add", GENERATED, pod, "--capability-args", json.dumps(asked))
    (eth0,) = ip_json(pod, "address", "show", "eth0")
    assert eth0["address"] == "02:00:00:00:09:07"
    assert "10.9.0.77" in [address["local"] for address in eth0["addr_info"]]
    runtime.call("del", GENERATED, pod)


def test_del_after_change(runtime: Runtime, netns: MakeNetns, kernel_state: KernelState, wait_until: WaitUntil) -> None:
    """A pod is detached from what it was attached to, whatever the primary's file says by then, or if it is there."""
    runtime.write_primary("1.0.0")
    runtime.daemon.start()
    generated = runtime.directory / "00-multus.conf"
    wait_until(generated.exists)
    pod = netns("pod")
    before = kernel_state(pod)
    runtime.call("add", GENERATED, pod)
    runtime.write_primary("1.1.0", bridge="other0", ipam={})
    wait_until(lambda: '"1.1.0"' in generated.read_text())
    (runtime.directory / "10-pods.conflist").unlink()
    runtime.call("del", GENERATED, pod)
    assert kernel_state(pod) == before
    assert not [name for name in os.listdir(runtime.root / "host-local" / PRIMARY) if name[0].isdigit()]
