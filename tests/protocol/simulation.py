"""A cluster to play with: an API server in memory, nodes, a controller, and everything that may go wrong.

`Simulation` has the acts; what happens in which order is its user's to say: a script that is run in every order
(`scripts.py`), or chance (`chances.py`). After every step the laws are checked.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from tests.protocol.laws import Laws
from tests.protocol.machines import Container, SimCluster, SimNode, Stage
from tests.protocol.scheduling import Chooser, Killed, Scheduler, TaskLock
from tests.stand_ins import StandingClock, World, shells_on
from tests.stand_ins_objects import Call, Fate, MemoryObjects
from tests.stand_ins_server import MemoryServer

from homeport.controller.operating import Term, Tools
from homeport.controller.reporting import Reporter
from homeport.daemon.holding import Holding
from homeport.host.kernel import Kernel
from homeport.ipam.identities import Replica, Workload
from homeport.ipam.objects import Pod
from homeport.ipam.pools import parse_pool
from homeport.kube.resources import DEFINITIONS
from homeport.model.addresses import IPAddress
from homeport.ports import Shells
from homeport.stores.claims import Claims
from homeport.stores.kubernetes.resources import IPALLOCATIONS, IPSLOTS
from homeport.stores.kubernetes.store import KubernetesStore
from homeport.stores.nodes import NodeStore

SINGLE: Mapping[str, Any] = {"range": "10.0.0.1-10.0.0.6/24"}
DUAL: Mapping[str, Any] = {"range": "10.0.0.1-10.0.0.6/24", "ipRanges": [{"range": "fd00::1-fd00::6/64"}]}
QUIET_ROUNDS, ROUND_MINUTES = 4, 21  # IPSlots are looked through every hour, and then watched for ten minutes
READS: Sequence[Fate] = ("done", "before")
WRITES: Sequence[Fate] = ("done", "unreached", "before", "after", "later")


class SimClock(StandingClock):
    """Whoever sleeps lets others run."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self._scheduler.point("sleep")


@dataclass
class Daemon:
    """A process of a node: what is lost with it."""

    client: MemoryObjects
    store: NodeStore
    shells: Shells
    holding: Holding

    def abandon(self) -> None:
        """Killed: what it kept open is the kernel's to close."""
        self.store.claims.close()
        self.client.close()


