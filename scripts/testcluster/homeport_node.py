"""A simulated node that runs Homeport as docs/node.md puts it there: shim, daemon, generated configuration, kubelet.

Everything the node writes is below one folder, its disk; its network is the namespace of its `Machine`. Nothing here
reads through Homeport: what is left is looked for with `ip -json`, file names, and SQL.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from testcluster.control_plane import ControlPlane, kubelet_user, node_user
from testcluster.kubelet import Kubelet
from testcluster.machines import Machine
from testcluster.sandboxes import Runtime, Sandbox

ROOT = Path(__file__).resolve().parents[2]
DAEMON = (sys.executable, "-m", "homeport.daemon")
FOREIGN = "/usr/lib/cni"  # the reference plugins, as Debian installs them
READY_SECONDS = 20.0


class Disk:
    """Where the node keeps what; the names are those of a real node's directories."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin_dir = folder / "opt/cni/bin"
        self.conf_dir = folder / "etc/cni/net.d"
        self.network_dir = folder / "etc/cni/multus/net.d"
        self.config_file = folder / "etc/homeport/homeportd.json"
        self.socket_dir = folder / "run/homeport"
        self.state_dir = folder / "var/lib/homeport"
        self.journal = self.state_dir / "journal"
        self.cni_dir = folder / "var/lib/cni/multus"
        self.addresses = folder / "var/lib/cni/networks"
        self.runtime = folder / "var/lib/containerd"
        self.log = folder / "var/log/homeportd.log"
        for directory in (self.bin_dir, self.conf_dir, self.network_dir, self.config_file.parent, self.log.parent):
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def socket(self) -> Path:
        return self.socket_dir / "homeport.sock"

    @property
    def generated(self) -> Path:
        """What the daemon writes for the runtime."""
        return self.conf_dir / "00-multus.conf"


