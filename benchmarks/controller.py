"""`python -m benchmarks.controller`: the controller in a large cluster, on a real API server. Figures, no pass or fail.

10,000 pods with six addresses each by default: how long the first look at everything takes, what the controller costs
when nothing happens, how much memory it has, and how fast a large workload's addresses are released.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import msgspec

from benchmarks import populating

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from testcluster.api import Api
from testcluster.control_plane import ControlPlane
from testcluster.homeport_controller import HomeportController
from testcluster.installing import install

OURS = "/apis/homeport.dev/v1alpha1"
_DEADLINE_SECONDS = 600.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Figures(msgspec.Struct, kw_only=True):
    """Seconds, MiB, and CPU as a share of one core in percent."""

    pods: int
    allocations: int
    listed_seconds: float = 0.0  # from the start of the process until it has led and listed everything
    full_pass_seconds: float = 0.0  # of a look at every allocation, as the controller says
    settled_seconds: float = 0.0  # from the start until the ledger is whole too
    restarted_seconds: float = 0.0  # the same for one that finds a ledger
    idle_percent: float = 0.0
    idle_with_passes_percent: float = 0.0  # with a full pass each five minutes
    resident_mib: float = 0.0
    most_resident_mib: float = 0.0
    releases_a_second: float = 0.0


class Watched:
    """A controller's process, and what it says of itself."""

    def __init__(self, controller: HomeportController, port: int) -> None:
        self.controller, self._port = controller, port

    def metric(self, name: str) -> float | None:
        try:
            with urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return next((float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0] == name), None)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        self.controller.wait(condition, _DEADLINE_SECONDS, what)

    def cpu_seconds(self) -> float:
        assert self.controller.process is not None
        fields = Path(f"/proc/{self.controller.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mib(self, key: str) -> float:
        assert self.controller.process is not None
        status = Path(f"/proc/{self.controller.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith(key)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.controller", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--networks", type=int, default=6)
    parser.add_argument("--idle-seconds", type=float, default=30.0, metavar="N", help="over which the rest is measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
        found = measure(Path(folder), pods=args.pods, networks=args.networks, idle_seconds=args.idle_seconds)
    print(msgspec.json.format(msgspec.json.encode(found)).decode())


def measure(folder: Path, *, pods: int, networks: int, idle_seconds: float) -> Figures:
    """On a control plane of its own, all of which is in `folder`."""
    figures = Figures(pods=pods, allocations=pods * networks)
    with ControlPlane(folder / "plane") as plane:
        admin = Api(plane.access())
        install(admin)
        plane.fill(populating.cluster(pods=pods, networks=networks))
        port = free_port()
        controller = HomeportController(
            plane, folder / "controller", settings={"metricsPort": port, "metricsAddress": "127.0.0.1"}
        )
        watched = Watched(controller, port)
        figures.settled_seconds = _start(watched, figures)
        controller.stop()
        figures.restarted_seconds = _start(watched, figures)
        _rest(watched, figures, idle_seconds)
        _release(watched, admin, figures)
        figures.most_resident_mib = watched.memory_mib("VmHWM")
        controller.kill()
        admin.close()
    return figures


def free_port() -> int:
    """Of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _start(watched: Watched, figures: Figures) -> float:
    began = time.monotonic()
    watched.controller.start()
    allocations = "homeport_controller_allocations"
    watched.wait(lambda: watched.metric(allocations) == figures.allocations, "all allocations are listed")
    figures.listed_seconds = time.monotonic() - began
    watched.wait(lambda: watched.metric("homeport_controller_full_pass_seconds"), "a pass has ended")
    figures.full_pass_seconds = watched.metric("homeport_controller_full_pass_seconds") or 0.0
    watched.wait(lambda: watched.metric("homeport_controller_ledger_waiting_entries") == 0, "the ledger is whole")
    return time.monotonic() - began


def _rest(watched: Watched, figures: Figures, seconds: float) -> None:
    """Nothing happens. A full pass costs as much CPU as it takes time, or less."""
    watched.wait(lambda: watched.metric("homeport_controller_pending_lists") == 0, "everything is listed")
    figures.idle_percent = _cpu_percent(watched, seconds)
    figures.idle_with_passes_percent = figures.idle_percent + figures.full_pass_seconds / 300 * 100
    figures.resident_mib = watched.memory_mib("VmRSS")


def _cpu_percent(watched: Watched, seconds: float) -> float:
    before = watched.cpu_seconds()
    time.sleep(seconds)
    return (watched.cpu_seconds() - before) / seconds * 100


def _release(watched: Watched, admin: Api, figures: Figures) -> None:
    """A node with a hundredth of all pods is removed, and with it its pods: their addresses are let go, on proof."""
    node = "node-0"
    pods = f"/api/v1/namespaces/{populating.NAMESPACE}/pods"
    gone = [p["metadata"]["name"] for p in admin.get(pods, fieldSelector=f"spec.nodeName={node}")["items"]]
    for name in gone:
        admin.delete(f"{pods}/{name}", grace_seconds=0)
    retained = 'homeport_controller_changes_total{change="AddressRetained"}'
    wanted = len(gone) * figures.allocations // figures.pods
    began = time.monotonic()
    admin.delete(f"/api/v1/nodes/{node}")
    watched.wait(lambda: watched.metric(retained) == wanted, "all of the node's addresses are let go")
    figures.releases_a_second = wanted / (time.monotonic() - began)


if __name__ == "__main__":
    main()