class SimController:
    """One of the controllers: there may be two at once, and each may die anywhere. Another process takes its place."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self._simulation = simulation
        self.name = name
        self.client = simulation.client(name)
        self._cluster = SimCluster(simulation, name, lambda: not simulation.outage)
        self._term: Term | None = None

    def crash(self) -> None:
        self._simulation.scheduler.note(f"{self.name} is killed")
        self._simulation.scheduler.kill(self.name)
        self._simulation.passes_began.pop(self.name, None)
        self._term = None
        self.client.close()
        self.client.watches.clear()

    def reconcile(self) -> None:
        """What is due, a full pass included; each step of it is one pass."""
        simulation = self._simulation
        if self._term is None:
            self._term = Term(
                Tools(
                    objects=self.client,
                    cluster=self._cluster,
                    clock=simulation.clock,
                    reporter=Reporter(lambda _event: None),
                    fill_ipam=lambda plugin: plugin["ipam"],
                    full_pass_seconds=1.0,
                )
            )
        for _ in range(3):
            simulation.passes_began[self.name] = simulation.laws.step
            self._term.step()
            self.client.deliver()
        simulation.passes_began.pop(self.name, None)


class Simulation:
    """One run. `chooser` decides what is left open, so a run is repeated by giving it the same one again."""

    def __init__(
        self,
        chooser: Chooser,
        folder: Path,
        *,
        nodes: Sequence[str] = ("n1", "n2"),
        ipam: Mapping[str, Any] = DUAL,
    ) -> None:
        self.ipam = ipam
        self.scheduler = Scheduler(chooser)
        self.clock = SimClock(self.scheduler)
        self.world = World()
        self.server = MemoryServer()
        self.pool = parse_pool(self.ipam, network="multustest")
        self.folder = folder
        self.faults = True
        self.outage = False
        self.clients: list[MemoryObjects] = []
        self.passes_began: dict[str, int] = {}
        self.laws = Laws(self)
        self._counted = 0
        self.nodes = {name: SimNode(self, name) for name in nodes}
        for node in self.nodes.values():
            node.start()
        self._define_network()
        self.controllers = [SimController(self, f"controller-{n}") for n in (1, 2)]

    def _define_network(self) -> None:
        config = {
            "cniVersion": "1.0.0",
            "name": "multustest",
            "type": "macvlan",
            "ipam": {"type": "whereabouts", **self.ipam},
        }
        body = {"metadata": {"name": "multustest"}, "spec": {"config": json.dumps(config)}}
        MemoryObjects(self.server).create(DEFINITIONS, body, namespace="ns")

    # --- what the machines ask ---

    def count(self) -> int:
        self._counted += 1
        return self._counted

    def users(self) -> list[tuple[IPAddress, Container]]:
        """Every address that is on an interface of a container."""
        return [
            (address, c)
            for node in self.nodes.values()
            for c in node.containers.values()
            if c.running
            for address in c.addresses
        ]

    def fails(self, _what: str) -> bool:
        """Whether a question goes without an answer."""
        return self.faults and self.scheduler.choose("fate", (0, 1)) == 1

    def client(self, group: str) -> MemoryObjects:
        """A client whose every request is a point, and may meet every fate, or be the last of its group."""
        objects = MemoryObjects(self.server, threaded=False)
        dying: list[Call] = []

        def before(call: Call) -> None:
            self.scheduler.point(f"{group}: {call.verb} {call.resource.plural} {call.name}")

        def fate(call: Call) -> Fate:
            if not self.faults:
                return "done"
            fates = READS if call.verb in ("get", "list", "names") else WRITES
            kinds = (*fates, "killed before", "killed after")
            chosen = kinds[self.scheduler.choose("fate", [0] + [1] * (len(kinds) - 1))]
            if chosen != "done":
                self.scheduler.note(f"{call.verb} {call.resource.plural} {call.name}: {chosen}")
            if chosen == "killed before":
                self.kill(group)
                raise Killed
            if chosen == "killed after":
                dying.append(call)
                return "done"
            return chosen  # type: ignore[return-value]  # one of the fates

        def after(call: Call) -> None:
            if call in dying:
                dying.remove(call)
                self.kill(group)
                raise Killed
            self.laws.check()

        objects.on_call, objects.fate, objects.on_done = before, fate, after
        self.clients.append(objects)
        return objects

    def kill(self, group: str) -> None:
        """The process of that name: a node's daemon, or a controller, whose next pass is another process."""
        if group in self.nodes:
            self.nodes[group].crash()
        else:
            next(c for c in self.controllers if c.name == group).crash()

    def _give_task_locks(self, owner: object) -> None:
        """In the place of locks that it holds while it asks the API server."""
        for name, value in list(vars(owner).items()):
            if isinstance(value, type(threading.Lock())):
                vars(owner)[name] = TaskLock(self.scheduler)

    def make_remote(self, client: MemoryObjects) -> KubernetesStore:
        """The store of the cluster, for one process."""
        rng = random.Random(len(self.clients))
        store = KubernetesStore(client, now=self.clock.now, monotonic=self.clock.monotonic, rng=rng)
        self._give_task_locks(vars(store)["_search"])
        store.start()
        return store

    def make_daemon(self, node: SimNode) -> Daemon:
        """A new process of the node, over what its disk has."""
        client = self.client(node.name)
        client.reachable = node.is_connected()
        store = NodeStore(
            self.make_remote(client),
            Claims(self.folder / node.name / "claims.db"),
            node=node.name,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
        )
        self._give_task_locks(vars(store)["_deliveries"])
        shells = shells_on(
            node.name,
            store,
            clock=self.clock,
            probe=node.probe,  # type: ignore[arg-type]  # the simulation's own, not the stand-in
            host=cast(Kernel, node.kernel),
        )
        holding = Holding(
            store,
            client,
            node.cluster,
            node=node.name,
            netns_exists=node.kernel.namespace_exists,
            recorded=node.recorded,
            emit=lambda _event: None,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
        )
        holding.start()
        return Daemon(client, store, msgspec.structs.replace(shells, cluster=node.cluster), holding)

    def rounds_of(self, node: SimNode) -> None:
        """A task: what a daemon does in the background."""
        daemon = node.daemon
        if daemon is not None:
            daemon.client.deliver()
            daemon.holding.go_through()
            daemon.store.deliver()

    # --- acts ---

    def spawn(self, name: str, action: Callable[[], object], *, group: str = "") -> None:
        """A task of a process; `group` is what it dies with."""

        def act() -> None:
            action()
            self.laws.check()

        self.scheduler.spawn(name, act, group=group)

    def start_replica(self, workload: Workload, ordinal: int, node: str) -> Pod:
        """The workload's controller makes its pod, unless one of that name is there."""
        ref = Replica(workload, ordinal).pod
        return self.world.pods.get(ref) or self.world.start(workload, ordinal, node=node)

    def forget_pod(self, pod: Pod) -> None:
        """Its object is gone; what runs of it runs on."""
        if self.world.pods.get(pod.ref) == pod:
            self.scheduler.note(f"pod {pod.ref} {pod.uid} is gone from the API server")
            del self.world.pods[pod.ref]

    def restart_sandbox(self, pod: Pod, *, deliver_del: bool = True) -> None:
        """A task: the kubelet stops what the pod had, and makes a new sandbox."""
        node = self.nodes[pod.node]
        for container in node.of_pod(pod):
            container.addresses, container.running, container.stage = (), False, Stage.ENDING
            if deliver_del:
                node.detach(container)
        node.attach(pod)

    def end_pod(self, pod: Pod) -> None:
        """A task: a graceful end. The pod's object goes last."""
        node = self.nodes[pod.node]
        for container in node.of_pod(pod):
            node.detach(container)
        if not node.of_pod(pod):
            self.forget_pod(pod)

    def clean_up(self, node: SimNode) -> None:
        """A task: the runtime repeats each DEL that was not answered."""
        for container in list(node.containers.values()):
            if container.stage is Stage.ENDING:
                node.detach(container)

    def follow_connections(self) -> None:
        """Clients reach the API server as nodes and controllers now do."""
        for node in self.nodes.values():
            if node.daemon is not None:
                node.daemon.client.reachable = node.is_connected()
        for controller in self.controllers:
            controller.client.reachable = not self.outage

    def delete_by_hand(self, name: str) -> None:
        """An operator deletes an allocation, whoever uses it."""
        self.laws.check()
        self.scheduler.note(f"ipallocations {name} is deleted by hand")
        MemoryObjects(self.server, threaded=False).delete(IPALLOCATIONS, name)
        self.laws.by_operator()

    def land(self) -> bool:
        """Does one request that is late; False when there is none."""
        return any(client.land(1) for client in self.clients)

    # --- the end ---

    def calm(self) -> None:
        """Faults stop. Whatever is under way ends, whatever is late comes, and everybody does their rounds until nobody
        has anything left to do.
        """
        self.faults = False
        self.outage = False
        while self.land():
            self.laws.check()
        for node in self.nodes.values():
            node.connected = node.powered = True
            if node.daemon is None:
                node.start()
        self.follow_connections()
        while self.scheduler.step():
            self.laws.check()
        quiet = 0
        for _ in range(40):
            before = self._standing()
            for node in self.nodes.values():
                self.clean_up(node)
                self.rounds_of(node)
            for controller in self.controllers:
                controller.reconcile()
            self.laws.check()
            self.clock.advance(minutes=ROUND_MINUTES)
            pending = any(node.daemon is not None and node.daemon.store.pending() for node in self.nodes.values())
            quiet = quiet + 1 if self._standing() == before and not pending else 0
            if quiet == QUIET_ROUNDS:
                return
        raise AssertionError("nobody comes to rest")

    def _standing(self) -> dict[str, str]:
        """Allocations and slots, and their versions."""
        objects = self.server.objects.items()
        return {key[2]: stored.version for key, stored in objects if key[0] in (IPALLOCATIONS, IPSLOTS)}

    def end(self) -> None:
        """After `calm`: every pod and workload goes, and is forgotten."""
        self.laws.settled()
        for node in self.nodes.values():
            for container in node.containers.values():
                if container.stage is not Stage.GONE:
                    node.detach(container)
        for pod in list(self.world.pods.values()):
            self.forget_pod(pod)
        self.world.workloads.clear()
        self.calm()
        self.laws.nothing_is_left()

    def close(self) -> None:
        """Ends all threads and files."""
        self.scheduler.abandon()
        for node in self.nodes.values():
            if node.daemon is not None:
                node.daemon.abandon()
        for client in self.clients:
            client.close()