class HomeportNode:
    """`number` makes the pod network's subnet, 10.77.NUMBER.0/24. `store` is a file of allocations that all nodes
    share; without one they are in the cluster.

    `settings` go over the daemon's configuration file, `server` stands in for the API server's URL in its kubeconfig,
    `environ` is added to the shim's environment, `daemon_environ` to the daemon's.
    """

    def __init__(
        self,
        machine: Machine,
        plane: ControlPlane,
        folder: Path,
        *,
        number: int,
        store: Path | None = None,
        shim: Path,
        settings: Mapping[str, Any] | None = None,
        server: str = "",
        environ: Mapping[str, str] | None = None,
        daemon: Sequence[str] = DAEMON,
        daemon_environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = machine.name
        self.machine = machine
        self.disk = Disk(folder)
        self.store = store
        self.daemon: subprocess.Popen[bytes] | None = None
        self._plane = plane
        self._daemon_environ = daemon_environ or {}
        self._argv = (*daemon, "--config", str(self.disk.config_file))
        self._install(shim)
        self._write_configurations(number, server, dict(settings or {}))
        self.runtime = Runtime(
            machine,
            self.disk.runtime,
            conf_dir=self.disk.conf_dir,
            bin_dirs=[self.disk.bin_dir],
            environ={**self.shim_environ, **(environ or {})},
        )
        self.kubelet = Kubelet(machine, plane.access(kubelet_user(self.name)), self.runtime)

    @property
    def shim_environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOMEPORT_SOCKET": str(self.disk.socket),
            "HOMEPORT_JOURNAL": str(self.disk.journal),
        }

    def _install(self, shim: Path) -> None:
        installed = self.disk.bin_dir / "homeport"
        installed.write_bytes(shim.read_bytes())
        installed.chmod(0o755)

    def _write_configurations(self, number: int, server: str, settings: dict[str, Any]) -> None:
        disk = self.disk
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": f"10.77.{number}.0/24"}]],
            "dataDir": str(disk.addresses),
        }
        bridge = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "ipam": ipam}
        primary = {"cniVersion": "0.4.0", "name": "pod-network", "plugins": [bridge]}
        (disk.conf_dir / "10-pod-network.conflist").write_text(json.dumps(primary))
        kubeconfig = json.loads(self._plane.kubeconfig(node_user(self.name)).read_text())
        if server:
            kubeconfig["clusters"][0]["cluster"]["server"] = server
        file = disk.config_file.parent / "kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(kubeconfig))
        config = {
            "multusConfigFile": "auto",
            "cniConfigDir": str(disk.conf_dir),
            "multusAutoconfigDir": str(disk.conf_dir),
            "binDir": str(disk.bin_dir),
            "confDir": str(disk.network_dir),
            "cniDir": str(disk.cni_dir),
            "socketDir": str(disk.socket_dir),
            "stateDir": str(disk.state_dir),
            "kubeconfig": str(file),
            **({"store": str(self.store)} if self.store is not None else {}),
            "logLevel": "debug",
            **settings,
        }
        disk.config_file.write_text(json.dumps(config, indent=2))

    # --- its life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The daemon, then the kubelet."""
        self.start_daemon()
        self.kubelet.start()

    def start_daemon(self) -> None:
        """Returns when it answers."""
        assert self.daemon is None or self.daemon.poll() is not None, f"{self.name} has a daemon"
        self.launch_daemon()
        self.await_daemon()

    def await_daemon(self) -> None:
        """Until it answers, and the runtime has a configuration."""
        self.wait(self.is_ready, READY_SECONDS, "the daemon answers")
        self.wait(self.disk.generated.exists, READY_SECONDS, "the daemon wrote the runtime's configuration")

    def launch_daemon(self) -> None:
        """Returns at once."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOMEPORT_NODE": self.name,
            "PYTHONPATH": str(ROOT / "src"),
            **self._daemon_environ,
        }
        self.daemon = self.machine.start(self._argv, environ=environ, log=str(self.disk.log))

    def is_ready(self) -> bool:
        """What /readyz says. The answer to a connection that nobody takes is no."""
        assert self.daemon
        assert self.daemon.poll() is None, f"the daemon of {self.name} ended with {self.daemon.poll()}\n{self.log()}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/readyz") == 200
        return False

    def ask(self, method: str, path: str) -> int:
        """The status of an HTTP request on the daemon's socket."""
        connection = http.client.HTTPConnection("homeport", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.disk.socket))
            connection.request(method, path)
            return connection.getresponse().status

    def kill_daemon(self) -> None:
        """SIGKILL: it does not get to say anything."""
        assert self.daemon
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()
        self.daemon = None

    def stop_daemon(self) -> None:
        """SIGTERM, as `systemctl stop` does; it must end well."""
        assert self.daemon
        self.daemon.send_signal(signal.SIGTERM)
        assert self.daemon.wait(30) == 0, self.log()
        self.daemon = None

    def close(self) -> None:
        """The kubelet first: what it started must not find the daemon gone. Idempotent."""
        self.kubelet.kill()
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    # --- what is on it ---------------------------------------------------------------------------------------------

    def sandbox(self, namespace: str, name: str) -> Sandbox:
        sandbox = self.kubelet.sandbox(namespace, name)
        assert sandbox, f"{self.name} has no sandbox of {namespace}/{name}"
        return sandbox

    def leftovers(self) -> dict[str, list[str]]:
        """What is there although no pod is: none of it may be."""
        disk = self.disk
        found = {
            "namespaces": [n for n in os.listdir("/run/netns") if n.startswith(f"cni-{self.name}-")],
            "links": [n for n in links(self.machine.netns) if n not in ("lo", "eth0", "eth1", "cni0")],
            "scratch": [p.name for p in files(disk.cni_dir) if p.parent == disk.cni_dir],
            "results": [p.name for p in files(disk.cni_dir / "results")],
            "runtime": [str(p.relative_to(disk.runtime)) for p in files(disk.runtime) if p.name != "plugins.log"],
            "journal": [p.name for p in files(disk.journal)],
            "records": [p.name for p in files(disk.state_dir / "pods")],
            "addresses": [p.name for p in files(disk.addresses) if p.name[0].isdigit()],
            "claims": list(self.claims()),
        }
        return {kind: names for kind, names in found.items() if names}

    def claims(self) -> dict[str, dict[str, Any]]:
        """Address to how far its claim is, as the rows of the node's file say."""
        file = self.disk.state_dir / "claims.db"
        if not file.exists():
            return {}
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT address, note FROM claims").fetchall()
        return {str(ip_address(address)): json.loads(note) for address, note in rows}

    def await_nothing_left(self, seconds: float = 20.0) -> None:
        """Until `leftovers` finds nothing; what is done in the background may take a moment."""
        deadline = time.monotonic() + seconds
        while left := self.leftovers():
            assert time.monotonic() < deadline, f"{self.name} after {seconds:g} s: left {left}"
            time.sleep(0.02)

    def log(self) -> str:
        """What the daemon said."""
        return self.disk.log.read_text() if self.disk.log.exists() else ""

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= deadline:
                raise AssertionError(f"{self.name}: still not so after {seconds:g} s: {what}\n{self.log()[-6000:]}")
            time.sleep(0.02)


def files(directory: Path) -> list[Path]:
    """Every file below it, also those whose name begins with a dot."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def ip_json(netns: str, *command: str) -> list[dict[str, Any]]:
    """What `ip` finds in a namespace, by its name."""
    done = subprocess.run(["ip", "-n", netns, "-j", *command], capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def links(netns: str) -> dict[str, dict[str, Any]]:
    """By name."""
    return {link["ifname"]: link for link in ip_json(netns, "-d", "link")}


def addresses(netns: str) -> dict[str, list[str]]:
    """Interface to its IPv4 addresses with prefixes, without the loopback's."""
    return {
        link["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"]]
        for link in ip_json(netns, "-4", "address")
        if link["ifname"] != "lo"
    }


def pings(netns: str, source: str, target: str) -> bool:
    """Whether an echo comes back within 2 s; three are sent, for the first waits for a neighbour."""
    argv = ["ip", "netns", "exec", netns, "ping", "-n", "-c", "1", "-W", "2", "-I", source, target]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def allocations(store: Path) -> dict[str, dict[str, Any]]:
    """Address to its record, as the rows of the store say."""
    if not store.exists():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT address, record FROM allocations").fetchall()
    return {str(ip_address(address)): json.loads(record) for address, record in rows}
