"""A cluster that starts, stops, loses and rescales at random, against plain dictionaries (docs/identity.md R1-R13).

What must never be: two containers that use one address, a container whose address is not its own in the store, a
replica that comes back with another address, and anything left over once all is gone and one pass was made.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.stand_ins import StandingClock, World, attachment_of, netconf, shells_on
from tests.stand_ins_keeping import Keeper, KeptStore
from tests.stand_ins_objects import MemoryObjects

from homeport.cni.invocations import Attachment
from homeport.host.kernel import Kernel
from homeport.ipam.allocations import Allocation, Phase
from homeport.ipam.identities import Holder, Replica, Workload
from homeport.ipam.objects import Pod
from homeport.ipam.pools import parse_pool
from homeport.model.addresses import IPAddress, MacAddress
from homeport.model.errors import PoolExhausted, TryAgainLater
from homeport.model.names import PodRef
from homeport.plugins import whereabouts
from homeport.ports import AllocationStore, Shells
from homeport.runtime.mapping import Reservations
from homeport.runtime.reconciling import reconcile
from homeport.stores.memory import MemoryStore
from homeport.stores.sqlite import SqliteStore

SIZE = 6
IPAM = {"range": "10.0.0.1-10.0.0.6/24", "ipRanges": [{"range": "fd00::1-fd00::6/64"}]}
POOL = parse_pool(IPAM, network="multustest")
NODES = ("n1", "n2")
WORKLOADS = tuple(Workload("ns", "StatefulSet", name) for name in ("a", "b"))

nodes = st.sampled_from(NODES)
replicas = st.builds(Replica, st.sampled_from(WORKLOADS), st.integers(0, 2))


@dataclass
class Container:
    """A sandbox as its node sees it. `running`: its namespace is there. `addresses` come with the answer of ADD."""

    pod: Pod
    attachment: Attachment
    running: bool = True
    addresses: tuple[IPAddress, ...] = ()


class Killed(BaseException):
    """The process is gone: nothing after this line runs, no undoing either."""


class Mortal:
    """A store whose caller is killed after so many writes."""

    def __init__(self, store: AllocationStore, writes: int) -> None:
        self._store = store
        self._writes = writes

    def __getattr__(self, name: str) -> object:
        method = getattr(self._store, name)
        if name not in ("create", "replace", "delete"):
            return method

        def write(allocation: Allocation, *, cause: str) -> object:
            if not self._writes:
                raise Killed
            self._writes -= 1
            return method(allocation, cause=cause)

        return write


@dataclass
class Machine:
    """A `Host` of one node, as far as the plugin asks it; nothing is undone, as after a kill."""

    containers: dict[str, Container]

    def operation(self, *, undo_on_error: bool = True) -> AbstractContextManager[None]:
        return nullcontext()

    def on_undo(self, action: Callable[[], None]) -> None:
        pass

    def namespace_exists(self, path: str) -> bool:
        return any(c.running and c.attachment.netns_path == path for c in self.containers.values())


@dataclass
class Wire:
    """A `Probe` that hears every container that runs, wherever it is."""

    containers: dict[str, Container]
    users: Callable[[], list[tuple[IPAddress, str]]] = field(repr=False)

    def answers(
        self, address: IPAddress, *, link: str, netns: str | None = None, timeout_seconds: float = 0.5
    ) -> MacAddress | None:
        using = [c for a, c in self.users() if a == address]
        return MacAddress("0a:58:0a:00:00:01") if using else None


class ClusterModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = StandingClock()
        self.store = self.make_store()
        self.world = World()
        self.containers: dict[str, Container] = {}
        self.machine = Machine(self.containers)
        self.wire = Wire(self.containers, self.users)
        self.kept: dict[Replica, tuple[IPAddress, ...]] = {}
        self.count = 0
        for workload in WORKLOADS:
            self.world.scale(workload.name, 3)

    def make_store(self) -> AllocationStore:
        return MemoryStore()

    def teardown(self) -> None:
        try:
            self.end_of_the_world()
        finally:
            shutil.rmtree(self.directory)

    # --- what happens ---

    @rule(replica=replicas, node=nodes, writes=st.sampled_from([0, 1, 2, 98, 99, 99, 99]))
    def start_replica(self, replica: Replica, node: str, writes: int) -> None:
        """The workload's controller makes the pod anew, or the kubelet tries its ADD again."""
        state = self.world.workloads.get(replica.workload)
        pod = self.world.pods.get(replica.pod)
        if pod is None and (state is None or not state.wants(replica.ordinal)):
            return
        self.attach(pod or self.world.start(replica.workload, replica.ordinal, node=node), writes)

    @rule(name=st.sampled_from(["x", "y", "z"]), node=nodes, writes=st.sampled_from([0, 1, 98, 99, 99]))
    def start_stranger(self, name: str, node: str, writes: int) -> None:
        pod = self.world.pods.get(PodRef("ns", name)) or self.world.start_stranger(name, node=node)
        self.attach(pod, writes)

    @precondition(lambda self: self.containers)
    @rule(data=st.data(), forced=st.booleans())
    def delete_pod(self, data: st.DataObject, forced: bool) -> None:
        """With its containers, or, by force, leaving them behind."""
        container = self.pick(data)
        if self.world.pods.get(container.pod.ref) == container.pod:
            del self.world.pods[container.pod.ref]
        if not forced:
            self.tear_down(container, answered=True)

    @precondition(lambda self: self.containers)
    @rule(data=st.data(), answered=st.booleans())
    def end_container(self, data: st.DataObject, answered: bool) -> None:
        """The sandbox of a live or a deleted pod is torn down, its DEL answered or lost."""
        self.tear_down(self.pick(data), answered=answered)

    @precondition(lambda self: self.containers)
    @rule(data=st.data())
    def repeat_add(self, data: st.DataObject) -> None:
        """R7: the answer is the one it had, and stays so."""
        container = self.pick(data)
        if container.running and container.addresses and self.world.pods.get(container.pod.ref) == container.pod:
            assert self.add(container, 99) == container.addresses

    @rule(node=nodes)
    def lose_node(self, node: str) -> None:
        """Power failure: every container is gone, no DEL is sent, the pods are deleted by force."""
        for container in list(self.containers.values()):
            if container.pod.node == node:
                self.tear_down(container, answered=False)
                if self.world.pods.get(container.pod.ref) == container.pod:
                    del self.world.pods[container.pod.ref]

    @rule(workload=st.sampled_from(WORKLOADS), count=st.integers(0, 3))
    def scale(self, workload: Workload, count: int) -> None:
        self.world.scale(workload.name, count)

    @rule(workload=st.sampled_from(WORKLOADS))
    def delete_workload(self, workload: Workload) -> None:
        """With `orphan`: its pods stay."""
        self.world.workloads.pop(workload, None)

    @rule(writes=st.sampled_from([0, 1, 2, 99, 99]))
    def reconcile(self, writes: int) -> None:
        """Whole, or killed on its way."""
        with suppress(Killed):
            reconcile(
                cast(AllocationStore, Mortal(self.store, writes)),
                self.world,
                pool_of=lambda _: POOL,
                netns_exists=self.netns_exists,
                reservations=Reservations(),
                clock=self.clock,
            )
        # What may be forgotten: replicas whose workload and pod are gone and that hold nothing any more.
        for replica in list(self.kept):
            if replica.workload not in self.world.workloads and not self.store.of_owner(replica):
                del self.kept[replica]

    # --- what must hold ---

    @invariant()
    def no_address_has_two_users(self) -> None:
        addresses = [address for address, _ in self.users()]
        assert len(addresses) == len(set(addresses))

    @invariant()
    def every_user_is_the_holder(self) -> None:
        for address, container_id in self.users():
            allocation = self.store.get("", address)
            assert allocation is not None
            assert allocation.phase is Phase.BOUND
            assert allocation.is_held_by(container_id, "net1")

    @invariant()
    def only_what_is_bound_has_a_holder(self) -> None:
        assert all((a.holder is not None) == (a.phase is Phase.BOUND) for a in self.store.all())

    @invariant()
    def the_ledger_adds_up(self) -> None:
        """R15: replaying it gives what is stored."""
        replayed: dict[IPAddress, Allocation] = {}
        for entry in self.store.ledger():
            subject = entry.after or entry.before
            assert subject is not None
            assert replayed.get(subject.address) == entry.before
            if entry.after is None:
                del replayed[subject.address]
            else:
                replayed[subject.address] = entry.after
        assert replayed == {a.address: a for a in self.store.all()}

    def end_of_the_world(self) -> None:
        """Everything is gone without a word; one pass finds all of it."""
        for node in NODES:
            self.lose_node(node)
        self.world.pods.clear()
        self.world.workloads.clear()
        self.reconcile(writes=99)
        assert tuple(self.store.all()) == ()

    # --- how ---

    def pick(self, data: st.DataObject) -> Container:
        return self.containers[data.draw(st.sampled_from(sorted(self.containers)))]

    def users(self) -> list[tuple[IPAddress, str]]:
        """Every address that is on an interface, and the container it is in."""
        return [(a, name) for name, c in self.containers.items() if c.running for a in c.addresses]

    def netns_exists(self, holder: Holder) -> bool:
        return self.machine.namespace_exists(holder.netns_path)

    def shells(self, node: str, writes: int) -> Shells:
        return shells_on(
            node,
            cast(AllocationStore, Mortal(self.store, writes)),
            world=self.world,
            clock=self.clock,
            probe=self.wire,  # type: ignore[arg-type]  # the model's own, not the stand-in
            host=cast(Kernel, self.machine),
        )

    def attach(self, pod: Pod, writes: int) -> None:
        """A new sandbox for the pod; its old one, if there is one, is torn down first, as a kubelet does."""
        for old in list(self.containers.values()):
            if old.pod.uid == pod.uid and old.running:
                self.tear_down(old, answered=bool(self.count % 2))
        self.count += 1
        name = f"c{self.count}"
        container = self.containers[name] = Container(pod, attachment_of(pod, name))
        try:
            answer = self.add(container, writes)
        except Killed:
            return
        except TryAgainLater:
            rivals = [c for c in self.containers.values() if c is not container and c.running]
            assert any(c.pod.ref == pod.ref for c in rivals), "waits for nobody"
            return
        except PoolExhausted:
            for family in (4, 6):
                if sum(a.address.version == family for a in self.store.all()) == SIZE:
                    return
            raise
        owner = self.store.of_holder(name, "net1")[0].slot.owner
        if isinstance(owner, Replica):
            assert self.kept.setdefault(owner, answer) == answer  # R2
        if writes != 98:  # else killed with everything written and nothing answered
            container.addresses = answer

    def add(self, container: Container, writes: int) -> tuple[IPAddress, ...]:
        result = whereabouts.add(netconf(IPAM), container.attachment, self.shells(container.pod.node, writes))
        return tuple(ip.address.ip for ip in result.ips)

    def tear_down(self, container: Container, *, answered: bool) -> None:
        """The namespace goes; then the DEL arrives, or never does. It may arrive again at any time."""
        container.running = False
        if answered:
            whereabouts.delete(netconf(IPAM), container.attachment, self.shells(container.pod.node, 99))


class SqliteClusterModel(ClusterModel):
    def make_store(self) -> AllocationStore:
        return SqliteStore(self.directory / "allocations.db")


class KubernetesClusterModel(ClusterModel):
    def make_store(self) -> AllocationStore:
        objects = MemoryObjects()
        self.keeper = Keeper(objects, self.clock.now)
        return KeptStore(objects, self.keeper, self.clock.now)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.keeper.stop()


TestClusterInMemory = ClusterModel.TestCase
TestClusterInMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestClusterInSqlite = SqliteClusterModel.TestCase
TestClusterInSqlite.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
TestClusterInKubernetes = KubernetesClusterModel.TestCase
TestClusterInKubernetes.settings = settings(max_examples=20, stateful_step_count=40, deadline=None)
