"""Short histories, each run in every order and with every fault up to a bound. What they are about is in
docs/protocol.md, under the number that each names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.protocol.machines import SimNode
from tests.protocol.simulation import Simulation

from homeport.ipam.objects import Pod


class Director:
    """Lets acts of a script happen, one after the other or together; a daemon that died is started for the next."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world

    def do(self, *acts: Callable[[], None]) -> None:
        """All of them, in any order of their points."""
        for act in acts:
            act()
        while self.simulation.scheduler.step():
            self.simulation.laws.check()
        self.simulation.laws.check()
        if self.simulation.scheduler.choose("order", (0, 1)):
            self.simulation.land()
            self.simulation.laws.check()

    def calmly(self, *acts: Callable[[], None]) -> None:
        """As `do`, one after the other and without faults: what leads up to a history."""
        self.simulation.faults = False
        for act in acts:
            act()
            self.simulation.scheduler.finish()
            self.simulation.laws.check()
        self.simulation.faults = True

    def node(self, name: str) -> SimNode:
        node = self.simulation.nodes[name]
        if node.daemon is None:
            node.start()
        return node

    # --- acts ---

    def attach(self, pod: Pod) -> Callable[[], None]:
        """A first or a next sandbox of the pod."""
        return self._kubelet(f"attach {pod.ref.name}", pod, partial(self.simulation.restart_sandbox, pod))

    def attach_again(self, pod: Pod) -> Callable[[], None]:
        """A next sandbox, while the DEL of the former is yet to come."""
        act = partial(self.simulation.restart_sandbox, pod, deliver_del=False)
        return self._kubelet(f"attach {pod.ref.name}", pod, act)

    def end(self, pod: Pod) -> Callable[[], None]:
        return self._kubelet(f"end {pod.ref.name}", pod, partial(self.simulation.end_pod, pod))

    def stop_sandbox(self, pod: Pod) -> Callable[[], None]:
        """The DEL alone; the pod's object stays."""

        def stop() -> None:
            node = self.simulation.nodes[pod.node]
            for container in node.of_pod(pod):
                node.detach(container)

        return self._kubelet(f"stop {pod.ref.name}", pod, stop)

    def rounds(self, name: str) -> Callable[[], None]:
        """What the node's daemon does in the background."""

        def act() -> None:
            node = self.node(name)
            self.simulation.spawn(f"rounds {name}", partial(self.simulation.rounds_of, node), group=name)

        return act

    def reconcile(self, number: int = 0) -> Callable[[], None]:
        controller = self.simulation.controllers[number]
        return partial(self.simulation.spawn, controller.name, controller.reconcile, group=controller.name)

    def cut_off(self, name: str) -> Callable[[], None]:
        return partial(self._connect, name, False)

    def reconnect(self, name: str) -> Callable[[], None]:
        return partial(self._connect, name, True)

    def force_delete(self, pod: Pod) -> Callable[[], None]:
        return partial(self.simulation.forget_pod, pod)

    def land(self) -> None:
        """What is late comes."""
        while self.simulation.land():
            self.simulation.laws.check()

    def pass_time(self, **span: float) -> Callable[[], None]:
        return partial(self.simulation.clock.advance, **span)

    def _connect(self, name: str, is_connected: bool) -> None:
        self.node(name).connected = is_connected
        self.simulation.follow_connections()

    def _kubelet(self, name: str, pod: Pod, action: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            self.node(pod.node)
            self.simulation.spawn(f"{name} on {pod.node}", action, group=pod.node)

        return act


def two_claim_at_once(director: Director) -> None:
    """P1, P2: strangers on two nodes find the same address free."""
    x, y = (director.world.start_stranger(name, node=node) for name, node in (("x", "n1"), ("y", "n2")))
    director.do(director.attach(x), director.attach(y))
    director.do(director.attach_again(x))


def replica_is_claimed_twice(director: Director) -> None:
    """A replica's pod is replaced while its ADD is under way on another node."""
    web = director.world.scale("a", 1)
    first = director.world.start(web, 0, node="n1")
    stranger = director.world.start_stranger("x", node="n2")
    director.do(director.attach(stranger))  # has the address of ordinal 0
    director.do(director.attach(first), director.attach(director.world.start(web, 0, node="n2")))
    director.do(director.attach(director.world.start(web, 0, node="n1")))


def late_release(director: Director) -> None:
    """P10, P12: a release is on its way for so long that its address has found somebody else."""
    x = director.world.start_stranger("x", node="n1")
    director.calmly(director.attach(x), director.end(x))
    director.do(director.rounds("n1"))
    director.do(director.rounds("n1"))
    director.do(director.attach(director.world.start_stranger("y", node="n2")))
    director.do(director.land)


def replica_with_a_strangers_address(director: Director) -> None:
    """P5, P8: a replica has other addresses than those of its ordinal, and comes back on either node."""
    stranger = director.world.start_stranger("x", node="n2")
    director.calmly(director.attach(stranger))
    web = director.world.scale("a", 1)
    pod = director.world.start(web, 0, node="n1")
    director.do(director.attach(pod))
    director.do(director.end(pod))
    director.do(director.rounds("n1"))
    director.calmly(director.end(stranger), director.rounds("n2"), director.force_delete(pod))
    again = director.world.start(web, 0, node="n1")
    director.do(director.attach(again), director.rounds("n1"))
    director.do(director.end(again))
    director.simulation.forget_pod(again)
    director.do(director.attach(director.world.start(web, 0, node="n2")))


def one_of_two_releases_is_delivered(director: Director) -> None:
    """P8: of the slot's two addresses one row is gone; and for a moment the API server does not answer."""
    stranger = director.world.start_stranger("x", node="n2")
    web = director.world.scale("a", 1)
    pod = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(stranger), director.attach(pod), director.end(stranger), director.rounds("n2"))
    director.calmly(director.stop_sandbox(pod))
    director.do(director.rounds("n1"))
    director.do(director.attach(pod))


