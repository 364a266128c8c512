"""A control plane, nodes on one segment, and a controller, kept from test to test while they are sound.

I/O: processes. To start them takes seconds, a row of the matrix less: so rows share them, one after the other.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from testcluster.api import Api
from testcluster.control_plane import ControlPlane
from testcluster.homeport_controller import CONTROLLER, HomeportController
from testcluster.homeport_node import HomeportNode
from testcluster.machines import Machine, Segment

HOMEPORT = "/apis/homeport.dev/v1alpha1"
LEASE_SECONDS = 3
NODES = ("node-a", "node-b", "node-c")


class Crew:
    """`folder` is where the nodes' disks are; its name is short, since a socket's path is bounded."""

    def __init__(self, plane: ControlPlane, folder: Path, shim: Path, names: tuple[str, ...] = NODES) -> None:
        self.plane = plane
        self.admin = Api(plane.access())
        self.folder = folder
        self.names = names
        self.nodes: dict[str, HomeportNode] = {}
        self.segment: Segment | None = None
        self.controller: HomeportController | None = None
        self._shim = shim
        self._lives = itertools.count(1)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What these nodes' daemons are told besides the usual."""
        return {}

    def start(self) -> None:
        """What is not there yet."""
        if self.nodes:
            return
        self.segment = Segment(self.plane.guard)
        home = self.folder / str(next(self._lives))
        self.controller = self.make_controller("controller-a", home)
        self.controller.start()
        for number, name in enumerate(self.names, start=1):
            self.nodes[name] = self._node(Machine(name, self.plane, self.segment), home / name, number)
        for node in self.nodes.values():
            node.launch_daemon()
        for node in self.nodes.values():
            node.await_daemon()
        for node in self.nodes.values():
            node.kubelet.start()

    def make_controller(
        self,
        name: str,
        folder: Path,
        *,
        program: Sequence[str] = CONTROLLER,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> HomeportController:
        """With a short lease, so that the successor of a killed one need not wait."""
        told = {"leaseSeconds": LEASE_SECONDS, **settings}
        return HomeportController(self.plane, folder, name=name, settings=told, program=program, environ=environ)

    def _node(self, machine: Machine, disk: Path, number: int) -> HomeportNode:
        return HomeportNode(
            machine,
            self.plane,
            disk,
            number=number,
            shim=self._shim,
            settings=self.settings,
        )

    def reboot(self, name: str) -> None:
        """A node that was powered off comes back: its disk is there, its namespaces and processes are not."""
        old = self.nodes[name]
        old.close()
        old.machine.power_on()
        self.nodes[name] = self._node(old.machine, old.disk.folder, self.names.index(name) + 1)
        self.nodes[name].start()

    def end(self) -> None:
        """Everything but the control plane; `start` makes all of it anew."""
        for node in self.nodes.values():
            node.close()
            node.machine.close()
            self.admin.delete(f"/api/v1/nodes/{node.name}")
        self.nodes.clear()
        if self.controller is not None:
            self.controller.kill()
            self.controller = None
        for kind in ("ipallocations", "ipslots", "ipranges"):
            self.admin.request("DELETE", f"{HOMEPORT}/{kind}")
        if self.segment is not None:
            self.segment.close()
            self.segment = None

    def close(self) -> None:
        self.end()
        self.admin.close()
        shutil.rmtree(self.folder, ignore_errors=True)
