"""A simulated node: containers with their interfaces, a daemon over the real stores, and a kubelet that calls it.

The kernel is a list of containers. What the plugin would do to it stands in `SimNode.attach` and `detach`, in the
plugins' own order: an address comes onto the interface after IPAM's ADD, and leaves it before IPAM's DEL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from tests.stand_ins import attachment_of, netconf

from homeport.cni.invocations import Attachment
from homeport.ipam.identities import Workload
from homeport.ipam.objects import NodeState, Pod, WorkloadState
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import CniError, TryAgainLater
from homeport.model.names import PodRef
from homeport.plugins import whereabouts
from homeport.ports import KernelRoute

if TYPE_CHECKING:
    from tests.protocol.simulation import Daemon, Simulation


class Stage(Enum):
    """Of a container, as the runtime knows it."""

    ADDING = "adding"
    UP = "up"
    ENDING = "ending"  # its ADD failed, or it is to be torn down: its DEL is to be repeated until it is answered
    GONE = "gone"


@dataclass(eq=False)
class Container:
    """A sandbox. `running`: its namespace is there. `addresses` are on its interface."""

    name: str
    pod: Pod
    attachment: Attachment
    node: str
    running: bool = True
    stage: Stage = Stage.ADDING
    addresses: tuple[IPAddress, ...] = ()


class SimKernel:
    """A `Host` as far as the plugin asks it. A killed daemon undoes nothing."""

    def __init__(self, containers: dict[str, Container], note: Callable[[str], None]) -> None:
        self._containers = containers
        self._note = note
        self._undoing = threading.local()

    @contextmanager
    def operation(self, *, undo_on_error: bool = True) -> Iterator[None]:
        actions: list[Callable[[], None]] = []
        self._undoing.actions = actions
        try:
            yield
        except Exception:
            for action in reversed(actions):
                try:
                    action()
                except CniError as e:
                    self._note(f"undoing failed: {e}")
            raise

    def on_undo(self, action: Callable[[], None]) -> None:
        self._undoing.actions.append(action)

    def namespace_exists(self, path: str) -> bool:
        return any(c.running and c.attachment.netns_path == path for c in self._containers.values())

    def routes(self) -> tuple[KernelRoute, ...]:
        return ()


@dataclass
class SimProbe:
    """A `Probe`: hears the interfaces of every other node, as a macvlan's parent does not hear its own children."""

    simulation: Simulation
    node: str

    def answers(
        self, address: IPAddress, *, link: str, netns: str | None = None, timeout_seconds: float = 0.5
    ) -> MacAddress | None:
        self.simulation.scheduler.point(f"probe {address}")
        heard = [c for a, c in self.simulation.users() if a == address and c.node != self.node]
        return MacAddress("0a:58:0a:00:00:01") if heard else None


@dataclass
class SimCluster:
    """A `Kubernetes`' answers on one node: what is in the world, each a point; from its watch while it is cut off."""

    simulation: Simulation
    name: str
    reachable: Callable[[], bool]
    pods: dict[PodRef, Pod] = field(default_factory=dict)
    workloads: dict[Workload, WorkloadState] = field(default_factory=dict)

    def pod(self, ref: PodRef) -> Pod | None:
        if not self._may_ask("pod") and ref in self.pods:
            return self.pods[ref]
        return self.pod_now(ref)

    def pod_now(self, ref: PodRef) -> Pod | None:
        self._ask(f"pod {ref}")
        found = self.simulation.world.pod_now(ref)
        if found is not None:
            self.pods[ref] = found
        return found

    def workload(self, workload: Workload) -> WorkloadState | None:
        if not self._may_ask("workload") and workload in self.workloads:
            return self.workloads[workload]
        self._ask(f"workload {workload}")
        found = self.simulation.world.workload(workload)
        if found is not None:
            self.workloads[workload] = found
        return found

    def node(self, name: str) -> NodeState | None:
        self._ask(f"node {name}")
        return self.simulation.world.node(name)

    def _may_ask(self, _what: str) -> bool:
        return self.reachable()

    def _ask(self, what: str) -> None:
        self.simulation.scheduler.point(f"{self.name}: ask for {what}")
        if not self.reachable():
            raise TryAgainLater(f"ask for {what}: unreachable")
        if self.simulation.fails("ask"):
            raise TryAgainLater(f"ask for {what}: no answer in time")


