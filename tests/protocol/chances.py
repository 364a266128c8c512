"""What happens to a simulated cluster by chance: all of docs/identity.md that a few nodes and pods can suffer."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from tests.protocol.machines import Container, SimNode, Stage
from tests.protocol.simulation import Simulation

from homeport.ipam.identities import Workload
from homeport.ipam.objects import Pod
from homeport.model.names import PodRef
from homeport.stores.kubernetes.resources import IPALLOCATIONS

WORKLOADS = tuple(Workload("ns", "StatefulSet", name) for name in ("a", "b"))
STRANGERS = ("x", "y", "z")
REPLICAS = 2


class Chances:
    """Chooses the next act by `random`; each is harmless where it makes no sense."""

    def __init__(self, simulation: Simulation, chance: random.Random) -> None:
        self._simulation = simulation
        self._random = chance
        self._busy: set[str] = set()  # UIDs of pods that a kubelet is at work on
        self._acts: list[tuple[int, Callable[[], None]]] = [
            (10, self._start_replica),
            (6, self._start_stranger),
            (6, self._restart_sandbox),
            (3, self._repeat_add),
            (5, self._end_pod),
            (4, self._force_delete),
            (8, self._clean_up),
            (12, self._rounds),
            (6, self._reconcile),
            (3, self._crash),
            (6, self._start_daemon),
            (1, self._lose_power),
            (2, self._turn_outage),
            (2, self._turn_connection),
            (2, self._scale),
            (1, self._delete_workload),
            (4, self._land),
            (1, self._delete_by_hand),
            (2, self._pass_time),
        ]
        for workload in WORKLOADS:
            simulation.world.scale(workload.name, REPLICAS)

    def run(self, steps: int) -> None:
        """So many steps, of tasks under way or new acts; the laws are checked after each."""
        weights = [weight for weight, _ in self._acts]
        for _ in range(steps):
            if self._simulation.scheduler.tasks and self._random.random() < 0.8:
                self._simulation.scheduler.step()
            else:
                self._random.choices([act for _, act in self._acts], weights)[0]()
            self._simulation.laws.check()

    # --- pods ---

    def _start_replica(self) -> None:
        workload = self._random.choice(WORKLOADS)
        state = self._simulation.world.workloads.get(workload)
        ordinal = self._random.randrange(REPLICAS)
        if state is not None and state.wants(ordinal):
            self._attach(self._simulation.start_replica(workload, ordinal, self._a_node().name))

    def _start_stranger(self) -> None:
        name = self._random.choice(STRANGERS)
        world = self._simulation.world
        pod = world.pods.get(PodRef("ns", name)) or world.start_stranger(name, node=self._a_node().name)
        self._attach(pod)

    def _attach(self, pod: Pod) -> None:
        node = self._simulation.nodes[pod.node]
        if not any(c.stage is not Stage.ENDING for c in node.of_pod(pod)):
            self._work_on(pod, "start", partial(self._simulation.restart_sandbox, pod, deliver_del=self._flips()))

    def _restart_sandbox(self) -> None:
        pod = self._a_pod()
        if pod is not None:
            self._work_on(pod, "restart", partial(self._simulation.restart_sandbox, pod, deliver_del=self._flips()))

    def _repeat_add(self) -> None:
        container = self._a_container()
        if container is not None and container.stage is Stage.UP:
            node = self._simulation.nodes[container.node]
            self._work_on(container.pod, "repeat", partial(node.repeat_add, container))

    def _end_pod(self) -> None:
        pod = self._a_pod()
        if pod is not None:
            self._work_on(pod, "end", partial(self._simulation.end_pod, pod))

    def _force_delete(self) -> None:
        pod = self._a_pod()
        if pod is not None:
            self._simulation.forget_pod(pod)

    def _clean_up(self) -> None:
        """What is left of pods that are gone, and of attempts that failed."""
        node, pods = self._a_node(), self._simulation.world.pods
        for container in node.containers.values():
            is_over = container.stage is Stage.UP and pods.get(container.pod.ref) != container.pod
            if is_over or container.stage is Stage.ENDING:
                self._work_on(container.pod, "clean", partial(node.detach, container))

    # --- processes and machines ---

    def _rounds(self) -> None:
        node = self._a_node()
        if node.daemon is not None:
            self._simulation.spawn(f"rounds {node.name}", partial(self._simulation.rounds_of, node), group=node.name)

    def _reconcile(self) -> None:
        controller = self._random.choice(self._simulation.controllers)
        if controller.name not in self._simulation.passes_began:
            self._simulation.spawn(controller.name, controller.reconcile, group=controller.name)

    def _crash(self) -> None:
        self._a_node().crash()

    def _start_daemon(self) -> None:
        for node in self._simulation.nodes.values():
            if node.daemon is None and (node.powered or self._flips()):
                node.powered = True
                if self._random.random() < 0.15:
                    node.lose_claims()
                node.start()

    def _lose_power(self) -> None:
        """Pods of the node are deleted by force, or stay and get new sandboxes when it is back."""
        node = self._a_node()
        node.lose_power()
        for pod in list(self._simulation.world.pods.values()):
            if pod.node == node.name and self._flips():
                self._simulation.forget_pod(pod)

    def _turn_outage(self) -> None:
        if not self._simulation.outage and self._random.random() < 0.7:
            return
        self._simulation.outage = not self._simulation.outage
        self._simulation.scheduler.note(f"the API server is {'away' if self._simulation.outage else 'back'}")
        self._simulation.follow_connections()

    def _turn_connection(self) -> None:
        node = self._a_node()
        if node.connected and self._random.random() < 0.7:
            return
        node.connected = not node.connected
        self._simulation.scheduler.note(f"{node.name} is {'connected' if node.connected else 'cut off'}")
        self._simulation.follow_connections()

    # --- the rest ---

    def _scale(self) -> None:
        workload = self._random.choice(WORKLOADS)
        self._simulation.world.scale(workload.name, self._random.randrange(REPLICAS + 1))

    def _delete_workload(self) -> None:
        self._simulation.world.workloads.pop(self._random.choice(WORKLOADS), None)

    def _land(self) -> None:
        self._simulation.land()

    def _delete_by_hand(self) -> None:
        """An operator deletes any allocation."""
        stored = sorted(key[2] for key in self._simulation.server.objects if key[0] == IPALLOCATIONS)
        if stored:
            self._simulation.delete_by_hand(self._random.choice(stored))

    def _pass_time(self) -> None:
        self._simulation.clock.advance(seconds=self._random.choice([1, 20, 400]))

    # --- choices ---

    def _work_on(self, pod: Pod, what: str, action: Callable[[], object]) -> None:
        """As a kubelet does: one thing at a time for a pod, and only through a daemon that lives."""
        node = self._simulation.nodes[pod.node]
        if node.daemon is None or pod.uid in self._busy:
            return
        self._busy.add(pod.uid)

        def work() -> None:
            try:
                action()
            finally:
                self._busy.discard(pod.uid)

        self._simulation.spawn(f"{what} {pod.ref.name} on {node.name}", work, group=node.name)

    def _flips(self) -> bool:
        return self._random.random() < 0.5

    def _a_node(self) -> SimNode:
        return self._random.choice(list(self._simulation.nodes.values()))

    def _a_pod(self) -> Pod | None:
        pods = list(self._simulation.world.pods.values())
        return self._random.choice(pods) if pods else None

    def _a_container(self) -> Container | None:
        found = [c for node in self._simulation.nodes.values() for c in node.containers.values()]
        return self._random.choice(found) if found else None