def orphan(director: Director) -> None:
    """R13, R12: the workload is deleted, its pod stays, and is between two sandboxes when the controller looks."""
    web = director.world.scale("a", 1)
    pod = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(pod), director.stop_sandbox(pod), director.rounds("n1"))
    director.world.workloads.clear()
    director.do(director.reconcile(0))
    director.do(director.attach(pod))


def outage_between_two_sandboxes(director: Director) -> None:
    """P9, E20: the release may have been done when the node is cut off and the sandbox is made anew; then the pod is
    deleted by force and starts elsewhere.
    """
    web = director.world.scale("a", 1)
    pod = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(pod), director.stop_sandbox(pod))
    director.do(director.rounds("n1"))
    director.do(director.cut_off("n1"))
    director.do(director.attach(pod))
    director.do(director.force_delete(pod))
    director.do(director.attach(director.world.start(web, 0, node="n2")))


def outage_between_two_sandboxes_of_a_stranger(director: Director) -> None:
    """P10, E20: the same with an ordinary pod: its address is anybody's once its release is done."""
    pod = director.world.start_stranger("x", node="n1")
    director.calmly(director.attach(pod), director.stop_sandbox(pod))
    director.do(director.rounds("n1"))
    director.do(director.cut_off("n1"))
    director.do(director.attach(pod))
    director.do(director.attach(director.world.start_stranger("y", node="n2")))


def passed_on_while_cut_off(director: Director) -> None:
    """P11: the node's object is removed while it is away, so that its address goes to another; it makes a sandbox; it
    comes back.
    """
    pod = director.world.start_stranger("x", node="n1")
    director.calmly(
        director.attach(pod), director.cut_off("n1"), director.stop_sandbox(pod), director.force_delete(pod)
    )
    state = director.world.nodes.pop("n1")
    director.do(director.reconcile(0))
    director.do(director.attach(director.world.start_stranger("y", node="n2")))
    director.do(director.attach(pod))
    director.world.nodes["n1"] = state
    director.do(director.reconnect("n1"))


def replica_moves_and_comes_back(director: Director) -> None:
    """P12, P13: the first node has an old row, and an old DEL to deliver."""
    web = director.world.scale("a", 1)
    first = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(first))
    director.simulation.nodes["n1"].lose_power()
    director.do(director.force_delete(first))
    second = director.world.start(web, 0, node="n2")
    director.do(director.attach(second))
    director.simulation.nodes["n1"].powered = True
    director.do(lambda: director.simulation.spawn("DEL", lambda: director.simulation.clean_up(director.node("n1"))))
    director.do(director.rounds("n1"))
    director.do(director.end(second))
    director.simulation.forget_pod(second)
    director.do(director.attach(director.world.start(web, 0, node="n1")), director.rounds("n2"))


def release_races_a_return(director: Director) -> None:
    """P17, P18: the workload is scaled down and up while the controller looks at it."""
    web = director.world.scale("a", 1, annotations={"homeport.dev/retention": '{"whenScaled": "Release"}'})
    pod = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(pod), director.end(pod), director.rounds("n1"), director.force_delete(pod))
    director.world.scale("a", 0)

    def scale_up_and_attach() -> None:
        director.simulation.scheduler.point("scale up")
        director.world.scale("a", 1)
        director.simulation.restart_sandbox(director.world.start(web, 0, node="n2"))

    director.node("n2")
    director.do(
        director.reconcile(0),
        lambda: director.simulation.spawn("return", scale_up_and_attach, group="n2"),
    )


def two_controllers(director: Director) -> None:
    """P18, E22: both find the same to do."""
    web = director.world.scale("a", 1)
    pod = director.world.start(web, 0, node="n1")
    director.calmly(director.attach(pod), director.end(pod), director.rounds("n1"), director.force_delete(pod))
    director.world.workloads.clear()
    director.do(director.reconcile(0), director.reconcile(1))
    director.do(director.attach(director.world.start_stranger("x", node="n2")), director.reconcile(0))


Script = Callable[[Director], None]

SCRIPTS: tuple[Script, ...] = (
    two_claim_at_once,
    replica_is_claimed_twice,
    late_release,
    replica_with_a_strangers_address,
    one_of_two_releases_is_delivered,
    orphan,
    outage_between_two_sandboxes,
    outage_between_two_sandboxes_of_a_stranger,
    passed_on_while_cut_off,
    replica_moves_and_comes_back,
    release_races_a_return,
    two_controllers,
)