class SimNode:
    """One machine. What `attach` and `detach` do is a task: every request in it a point, and maybe its last."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.containers: dict[str, Container] = {}
        self.kernel = SimKernel(self.containers, simulation.scheduler.note)
        self.probe = SimProbe(simulation, name)
        self.powered = True
        self.connected = True
        self.is_forgetful = False  # it has lost its claims once
        self.cluster = SimCluster(simulation, name, self.is_connected)
        self.daemon: Daemon | None = None

    def is_connected(self) -> bool:
        return self.connected and not self.simulation.outage

    # --- the daemon ---

    def start(self) -> None:
        self.daemon = self.simulation.make_daemon(self)

    def crash(self) -> None:
        """The daemon dies where it is; kernel and containers live on. The runtime sees its ADDs fail."""
        self.simulation.scheduler.note(f"{self.name}: the daemon is killed")
        self.simulation.scheduler.kill(self.name)
        daemon, self.daemon = self.daemon, None
        if daemon is not None:
            daemon.abandon()
        for container in self.containers.values():
            if container.stage is Stage.ADDING:
                container.stage = Stage.ENDING

    def lose_claims(self) -> None:
        """The file is gone, while no daemon runs."""
        self.simulation.scheduler.note(f"{self.name}: the claims file is lost")
        self.is_forgetful = True
        for path in (self.simulation.folder / self.name).glob("claims.db*"):
            path.unlink()

    def lose_power(self) -> None:
        self.simulation.scheduler.note(f"{self.name}: power failure")
        self.crash()
        self.powered = False
        for container in self.containers.values():
            container.running, container.addresses = False, ()
            if container.stage is not Stage.GONE:
                container.stage = Stage.ENDING

    def recorded(self) -> frozenset[IPAddress]:
        """What results of ADD are kept for: an interface that is up."""
        return frozenset(a for c in self.containers.values() if c.running for a in c.addresses)

    # --- the runtime ---

    def of_pod(self, pod: Pod) -> list[Container]:
        """Its containers whose end the runtime has not seen."""
        return [c for c in self.containers.values() if c.pod.uid == pod.uid and c.stage is not Stage.GONE]

    def attach(self, pod: Pod) -> Container:
        """A new sandbox for the pod; what came before it for the same pod has been torn down."""
        number = self.simulation.count()
        container = Container(f"c{number}", pod, attachment_of(pod, f"c{number}"), self.name)
        self.containers[container.name] = container
        self._add(container)
        return container

    def repeat_add(self, container: Container) -> None:
        """R7: the very same call again answers the same."""
        before = container.addresses
        self._add(container)
        if container.stage is Stage.UP and container.running and not self.is_forgetful:
            assert container.addresses == before, f"{container.name}: a repeated ADD answered {container.addresses}"

    def detach(self, container: Container) -> None:
        """Its end, as often as it takes. The interface goes first."""
        container.stage = Stage.ENDING
        assert self.daemon is not None
        self.simulation.scheduler.point(f"remove the interface of {container.name}")
        container.addresses = ()
        try:
            whereabouts.delete(netconf(self.simulation.ipam), container.attachment, self.daemon.shells)
        except CniError as e:
            self.simulation.scheduler.note(f"DEL of {container.name} failed: {e}")
            return
        self.simulation.scheduler.point(f"DEL of {container.name} was answered")
        container.running = False
        container.stage = Stage.GONE

    def _add(self, container: Container) -> None:
        assert self.daemon is not None
        note = self.simulation.scheduler.note
        try:
            result = whereabouts.add(netconf(self.simulation.ipam), container.attachment, self.daemon.shells)
        except CniError as e:
            note(f"ADD of {container.name} for {container.pod.ref} failed: {e}")
            container.stage, container.addresses = Stage.ENDING, ()
            return
        addresses = tuple(ip.address.ip for ip in result.ips)
        self.simulation.scheduler.point(f"give {container.name} its addresses")
        if container.running:
            container.addresses = addresses
        self.simulation.scheduler.point(f"answer ADD of {container.name}")
        note(f"ADD of {container.name} for {container.pod.ref} answered {', '.join(map(str, addresses))}")
        if container.stage is Stage.ADDING:
            container.stage = Stage.UP
            self.simulation.laws.answered(container, addresses)
